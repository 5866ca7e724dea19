import base64
import json
import zlib
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ssl_app.tracking import Tracker, TrialRecord, background, open_tracker, views


def trials(sweep: Path, arms: tuple[str, ...] = ("two-stage", "scratch")) -> list[TrialRecord]:
    return [
        TrialRecord(
            name=f"{arm}-{per_class}-{draw}",
            folder=sweep / "trials" / f"{arm}-{per_class}-{draw}",
            params={"init": "none" if arm == "scratch" else "runs/pretrain-1", "strategy": arm, "draw": str(draw)},
            per_class=per_class,
            metrics={"accuracy": 0.5 + per_class / 100, "balanced_accuracy": 0.4 + per_class / 100, "n": 80.0},
        )
        for arm in arms
        for per_class in (1, 8)
        for draw in (0, 1)
    ]


def locked(*_: object, **__: object) -> None:
    raise MlflowException("database is locked")


def runs_of(client: MlflowClient, kind: str) -> dict[str, Run]:
    experiment = client.get_experiment_by_name("digits")
    found = client.search_runs([experiment.experiment_id], f"tags.`ssl_app.kind` = '{kind}'")
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_a_trial_is_a_flat_run_with_its_score_at_its_budget(
    tracker: Tracker, client: MlflowClient, out: Path
) -> None:
    tracker.log_trials(trials(out / "sweep-1"), out / "sweep-1")
    kept = runs_of(client, "trial")
    assert len(kept) == 8
    run = kept["two-stage-8-1"]
    assert run.data.metrics == pytest.approx(
        {"test_accuracy": 0.58, "test_balanced_accuracy": 0.48, "test_n": 80.0}
        | {"label_efficiency/accuracy": 0.58, "label_efficiency/balanced_accuracy": 0.48}
    )
    (point,) = client.get_metric_history(run.info.run_id, "label_efficiency/balanced_accuracy")
    assert point.step == 8
    assert run.data.params == {
        "init": "runs/pretrain-1",
        "strategy": "two-stage",
        "per_class": "8",
        "draw": "1",
        "sweep": "sweep-1",
        "arm": "two-stage from pretrain-1",
    }
    assert run.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags, "no run of its sweep was begun"


