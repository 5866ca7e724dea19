import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ssl_app.tracking import TrialRecord, open_tracker, outbox
from ssl_app.tracking.journal import Journal
from ssl_app.tracking.tracker import PATIENCE

Server = Any  # of conftest.py

JOURNAL = "mlflow-journal.jsonl"


def points(server: Server, metric: str) -> list[tuple[int, float]]:
    experiment = server.client.get_experiment_by_name("digits")
    (run,) = server.client.search_runs([experiment.experiment_id])
    return [(point.step, point.value) for point in server.client.get_metric_history(run.info.run_id, metric)]


def test_a_server_by_its_address(server: Server, tmp_path: Path, said: list[str]) -> None:
    tracker = open_tracker(tmp_path, server.uri, "digits", said.append)
    run = tracker.start("first", tmp_path / "first", {"lr": 1})
    run.metrics({"loss": 2.0, "lost": float("nan")}, 0)
    (tmp_path / "note.txt").write_text("kept")
    run.artifact(tmp_path / "note.txt")
    run.data("scans/", "abc", "training")
    run.finish()
    assert points(server, "loss") == [(0, 2.0)]
    assert said == []
    assert tracker.where == server.uri
    assert not (tmp_path / "first" / JOURNAL).exists()


def test_a_server_that_dies_costs_one_line_and_no_number(server: Server, tmp_path: Path, said: list[str]) -> None:
    run = open_tracker(tmp_path, server.uri, "digits", said.append).start("first", tmp_path / "first", {})
    run.metrics({"loss": 3.0}, 0)
    server.open = False
    before = server.requests
    for epoch in (1, 2, 3):
        run.metrics({"loss": 3.0 - epoch}, epoch)
    run.finish()
    assert server.requests == before + 1  # a silent server is not asked at every epoch
    (line,) = said
    assert line.startswith(f"tracking: {server.uri} does not take what is sent (it answers 503); ")
    assert line.endswith(f" the run goes on, and {tmp_path / 'first' / JOURNAL} keeps it until it does")
    assert "\n" not in line

    server.open = True
    open_tracker(tmp_path, server.uri, "digits", said.append)
    assert points(server, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.0)]
    assert said[1:] == ["tracking: sent what 1 earlier run could not"]
    open_tracker(tmp_path, server.uri, "digits", said.append)
    assert len(said) == 2


def test_a_replay_that_is_repeated_leaves_one_point(server: Server, tmp_path: Path, said: list[str]) -> None:
    run = open_tracker(tmp_path, server.uri, "digits", said.append).start("first", tmp_path / "first", {})
    server.open = False
    run.metrics({"loss": 3.0}, 0)
    server.open = True
    for _ in range(2):
        (tmp_path / "first" / "mlflow-journal.sent.json").unlink(missing_ok=True)  # a kill before it was written
        open_tracker(tmp_path, server.uri, "digits", said.append)
    assert points(server, "loss") == [(0, 3.0)]


def test_a_run_that_starts_in_silence_is_sent_whole_later(server: Server, tmp_path: Path, said: list[str]) -> None:
    server.open = False
    tracker = open_tracker(tmp_path, server.uri, "digits", said.append)
    run = tracker.start("first", tmp_path / "first", {"lr": 1}, {"verb": "pretrain"})
    started = int(time.time() * 1000)
    run.metrics({"loss": 3.0}, 0)
    run.finish()
    assert tracker.save_views("sweep") is None
    assert tracker.view_path("any") == "#/experiments"
    server.open = True
    for _ in range(2):
        open_tracker(tmp_path, server.uri, "digits", said.append)
    experiment = server.client.get_experiment_by_name("digits")
    (kept,) = server.client.search_runs([experiment.experiment_id])
    assert kept.info.run_name == "first"
    assert kept.info.status == "FINISHED"
    assert abs(kept.info.start_time - started) < 60_000
    assert kept.data.params == {"lr": "1"}
    assert points(server, "loss") == [(0, 3.0)]


def test_a_server_that_comes_back_gets_all_in_order_while_the_run_goes_on(
    server: Server, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(outbox, "SHARE", 0)
    run = open_tracker(tmp_path, server.uri, "digits", said.append).start("first", tmp_path / "first", {})
    server.open = False
    run.metrics({"loss": 3.0}, 0)
    run.metrics({"loss": 2.0}, 1)
    server.open = True
    run.metrics({"loss": 1.0}, 2)
    assert points(server, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert said[-1] == f"tracking: {server.uri} answers again, and has all that waited"
    assert len(said) == 2


def test_a_port_where_nobody_listens_stops_no_run(nobody: str, tmp_path: Path, said: list[str]) -> None:
    started = time.monotonic()
    tracker = open_tracker(tmp_path, nobody, "digits", said.append)
    run = tracker.start("first", tmp_path / "first", {})
    run.metrics({"loss": 3.0}, 0)
    run.artifact(tmp_path)
    run.data("a", "b", "training")
    tracker.log_trials([TrialRecord("t", tmp_path / "s" / "t", {}, 1, {"accuracy": 1.0})], tmp_path / "s")
    run.finish("FAILED")
    assert time.monotonic() - started < 5
    assert len(said) == 1
    assert f"{nobody} does not take what is sent (connection refused);" in said[0]
    lines = (tmp_path / "first" / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["do"] for line in lines] == ["start", "metrics", "artifact", "data", "finish"]


def test_patience_is_two_retries_of_five_seconds(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PATIENCE:
        monkeypatch.delenv(name, raising=False)
    open_tracker(tmp_path, nobody, "digits", lambda line: None)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"


def test_one_stores_journal_is_not_told_to_another(
    nobody: str, server: Server, tmp_path: Path, said: list[str]
) -> None:
    open_tracker(tmp_path, nobody, "digits", said.append).start("first", tmp_path / "first", {})
    open_tracker(tmp_path, server.uri, "digits", said.append)
    assert server.client.get_experiment_by_name("digits") is None


def test_a_password_is_in_no_line_and_no_file(server: Server, tmp_path: Path, said: list[str]) -> None:
    server.open = False
    address = server.uri.replace("http://", "http://me:secret@")
    tracker = open_tracker(tmp_path, address, "digits", said.append)
    tracker.start("first", tmp_path / "first", {})
    server.open = True
    open_tracker(tmp_path, address, "digits", said.append)
    files = "".join(path.read_text() for path in tmp_path.glob("first/*"))
    assert "first" in files
    assert "secret" not in files + tracker.where + "".join(said)


def test_a_journal_survives_a_kill_amid_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "here")
    journal.append({"do": "metrics", "step": 0})
    with journal.path.open("a") as file:
        file.write('{"do": "metr')
    assert [record["step"] for record, _ in journal.unsent()] == [0]
    journal.append({"do": "metrics", "step": 2})
    assert [record["step"] for record, _ in journal.unsent()] == [0, 2]
    *_, (_, end) = journal.unsent()
    journal.mark(end)
    assert not journal.waiting()
