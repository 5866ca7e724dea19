"""A folder of runs that was moved, copied or linked keeps its artifacts, at its place."""

import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ssl_app.tracking import open_tracker


def log(out: Path, name: str) -> None:
    """A run with one artifact."""
    tracker = open_tracker(out, None, "e")
    folder = out / name
    folder.mkdir(parents=True)
    run = tracker.start(name, folder, {})
    (folder / "a.txt").write_text(name)
    run.artifact(folder / "a.txt")
    run.finish()


def artifacts(out: Path) -> dict[str, str]:
    """The text of each run's artifact, as MLflow finds it."""
    client = MlflowClient(f"sqlite:///{out.absolute() / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    return {run.info.run_name: Path(client.download_artifacts(run.info.run_id, "a.txt")).read_text() for run in runs}


@pytest.mark.parametrize("name", ["a b", "a#'b", "äö/100%"])
def test_a_moved_folder_keeps_its_artifacts_and_takes_more(name: str, out: Path, tmp_path: Path) -> None:
    log(out, "one")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.rename(out, tmp_path / name)
    log(tmp_path / name, "two")
    assert artifacts(tmp_path / name) == {"one": "one", "two": "two"}
    assert not out.exists()


def test_a_copy_leaves_the_first_one_alone(out: Path, tmp_path: Path) -> None:
    log(out, "one")
    shutil.copytree(out, tmp_path / "copy")
    log(tmp_path / "copy", "two")
    shutil.rmtree(out / "artifacts")
    assert artifacts(tmp_path / "copy") == {"one": "one", "two": "two"}
    assert not (out / "artifacts").exists()


def test_a_link_is_no_other_place(out: Path, tmp_path: Path) -> None:
    log(out, "one")
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    before = client.get_experiment_by_name("e").artifact_location
    (tmp_path / "link").symlink_to(out)
    log(tmp_path / "link", "two")
    assert client.get_experiment_by_name("e").artifact_location == before
    assert artifacts(out) == {"one": "one", "two": "two"}
