"""What another store lacks is sent, once, whatever happens in between. Both stores are SQLite here."""

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ssl_app.errors import RunError, SettingsError
from ssl_app.tracking import Tracker, TrialRecord, open_tracker
from ssl_app.tracking.store import local_store, remote_store
from ssl_app.tracking.sync import Sent, Sync, Unreachable, sync

Read = Callable[..., dict[str, dict[str, Any]]]
WRITES = {
    "create_run",
    "log_batch",
    "log_inputs",
    "log_artifact",
    "set_terminated",
    "update_run",
    "set_experiment_tag",
}


def log_run(tracker: Tracker, folder: Path, epochs: int = 3) -> None:
    """A run with something of everything."""
    run = tracker.start(folder.name, folder, {"lr": 0.1}, {"verb": "pretrain"})
    for epoch in range(epochs):
        run.metrics({"loss": 1 / (epoch + 1), "lost": float("nan"), "up": float("inf")}, epoch, timestamp=epoch + 1.0)
    (folder / "draws").mkdir(parents=True, exist_ok=True)
    (folder / "draws" / "a.csv").write_text("1,2")
    (folder / "weights.bin").write_bytes(b"0123456789")
    run.artifact(folder / "draws")
    run.artifact(folder / "weights.bin")
    run.data("scans/", "abc", "training")
    run.finish()


def log_sweep(tracker: Tracker, folder: Path) -> None:
    trials = [
        TrialRecord(
            f"{folder.name}-{n}-{draw}",
            folder / f"{n}-{draw}",
            {"draw": str(draw), "strategy": "x"},
            n,
            {"accuracy": 0.5},
        )
        for n, draw in itertools.product((1, 8), (0, 1))
    ]
    tracker.log_trials(trials, folder)
    tracker.save_views(folder.name)


def dump(uri: str) -> list[str]:
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
    lines = list(connection.iterdump())
    connection.close()
    return lines


def both(out: Path, remote: str) -> Sync:
    store = remote_store(out, remote)
    assert store is not None
    return Sync(out, local_store(out), store, 5)


def run_ids(client: MlflowClient) -> list[str]:
    experiment = client.get_experiment_by_name("digits")
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])]


def test_runs_trials_curves_and_views_arrive_whole_and_once(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read
) -> None:
    log_run(tracker, out / "first")
    log_sweep(tracker, out / "sweep-1")
    (outcome,) = sync(out, remote)
    assert (outcome.where, outcome.failure) == (remote, None)
    assert str(outcome.sent) == "sent 7 runs, 21 metrics, 2 files, 3 views"  # 3 x 3, 4 x 2 and 4
    assert outcome.sent.refused == []
    assert content(there) == content(client)
    assert len(content(there)) == 7
    before = dump(remote)
    (again,) = sync(out, remote)
    assert str(again.sent) == "nothing to send"
    assert dump(remote) == before


def test_a_saved_view_finds_its_curves_in_the_other_store(
    tracker: Tracker, out: Path, remote: str, there: MlflowClient
) -> None:
    log_sweep(tracker, out / "sweep-1")
    sync(out, remote)
    experiment = there.get_experiment_by_name("digits")
    assert sum(key.startswith("mlflow.sharedViewState.") for key in experiment.tags) == 3
    curves = "params.sweep = 'sweep-1' and tags.`ssl_app.kind` = 'curve'"
    assert len(there.search_runs([experiment.experiment_id], curves)) == 2


def test_views_on_a_server_are_named_with_its_address_once(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient
) -> None:
    there.create_experiment("another")  # so that the numbers differ
    log_sweep(tracker, out / "sweep-1")
    store = remote_store(out, remote)
    assert store is not None
    here = client.get_experiment_by_name("digits").experiment_id
    sent, again = Sent(), Sent()
    server = Sync(out, local_store(out), replace(store, where="http://lab:5000/"), 5)
    server.send_views(here, {"sweep-1"}, sent)
    server.send_views(here, {"sweep-1"}, again)
    number = there.get_experiment_by_name("digits").experiment_id
    assert number != here
    pages = [line.partition("?")[0] for line in sorted(sent.pages)]
    address = f"http://lab:5000/#/experiments/{number}/runs"
    assert pages == [f"Label efficiency of sweep-1: {address}", f"Trials of sweep-1: {address}"]
    assert again.pages == []


