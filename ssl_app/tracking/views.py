"""Views of MLflow's own pages, set beforehand: labels against score, one curve an arm; and every trial by itself.

A saved view is a tag of the experiment in a format of MLflow's pages, which is documented nowhere (read from
MLflow 3.17.2); tests/browser/test_views.py opens one and looks.
"""

import base64
import hashlib
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECTION = "label_efficiency"  # metrics with step = labels per class; the pages make one section of a prefix
SCORES = ("balanced_accuracy", "accuracy", "macro_f1")  # these get a chart each, in this order
TAG = "mlflow.sharedViewState."
LIMIT = 20000  # characters of an experiment's tag
EFFICIENCY, TRIALS = "Label efficiency of", "Trials of"  # a sweep
TRAINING = "ssl-app training runs"


@dataclass(frozen=True)
class View:
    """A saved view, as the tag that makes MLflow offer it."""

    tag: str
    value: str


def label_efficiency(sweep: str, chosen: str, scores: Sequence[str], at: int) -> View:
    """Score over labels per class (log), one line an arm: the mean of its draws, in a band.

    `chosen` is the filter of runs, `scores` what those have, `at` the time in milliseconds. With a log axis MLflow's
    pages drop the band's lower edge at the smallest budget.
    """
    shown = [name for name in SCORES if name in scores] or SCORES[:1]
    section = _uuid(sweep, SECTION)
    state = _state(chosen) | {
        "orderByKey": "params.`arm`",
        "orderByAsc": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]},
        "useGroupedValuesInCharts": True,
        "compareRunCharts": [_line(f"{SECTION}/{name}", section, _uuid(sweep, name)) for name in shown],
        "compareRunSections": [_section(section, SECTION)],
    }
    return _view(view_id(sweep), f"{EFFICIENCY} {sweep}", state, at)


def trials(sweep: str, chosen: str, metrics: Sequence[str], at: int) -> View:
    """Every trial by itself: score over labels and over arms, one dot a trial, and parallel coordinates.

    `metrics` are all that the trials have. The page reads 100 runs at first: whole draws, since it sorts by draw.
    """
    shown = [name for name in SCORES if f"test_{name}" in metrics] or SCORES[:1]
    score = f"test_{shown[0]}"
    section = _uuid(sweep, TRIALS)
    axes = [{"key": score, "type": "METRIC"}, {"key": "arm", "type": "PARAM"}, {"key": "per_class", "type": "PARAM"}]
    parallel = {
        "selectedParams": ["arm", "per_class", "draw"],
        "selectedMetrics": [f"test_{name}" for name in shown],
        "showAllRuns": True,
    }
    charts = [
        _chart("SCATTER", section, _uuid(sweep, "labels"), {"xaxis": axes[2], "yaxis": axes[0]}),
        _chart("SCATTER", section, _uuid(sweep, "arms"), {"xaxis": axes[1], "yaxis": axes[0]}),
        _chart("PARALLEL", section, _uuid(sweep, "parallel"), parallel),
        # else the page adds a bar chart of each
        *(_chart("BAR", section, _uuid(sweep, name), {"metricKey": name, "deleted": True}) for name in metrics),
    ]
    state = _state(chosen) | {
        "orderByKey": "params.`draw`",  # and by a param: else trials are folded into their sweep, and not drawn
        "orderByAsc": True,
        "selectedColumns": [*(f"params.`{name}`" for name in ("arm", "per_class", "draw")), f"metrics.`{score}`"],
        "compareRunCharts": charts,
        "compareRunSections": [_section(section, "trials", columns=2)],
    }
    return _view(trials_id(sweep), f"{TRIALS} {sweep}", state, at)


def training_runs(chosen: str, at: int) -> View:
    """Every metric of the trainings by epoch, one line a run; the page makes the charts."""
    state = _state(chosen) | {"orderByKey": "attributes.start_time", "orderByAsc": False}
    return _view(view_id(TRAINING), "Training runs", state, at)


def view_id(sweep: str) -> str:
    """The same for the same sweep, so that saving again replaces."""
    return hashlib.sha256(f"ssl-app {sweep}".encode()).hexdigest()[:32]


def trials_id(sweep: str) -> str:
    """Of the view of its trials."""
    return view_id(f"{TRIALS} {sweep}")


def view_path(experiment_id: str, view: str) -> str:
    """What follows the server's address: the view, with its charts open."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view}&compareRunsMode=CHART"


def runs_path(experiment_id: str) -> str:
    """All runs of an experiment; without /runs the page opens on something else."""
    return f"#/experiments/{experiment_id}/runs"


@dataclass(frozen=True)
class SavedView:
    """A sweep's view, as found in the tags of an experiment."""

    identity: str
    name: str
    created: int  # milliseconds


def saved_views(tags: Mapping[str, str]) -> list[SavedView]:
    """The sweeps' views among an experiment's tags; views that people made are left out."""
    found = []
    for key, value in tags.items():
        if key.startswith(TAG) and (name := json.loads(value).get("name", "")).startswith((EFFICIENCY, TRIALS)):
            found.append(SavedView(key.removeprefix(TAG), name, json.loads(value)["createdAt"]))
    return found


def _view(identity: str, name: str, state: dict[str, Any], at: int) -> View:
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    value = json.dumps({"name": name, "createdAt": at, "updatedAt": at, "state": packed})
    assert len(value) < LIMIT
    return View(TAG + identity, value)


def _state(chosen: str) -> dict[str, Any]:
    """What every view must say; a key that is missing keeps what the reader's browser had."""
    return {
        "searchFilter": chosen,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [f"params.`{name}`" for name in ("arm", "draw")],
        "runsHiddenMode": "SHOW_ALL",  # else the first ten
        "groupBy": None,
        "useGroupedValuesInCharts": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": False,
        "autoRefreshEnabled": True,
        "hideEmptyCharts": True,
    }


def _section(identity: str, name: str, columns: int = 1) -> dict[str, Any]:
    return {
        "uuid": identity,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": True,
        "columns": columns,
        "cardHeight": 460 if columns == 1 else 360,
    }


def _chart(kind: str, section: str, identity: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": identity,
        "metricSectionId": section,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,  # else the page adds its own chart of the same metric
        **more,
    }


def _line(metric: str, section: str, identity: str) -> dict[str, Any]:
    about = {
        "metricKey": metric,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisKey": "step",
        "xAxisScaleType": "log",
        "selectedXAxisMetricKey": "",
        "range": {},
        "displayPoints": True,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
    }
    return _chart("LINE", section, identity, about)


def _uuid(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "ssl-app/" + "/".join(parts)))
