"""A network that a run keeps as MLflow's model: there once, whole, with its metrics, in every store."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from ssl_app.errors import RunError
from ssl_app.tracking import Network, Tracker, open_tracker
from ssl_app.tracking.registry import register
from ssl_app.tracking.sync import sync

Read = Callable[..., dict[str, dict[str, Any]]]
NAMED = ("scans", "champion")


@pytest.fixture
def network(out: Path) -> Network:
    """A file that stands for weights."""
    (out / "first").mkdir()
    (out / "first" / "weights.bin").write_bytes(b"0123456789")
    return Network(out / "first" / "weights.bin", "json", 1, "uint8", ("cat", "dog"))


@pytest.fixture
def kept(tracker: Tracker, out: Path, network: Network) -> Path:
    """The folder of a run with its model."""
    run = tracker.start("first", out / "first", {"lr": 1})
    run.data("scans/", "abc", "test", {"images": 3})
    run.metrics({"test_accuracy": 0.25}, 8)
    run.metrics({"test_accuracy": 0.5, "test_n": 3}, 9)
    run.model(network, "test")
    run.note("**good**")
    run.finish()
    return out / "first"


def models(client: MlflowClient) -> list[LoggedModel]:
    return list(client.search_logged_models([client.get_experiment_by_name("digits").experiment_id]))


def measured(model: LoggedModel) -> set[tuple[str, float, int, str, str]]:
    return {(one.key, one.value, one.step, one.dataset_name, one.dataset_digest) for one in model.metrics}


def test_a_model_has_its_metrics_data_and_run(kept: Path, client: MlflowClient, said: list[str]) -> None:
    (model,) = models(client)
    assert (model.name, model.model_type, str(model.status.value)) == ("classifier", "classifier", "READY")
    assert model.params == {"lr": "1"}
    assert measured(model) == {("test_accuracy", 0.5, 9, "scans/", "abc"), ("test_n", 3.0, 9, "scans/", "abc")}
    run = client.get_run(model.source_run_id)
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    assert run.data.tags["mlflow.note.content"] == "**good**"
    (given,) = run.inputs.dataset_inputs
    assert json.loads(given.dataset.profile) == {"images": 3}
    assert said == []


def test_nothing_of_a_model_is_pickled_and_its_files_are_few(kept: Path, out: Path) -> None:
    (folder,) = out.glob("artifacts/digits/models/*/artifacts")
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    weights = sizes.pop("data/weights.bin")
    assert set(sizes) == {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    assert weights == 10
    assert sum(sizes.values()) < 4000
    assert "torch" in (folder / "requirements.txt").read_text()


def test_a_model_that_is_kept_again_is_the_same_one(
    kept: Path, tracker: Tracker, network: Network, client: MlflowClient, said: list[str]
) -> None:
    run = tracker.start("first", kept, {"lr": 1})
    run.data("scans/", "abc", "test")
    run.model(network, "test")
    assert len(models(client)) == 1
    assert said == []


def test_a_note_that_people_wrote_stays(kept: Path, tracker: Tracker, client: MlflowClient) -> None:
    run_id = models(client)[0].source_run_id
    tracker.start("first", kept, {}).note("better")
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "better"
    client.set_tag(run_id, "mlflow.note.content", "by Anna")
    tracker.start("first", kept, {}).note("best")
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "by Anna"
    experiment = client.get_experiment_by_name("digits").experiment_id
    tracker.note("helped")
    tracker.note("hurt")
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "hurt"
    client.set_experiment_tag(experiment, "mlflow.note.content", "by Anna")
    tracker.note("helped")
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "by Anna"


def test_another_store_gets_the_model_once_under_its_own_ids(
    kept: Path, out: Path, remote: str, client: MlflowClient, there: MlflowClient, tracker: Tracker
) -> None:
    tracker.note("helped: [curves](#/experiments/1/runs)")
    there.create_experiment("another")  # so that ours has another id there
    (outcome,) = sync(out, remote)
    assert (str(outcome.sent), outcome.failure) == ("sent 1 run, 3 metrics, 1 model", None)
    (here,), (model,) = models(client), models(there)
    assert measured(model) == measured(here)
    assert model.source_run_id != here.source_run_id
    about = next(Path(remote.removeprefix("sqlite:///")).parent.rglob("MLmodel")).read_text()
    assert model.model_id in about
    assert model.source_run_id in about
    assert here.model_id not in about
    assert model.experiment_id == "2"
    note = there.get_experiment_by_name("digits").tags["mlflow.note.content"]
    assert note == "helped: [curves](#/experiments/2/runs)"
    assert sync(out, remote)[0].sent.changes == 0


def test_a_model_cut_off_on_its_way_is_made_whole(
    kept: Path, out: Path, remote: str, there: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise OSError("the line is cut")

    for call in ("log_model_artifacts", "log_batch", "finalize_logged_model"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, cut)
            assert sync(out, remote)[0].failure == "the line is cut"
    assert sync(out, remote)[0].sent.models == 1
    (model,) = models(there)
    assert len(measured(model)) == 2
    assert len(there.get_run(model.source_run_id).outputs.model_outputs) == 1


def test_a_server_without_models_costs_a_line_and_gets_the_rest(
    kept: Path, out: Path, remote: str, there: MlflowClient, content: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise MlflowException("API request failed with error code 404 != 200", RESOURCE_DOES_NOT_EXIST)

    monkeypatch.setattr("ssl_app.tracking.models.copy_model", unknown)
    (outcome,) = sync(out, remote)
    assert outcome.sent.refused == [f"{remote} refused the classifier of first (it answers 404)"]
    assert content(there)["first"]["state"][0] == "FINISHED"


def test_a_model_is_registered_as_one_version_and_the_alias_moves(
    kept: Path, out: Path, network: Network, client: MlflowClient, tracker: Tracker
) -> None:
    for _ in range(2):
        found = register(out, None, "digits", kept, network, NAMED)
        assert (found.version, found.uri) == (1, f"sqlite:///{out / 'mlflow.db'}")
    shutil.copytree(kept, out / "second", ignore=shutil.ignore_patterns("mlflow.json"))
    assert register(out, None, "digits", out / "second", network, NAMED).version == 2, "its run was not tracked"
    version = client.get_model_version_by_alias("scans", "champion")
    assert int(version.version) == 2
    assert version.source == client.get_logged_model(version.tags["ssl_app.model"]).artifact_location
    assert client.get_run(version.run_id).info.status == "FINISHED"


def test_a_model_is_registered_at_a_server_after_its_run_was_sent(
    kept: Path, out: Path, network: Network, remote: str, there: MlflowClient, client: MlflowClient, nobody: str
) -> None:
    assert register(out, remote, "digits", kept, network, NAMED).where == remote
    version = there.get_model_version_by_alias("scans", "champion")
    (model,) = models(there)
    assert (version.tags["ssl_app.model"], version.run_id) == (model.model_id, model.source_run_id)
    assert client.search_registered_models() == []
    with pytest.raises(RunError, match="takes nothing now"):
        register(out, nobody, "digits", kept, network, NAMED)


def addresses(database: Path) -> set[str]:
    """Everything in the store that looks like a place."""
    connection = sqlite3.connect(database)
    lines = "\n".join(connection.iterdump())
    connection.close()
    return {part for part in lines.split("'") if part.startswith(("/", "file:", "sqlite:"))}


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_nothing_in_the_store_points_outside_its_folder_even_where_that_was_moved(
    how: Callable[..., object], kept: Path, out: Path, network: Network, tmp_path: Path, client: MlflowClient
) -> None:
    # a database of our own: the tests' template lies elsewhere
    register(out, None, "digits", kept, network, NAMED)
    moved = tmp_path / "elsewhere" / "runs"
    moved.parent.mkdir()
    how(out, moved)
    open_tracker(moved, None, "digits")
    places = addresses(moved / "mlflow.db")
    assert len(places) >= 4  # of the experiment, the run, the model, its version
    assert all(place.startswith((moved / "artifacts").as_uri()) for place in places)
    inside = MlflowClient(tracking_uri=f"sqlite:///{moved / 'mlflow.db'}")
    (model,) = models(inside)
    assert Path(model.artifact_location.removeprefix("file://"), "data", "weights.bin").is_file()


def test_a_folder_reached_by_a_link_keeps_its_addresses(kept: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    open_tracker(tmp_path / "link", None, "digits")
    assert all(place.startswith(f"file://{out}/") for place in addresses(out / "mlflow.db"))
