"""What a kill left as RUNNING is ended by the next verb, and what somebody works on is not."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ssl_app import runs
from ssl_app.locks import locked
from ssl_app.tracking import open_tracker


@pytest.fixture
def killed(out: Path) -> Path:
    """The folder of a run that was killed."""
    folder = runs.new_run(out, "k", "pretrain", {})
    open_tracker(out, None, "e").start("k", folder, {})
    return folder


def status(out: Path) -> str:
    """Of the one run, after another verb has begun."""
    open_tracker(out, None, "e")
    client = MlflowClient(f"sqlite:///{out.absolute() / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    return str(run.info.status)


def test_a_killed_run_stands_as_killed(killed: Path) -> None:
    assert status(killed.parent) == "KILLED"


def test_a_run_that_had_ended_stands_as_it_ended(killed: Path) -> None:
    runs.write_json(killed / runs.ENDED, {"status": "FAILED", "why": "no", "at": 0.0})
    assert status(killed.parent) == "FAILED"


def test_a_run_that_was_killed_after_its_result_has_finished(killed: Path) -> None:
    runs.write_json(killed / runs.RESULT, {})
    assert status(killed.parent) == "FINISHED"


def test_a_run_whose_folder_is_gone_stands_as_killed(killed: Path) -> None:
    shutil.rmtree(killed)
    assert status(killed.parent) == "KILLED"


def test_what_is_under_way_stays(killed: Path) -> None:
    with locked(killed):
        assert status(killed.parent) == "RUNNING"
    other = runs.new_run(killed.parent, "other", "pretrain", {})
    with locked(other):
        assert status(killed.parent) == "KILLED"


@pytest.mark.parametrize("content", ["[]", "{", "null", "3"])
def test_a_damaged_note_of_its_end_says_nothing(content: str, killed: Path) -> None:
    (killed / runs.ENDED).write_text(content)
    assert status(killed.parent) == "KILLED"
