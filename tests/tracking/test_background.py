"""A remote store is served while a run works, and can hold up neither the run nor its end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ssl_app.tracking import TrialRecord, background, open_tracker
from ssl_app.tracking.sync import Sync, Unreachable, sync

Read = Callable[..., dict[str, dict[str, Any]]]
SILENCE = "takes nothing now"
STUCK = 20  # seconds: a slow machine takes a few, a dozen calls that wait 36


def log_all(out: Path, uri: str) -> float:
    """A small run and a trial; the seconds that they took."""
    tracker = open_tracker(out, uri, "digits")
    began = time.monotonic()
    run = tracker.start("first", out / "first", {"lr": 1})
    for epoch in range(5):
        run.metrics({"loss": 3.0 - epoch}, epoch)
    run.data("a", "b", "training")
    tracker.log_trials([TrialRecord("t", out / "s" / "t", {}, 1, {"accuracy": 1.0})], out / "s")
    tracker.save_views("s")
    run.finish()
    return time.monotonic() - began


def test_epochs_and_trials_arrive_while_the_run_works(
    out: Path, remote: str, there: MlflowClient, content: Read, said: list[str]
) -> None:
    tracker = open_tracker(out, remote, "digits")
    run = tracker.start("first", out / "first", {"lr": 1})

    def until(enough: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        end = time.monotonic() + 30
        while not enough(content(there)):
            assert time.monotonic() < end
            time.sleep(0.05)

    for epoch in range(2):
        run.metrics({"loss": 3.0 - epoch}, epoch)
        until(lambda found, n=epoch + 1: "first" in found and len(found["first"]["metrics"].get("loss", ())) == n)
    tracker.log_trials([TrialRecord("t", out / "s" / "t", {}, 1, {"accuracy": 1.0})], out / "s")
    until(lambda found: "t" in found and found["t"]["state"][0] == "FINISHED")
    assert content(there)["first"]["state"][0] == "RUNNING"
    assert said == []
    assert tracker.where == f"{out / 'mlflow.db'} (ssl-app ui shows it), sent on to {remote}"


def test_the_end_of_the_process_sends_the_rest(
    out: Path, remote: str, client: MlflowClient, there: MlflowClient, content: Read, said: list[str]
) -> None:
    log_all(out, remote)
    background.close_all(30.0)
    assert content(there) == content(client)
    assert set(content(there)) == {"first", "t", "trained from scratch, draw "}
    assert sync(out, None)[0].sent.changes == 0
    assert said == []


def test_a_port_where_nobody_listens_costs_one_line(
    out: Path, nobody: str, client: MlflowClient, content: Read, said: list[str]
) -> None:
    assert log_all(out, nobody) < STUCK
    began = time.monotonic()
    background.close_all()
    assert time.monotonic() - began < STUCK
    assert said == [
        f"tracking: {nobody} {SILENCE} (connection refused); the run goes on, and "
        f"ssl-app sync sends what is missing of {out}"
    ]
    assert content(client)["first"]["state"][0] == "FINISHED"


def test_a_server_that_answers_too_late_holds_up_nothing(
    out: Path,
    too_late: str,
    remote: str,
    client: MlflowClient,
    there: MlflowClient,
    content: Read,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    assert background.AT_EXIT == 5.0
    assert log_all(out, too_late) < STUCK  # a dozen calls, none of which waits for an answer
    began = time.monotonic()
    background.close_all(0.5)
    assert time.monotonic() - began < STUCK
    assert said == [f"tracking: {too_late} has not taken all yet; ssl-app sync sends what is missing of {out}"]
    (outcome,) = sync(out, remote)
    assert outcome.failure is None
    assert content(there) == content(client)


def test_a_store_that_answers_again_gets_what_waited(
    out: Path, remote: str, there: MlflowClient, content: Read, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PAUSE", 0.05)
    tries = []

    def silent(self: Sync, run_id: str, sent: object) -> None:
        tries.append(run_id)
        raise Unreachable("it answers 503")

    with monkeypatch.context() as patch:
        patch.setattr(Sync, "send_run", silent)
        run = open_tracker(out, remote, "digits").start("first", out / "first", {})
        run.metrics({"loss": 1.0}, 0)
        end = time.monotonic() + 30
        while len(tries) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
    run.metrics({"loss": 0.5}, 1)
    background.close_all(30.0)
    assert [step for step, *_ in content(there)["first"]["metrics"]["loss"]] == [0, 1]
    assert said == [
        f"tracking: {remote} {SILENCE} (it answers 503); the run goes on, and "
        f"ssl-app sync sends what is missing of {out}",
        f"tracking: {remote} answers again",
    ]


def test_a_silent_store_is_not_asked_at_every_epoch(
    out: Path, remote: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def silent(self: Sync, run_id: str, sent: object) -> None:
        tries.append(run_id)
        raise Unreachable("it answers 503")

    monkeypatch.setattr(Sync, "send_run", silent)
    log_all(out, remote)
    assert len(tries) == 1
    background.close_all(5.0)
    assert len(tries) == 2  # once more at the end
    assert len(said) == 1


def test_a_failure_of_our_own_is_said_and_ends_no_thread(
    out: Path, remote: str, there: MlflowClient, content: Read, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sync, "send_run", lambda *_: 1 / 0)
        run = open_tracker(out, remote, "digits").start("first", out / "first", {})
        end = time.monotonic() + 30
        while not said:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert "was not sent" in said[0]
    assert "division by zero" in said[0]
    run.metrics({"loss": 1.0}, 0)
    background.close_all(30.0)
    assert len(content(there)["first"]["metrics"]["loss"]) == 1