class Fails:
    """An MLflow client whose connection breaks twice: before a call that writes is done, and after its next one."""

    def __init__(self, client: Any, before: int) -> None:
        self.client, self.before, self.calls, self.breaks = client, before, 0, 0
        self.points: list[tuple[str, str, int]] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        if name not in WRITES:
            return call

        def write(*args: Any, **more: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == self.before:
                self.cut()
            result = call(*args, **more)
            if name == "log_batch":
                self.points += [(args[0], metric.key, metric.step) for metric in args[1]]
            if number == self.before + 1:
                self.cut()
            return result

        return write

    def cut(self) -> None:
        self.breaks += 1
        raise OSError("the line is cut")


def test_a_break_at_any_call_loses_and_doubles_nothing(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read
) -> None:
    for number in range(9):
        log_run(tracker, out / f"run-{number}")
        run_id = run_ids(client)[-1]
        sender = both(out, remote)
        sender.remote.mlflow = fails = Fails(sender.remote.mlflow, number)
        for _ in range(2 if number < 8 else 0):
            with pytest.raises(Unreachable, match="the line is cut"):
                sender.send_run(run_id, Sent())
        sender.send_run(run_id, Sent())
        assert fails.breaks == (2 if number < 8 else 0)
        # the run, params, metrics, data, two files, tags, state; a file may be sent again, and then its digest
        assert fails.calls >= 8
        assert len(fails.points) == len(set(fails.points)) == 9
    assert sync(out, remote)[0].sent.changes == 0
    assert content(there) == content(client)


def test_a_resumed_run_goes_on_in_its_run(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read
) -> None:
    log_run(tracker, out / "first")
    sender = both(out, remote)
    (run_id,) = run_ids(client)
    sender.send_run(run_id, Sent())
    resumed = tracker.start("first", out / "first", {"lr": 0.2})
    resumed.metrics({"loss": 1 / 3}, 2, timestamp=3.0)
    resumed.metrics({"loss": 0.1}, 3)
    for each in (sender, both(out, remote)):  # one that knows what is there, and one that asks
        sent = Sent()
        each.send_run(run_id, sent)
        assert (sent.runs, sent.metrics, sent.files) == ((1, 1, 0) if each is sender else (0, 0, 0))
    assert content(there) == content(client)
    assert content(there)["first"]["state"][0] == "RUNNING"
    assert content(there)["first"]["tags"]["resumed.lr"] == "0.2"
    resumed.finish("KILLED")
    both(out, remote).send_run(run_id, Sent())
    assert content(there) == content(client)


def test_a_file_that_changed_is_sent_again_though_it_has_the_same_size(
    tracker: Tracker, out: Path, remote: str, there: MlflowClient, tmp_path: Path
) -> None:
    log_run(tracker, out / "first")
    sync(out, remote)
    (out / "first" / "weights.bin").write_bytes(b"9876543210")
    tracker.start("first", out / "first", {"lr": 0.1}).artifact(out / "first" / "weights.bin")
    (outcome,) = sync(out, remote)
    assert outcome.sent.files == 1
    kept = there.download_artifacts(run_ids(there)[0], "weights.bin", str(tmp_path))
    assert Path(kept).read_bytes() == b"9876543210"
    assert sync(out, remote)[0].sent.changes == 0


def test_a_run_deleted_on_either_side_is_left_alone(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read
) -> None:
    for name in ("first", "second"):
        log_run(tracker, out / name)
    client.delete_run(run_ids(client)[0])
    sync(out, remote)
    assert set(content(there)) == {"second"}
    there.delete_run(run_ids(there)[0])
    (outcome,) = sync(out, remote)
    assert outcome.sent.changes == 0
    assert content(there) == {}


def test_what_the_other_store_refuses_costs_a_line_and_no_more(
    tracker: Tracker, out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read
) -> None:
    log_run(tracker, out / "first")
    sender = both(out, remote)
    (run_id,) = run_ids(client)
    sender.send_run(run_id, Sent())
    there.set_terminated(run_ids(there)[0])
    there.log_param(run_ids(there)[0], "late", "theirs")
    client.log_param(run_id, "late", "ours")
    sent = Sent()
    sender.send_run(run_id, sent)
    (line,) = sent.refused
    assert line.startswith(f"{remote} refused params of first (")
    assert content(there)["first"]["metrics"] == content(client)["first"]["metrics"]


def test_two_senders_at_once_make_one_run(tracker: Tracker, out: Path, remote: str, there: MlflowClient) -> None:
    for number in range(4):
        log_run(tracker, out / f"run-{number}", epochs=1)
    failures = []

    def send() -> None:
        outcomes = sync(out, remote)
        failures.extend(outcome.failure for outcome in outcomes if outcome.failure)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert len(run_ids(there)) == 4


def test_each_run_goes_where_it_was_meant_to(
    tracker: Tracker, out: Path, remote: str, nobody: str, content: Read, there: MlflowClient
) -> None:
    log_run(tracker, out / "at-home")
    open_tracker(out, nobody, "digits").start("for-nobody", out / "for-nobody", {})
    open_tracker(out, remote, "digits").start("for-remote", out / "for-remote", {})
    outcomes = {outcome.where: outcome for outcome in sync(out, None)}
    assert set(outcomes) == {nobody, remote}
    assert outcomes[nobody].failure == "connection refused"
    assert outcomes[remote].failure is None
    assert set(content(there)) == {"for-remote"}
    sync(out, remote)  # all of them, since it was typed
    assert set(content(there)) == {"at-home", "for-nobody", "for-remote"}
    log_run(tracker, out / "at-home", epochs=4)
    assert {outcome.where: outcome.sent.metrics for outcome in sync(out, None)} == {nobody: 0, remote: 3}


def test_the_environments_store_gets_the_runs_that_were_meant_for_none(
    tracker: Tracker, out: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_run(tracker, out / "at-home")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    with pytest.raises(RunError, match=f"no run in {out} was meant for another MLflow store"):
        sync(out, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", remote)
    (outcome,) = sync(out, None)
    assert (outcome.where, outcome.sent.runs) == (remote, 1)


def test_a_password_is_kept_nowhere_and_taken_from_the_environment(
    out: Path, nobody: str, said: list[str], monkeypatch: pytest.MonkeyPatch, client: MlflowClient
) -> None:
    address = nobody.replace("http://", "http://me:geheim@")
    tracker = open_tracker(out, address, "digits")
    log_run(tracker, out / "first")
    (outcome,) = sync(out, address)
    assert outcome.where == nobody
    told = f"{tracker.where}{said}{outcome}"
    assert nobody in told
    assert "geheim" not in told
    assert "geheim" not in "".join(dump(f"sqlite:///{out / 'mlflow.db'}"))
    assert client.get_run(run_ids(client)[0]).data.tags["ssl_app.remote"] == nobody
    tried: list[str] = []
    monkeypatch.setattr(Sync, "send_run", lambda self, run_id, sent: tried.append(self.remote.store.uri))
    monkeypatch.setattr(Sync, "send_views", lambda *_: None)
    sync(out, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    sync(out, None)
    assert tried == [nobody, address]


def test_artifacts_are_found_where_the_folder_was_moved_to(
    tracker: Tracker, out: Path, remote: str, there: MlflowClient, content: Read
) -> None:
    log_run(tracker, out / "first")
    moved = out.with_name("moved")
    shutil.move(out, moved)
    (outcome,) = sync(moved, remote)
    assert outcome.sent.files == 2
    assert content(there)["first"]["files"] == [("draws/a.csv", 3), ("weights.bin", 10)]


def test_where_there_is_nothing_to_sync_one_line_says_why(tmp_path: Path, out: Path) -> None:
    with pytest.raises(RunError) as refusal:
        sync(tmp_path, None)
    assert str(refusal.value) == f"{tmp_path} holds no mlflow.db; type ssl-app pretrain, or another out"
    with pytest.raises(SettingsError) as wrong:
        sync(out, f"sqlite:///{out}/mlflow.db")
    assert str(wrong.value).startswith(f"the tracking URI is sqlite:///{out}/mlflow.db, where the runs are; ")
    with pytest.raises(SettingsError, match="the tracking URI is 'none', which is nowhere"):
        sync(out, "none")
    assert sync(out, None) == []
