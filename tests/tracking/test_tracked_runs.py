from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ssl_app.tracking import Nowhere, Tracker, open_tracker
from ssl_app.tracking.identity import folder_key
from ssl_app.tracking.tracker import flatten


def the_run(client: MlflowClient) -> Run:
    (experiment,) = [each for each in client.search_experiments() if each.name == "digits"]
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_metrics_params_tags_arrive(tracker: Tracker, client: MlflowClient, out: Path, said: list[str]) -> None:
    run = tracker.start(
        "first", out / "first", {"lr": 1e-3, "data": {"group": None, "sizes": (1, 2)}}, {"verb": "pretrain"}
    )
    run.metrics({"loss": 2.0, "val/accuracy": 0.25}, 0)
    run.metrics({"loss": 1.0}, 1)
    run.finish()
    kept = the_run(client)
    assert kept.data.params == {"lr": "0.001", "data.group": "none", "data.sizes": "1,2"}
    assert kept.data.metrics == {"loss": 1.0, "val/accuracy": 0.25}
    assert kept.data.tags["verb"] == "pretrain"
    assert (kept.info.run_name, kept.info.status) == ("first", "FINISHED")
    assert [point.step for point in client.get_metric_history(kept.info.run_id, "loss")] == [0, 1]
    assert said == []


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    tracker.start("first", out / "first", {"epochs": 5, "lr": 0.1}).metrics({"loss": 2.0}, 0, timestamp=100.0)
    again = open_tracker(out, None, "digits").start("first", out / "first", {"epochs": 9, "lr": 0.1, "new": 1})
    assert the_run(client).info.status == "RUNNING"
    again.metrics({"loss": 2.0}, 0, timestamp=100.0)
    again.metrics({"loss": 1.0}, 1)
    again.finish("KILLED")
    kept = the_run(client)
    assert [point.step for point in client.get_metric_history(kept.info.run_id, "loss")] == [0, 1]
    assert kept.data.params == {"epochs": "5", "lr": "0.1", "new": "1"}
    assert kept.data.tags["resumed.epochs"] == "9"
    assert kept.info.status == "KILLED"


def test_a_finished_run_that_is_resumed_runs_again(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    tracker.start("first", out / "first", {}).finish("FAILED")
    tracker.start("first", out / "first", {})
    assert the_run(client).info.status == "RUNNING"


def test_a_run_deleted_in_mlflow_is_begun_anew(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    tracker.start("first", out / "first", {})
    gone = the_run(client).info.run_id
    client.delete_run(gone)
    tracker.start("first", out / "first", {}).metrics({"loss": 1.0}, 0)
    kept = the_run(client)
    assert kept.info.run_id != gone
    assert kept.data.metrics == {"loss": 1.0}


def test_a_deleted_experiment_is_taken_out_of_the_bin(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    tracker.start("first", out / "first", {})
    client.delete_experiment(the_run(client).info.experiment_id)
    open_tracker(out, None, "digits").start("second", out / "second", {}).metrics({"loss": 1.0}, 0)
    names = {run.info.run_name for run in client.search_runs([client.get_experiment_by_name("digits").experiment_id])}
    assert names >= {"second"}


def test_a_kill_between_the_folders_key_and_the_run_makes_no_second_run(
    tracker: Tracker, client: MlflowClient, out: Path
) -> None:
    key = folder_key(out / "first")  # killed here, before MLflow is asked
    for _ in range(2):
        tracker.start("first", out / "first", {})
    assert the_run(client).data.tags["ssl_app.key"] == key


def test_a_local_store_that_is_busy_gets_the_metrics_with_the_next_ones(
    tracker: Tracker, client: MlflowClient, out: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracker.start("first", out / "first", {})
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", locked)
        run.metrics({"loss": 2.0}, 0)
    run.metrics({"loss": 1.0}, 1)
    assert [point.step for point in client.get_metric_history(the_run(client).info.run_id, "loss")] == [0, 1]
    assert said == [f"tracking: {out / 'mlflow.db'} did not take metrics of first (database is locked)"]


def locked(*_: object, **__: object) -> None:
    raise MlflowException("database is locked")


def test_artifacts_lie_under_out(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    run = tracker.start("first", out / "first", {})
    (out / "first" / "plots").mkdir()
    (out / "first" / "plots" / "curve.png").write_bytes(b"png")
    run.artifact(out / "first" / "plots" / "curve.png", "plots")
    run.artifact(out / "first" / "plots")
    run_id = the_run(client).info.run_id
    assert [each.path for each in client.list_artifacts(run_id, "plots")] == ["plots/curve.png"]
    assert len(list((out / "artifacts" / "digits").rglob("curve.png"))) == 1


def test_a_missing_artifact_costs_a_line(tracker: Tracker, out: Path, said: list[str]) -> None:
    tracker.start("first", out / "first", {}).artifact(out / "first" / "none.png")
    assert said == [f"tracking: {out / 'first' / 'none.png'} is gone, and not kept with first"]


def test_data_is_an_input_of_the_run(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    run = tracker.start("first", out / "first", {})
    for _ in range(2):
        run.data("scans/", "0123456789abcdef" * 4, "training")
    (given,) = the_run(client).inputs.dataset_inputs
    assert given.dataset.name == "scans/"
    assert given.dataset.digest == ("0123456789abcdef" * 4)[:36]
    assert given.tags[0].value == "training"


def test_what_mlflow_would_refuse_is_made_to_fit(
    tracker: Tracker, client: MlflowClient, out: Path, said: list[str]
) -> None:
    params: dict[str, object] = {f"p{number}": number for number in range(250)} | {"a (b)": "x" * 9000, "empty": ""}
    run = tracker.start("first", out / "first", params, {"note": "y" * 9000})
    run.metrics(
        {f"m{number}": number for number in range(2100)} | {"50% {best}": float("nan"), "up": float("inf")}, 3
    )
    kept = the_run(client)
    assert said == []
    assert len(kept.data.params) == 252
    assert len(kept.data.params["a _b_"]) == 6000
    assert len(kept.data.metrics) == 2102


def test_values_are_logged_as_one_types_them() -> None:
    assert flatten({"a": True, "b": {"c": [1, 2], "d": Path("x/y")}, "e": None}) == {
        "a": "true",
        "b.c": "1,2",
        "b.d": "x/y",
        "e": "none",
    }


def test_nowhere_does_everything_and_nothing(tmp_path: Path) -> None:
    tracker = open_tracker(tmp_path / "runs", "none", "digits")
    assert isinstance(tracker, Nowhere)
    run = tracker.start("first", tmp_path, {"a": 1})
    run.metrics({"loss": 1.0}, 0)
    run.artifact(tmp_path)
    run.data("a", "b", "c")
    run.finish()
    tracker.log_trials([], tmp_path)
    run.note("a")
    assert tracker.save_views("sweep") == {}
    assert list(tmp_path.iterdir()) == []