def test_an_arms_draw_is_one_curve_over_the_budgets(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    """MLflow's page reads 100 runs, and a sweep easily has more trials than that."""
    tracker.log_trials(trials(out / "sweep-1"), out / "sweep-1")
    kept = runs_of(client, "curve")
    assert sorted(kept) == [
        "scratch from scratch, draw 0",
        "scratch from scratch, draw 1",
        "two-stage from pretrain-1, draw 0",
        "two-stage from pretrain-1, draw 1",
    ]
    run = kept["two-stage from pretrain-1, draw 1"]
    history = client.get_metric_history(run.info.run_id, "label_efficiency/balanced_accuracy")
    assert [(point.step, point.value) for point in history] == [(1, pytest.approx(0.41)), (8, pytest.approx(0.48))]


def test_trials_and_curves_are_parts_of_their_sweeps_run(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    sweep = out / "sweep-1"
    run_id = tracker.start("sweep-1", sweep, {}).run_id
    tracker.log_trials(trials(sweep), sweep)
    parts = [*runs_of(client, "trial").values(), *runs_of(client, "curve").values()]
    assert {run.data.tags["mlflow.parentRunId"] for run in parts} == {run_id}


def test_trials_are_logged_once_however_often(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    sweep = out / "sweep-1"
    tracker.start("sweep-1", sweep, {})
    tracker.log_trials(trials(sweep)[:3], sweep)
    tracker.log_trials(trials(sweep), sweep)
    open_tracker(out, None, "digits").log_trials(trials(sweep), sweep)
    assert len(runs_of(client, "trial")) == 8
    assert len(runs_of(client, "curve")) == 4


def test_a_kill_amid_a_trial_leaves_no_second_run_and_no_second_point(
    tracker: Tracker, client: MlflowClient, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trials(out / "sweep-1")[0]
    for call in ("log_batch", "set_terminated"):  # killed before the scores were logged, and after
        opened = open_tracker(out, None, "digits")
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, locked)
            opened.log_trials([trial], out / "sweep-1")
    open_tracker(out, None, "digits").log_trials([trial], out / "sweep-1")
    (run,) = runs_of(client, "trial").values()
    (curve,) = runs_of(client, "curve").values()
    assert run.info.status == "FINISHED"
    for each in (run, curve):
        assert len(client.get_metric_history(each.info.run_id, "label_efficiency/accuracy")) == 1


def test_a_trial_deleted_in_mlflow_stays_deleted(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    tracker.log_trials(trials(out / "sweep-1"), out / "sweep-1")
    client.delete_run(runs_of(client, "trial")["two-stage-8-1"].info.run_id)
    open_tracker(out, None, "digits").log_trials(trials(out / "sweep-1"), out / "sweep-1")
    assert len(runs_of(client, "trial")) == 7


def test_two_sweeps_of_one_name_keep_their_curves_apart(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    for place in (out / "a" / "sweep", out / "b" / "sweep"):
        tracker.start("sweep", place, {})
        tracker.log_trials(trials(place)[:1], place)
    experiment = client.get_experiment_by_name("digits")
    curves = client.search_runs([experiment.experiment_id], "tags.`ssl_app.kind` = 'curve'")
    assert len(curves) == 2


def test_trials_that_the_store_did_not_take_are_logged_with_the_next_ones(
    tracker: Tracker, client: MlflowClient, out: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = out / "sweep-1"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", locked)
        tracker.log_trials(trials(sweep)[:7], sweep)
    assert said == [f"tracking: {out / 'mlflow.db'} did not take trial two-stage-1-0 (database is locked)"]
    tracker.log_trials(trials(sweep)[7:], sweep)
    assert len(runs_of(client, "trial")) == 8
    assert len(runs_of(client, "curve")) == 4


def test_a_sweep_that_goes_on_with_a_server_sends_its_earlier_trials_too(
    tracker: Tracker, out: Path, remote: str, there: MlflowClient
) -> None:
    sweep = out / "sweep-1"
    tracker.log_trials(trials(sweep)[:4], sweep)
    open_tracker(out, remote, "digits").log_trials(trials(sweep), sweep)
    background.close_all(30.0)
    assert len(runs_of(there, "trial")) == 8
    assert len(runs_of(there, "curve")) == 4


def test_the_saved_view_is_what_mlflows_page_reads(tracker: Tracker, client: MlflowClient, out: Path) -> None:
    sweep = out / "sweep-1"
    tracker.log_trials(trials(sweep), sweep)
    pages = tracker.save_views("sweep-1")
    assert list(pages) == ["label efficiency", "trials"]
    assert tracker.save_views("sweep-1") == pages
    experiment = client.get_experiment_by_name("digits")
    view, of_trials = views.view_id("sweep-1"), views.trials_id("sweep-1")
    for address, identity in zip(pages.values(), (view, of_trials), strict=True):
        place = f"#/experiments/{experiment.experiment_id}/runs"
        assert address == f"{place}?viewStateShareKey={identity}&compareRunsMode=CHART"

    tag = experiment.tags[f"mlflow.sharedViewState.{view}"]
    assert len(tag) < 20000
    outer = json.loads(tag)
    assert outer["name"] == "Label efficiency of sweep-1"
    assert outer["createdAt"] == outer["updatedAt"] > 1e12
    assert outer["state"].startswith("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(outer["state"].removeprefix("deflate;"))))
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "arm"}]
    assert state["runsHiddenMode"] == "SHOW_ALL"
    charts = state["compareRunCharts"]
    assert [chart["metricKey"] for chart in charts] == [
        "label_efficiency/balanced_accuracy",
        "label_efficiency/accuracy",
    ]
    (section,) = state["compareRunSections"]
    for chart in charts:
        assert chart["type"] == "LINE"
        assert chart["xAxisKey"] == "step"
        assert chart["xAxisScaleType"] == "log"
        assert chart["metricSectionId"] == section["uuid"]
    found = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert {run.info.run_name for run in found} == set(runs_of(client, "curve"))

    packed = json.loads(experiment.tags[f"mlflow.sharedViewState.{of_trials}"])["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert state["groupBy"] is None
    shown = [chart for chart in state["compareRunCharts"] if not chart["deleted"]]
    assert [chart["type"] for chart in shown] == ["SCATTER", "SCATTER", "PARALLEL"]
    hidden = {chart["metricKey"] for chart in state["compareRunCharts"] if chart["deleted"]}
    assert hidden == set(runs_of(client, "trial")["two-stage-8-1"].data.metrics), "else the page draws them too"
    found = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert {run.info.run_name for run in found} == set(runs_of(client, "trial"))


def test_a_quote_in_a_sweeps_name_breaks_no_filter(tracker: Tracker, out: Path, said: list[str]) -> None:
    sweep = out / "anna's"
    tracker.log_trials(trials(sweep), sweep)
    assert tracker.save_views("anna's")
    assert said == []
