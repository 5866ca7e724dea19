"""Views of MLflow's own pages, set beforehand: labels against score, one curve an arm.

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
TITLE = "Label efficiency of"
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
        "compareRunSections": [
            {"uuid": section, "name": SECTION, "display": True, "isReordered": False}
            | {"deleted": False, "isGenerated": True, "columns": 1, "cardHeight": 460}
        ],
    }
    return _view(view_id(sweep), f"{TITLE} {sweep}", state, at)


def training_runs(chosen: str, at: int) -> View:
    """Every metric of the trainings by epoch, one line a run; the page makes the charts."""
    state = _state(chosen) | {"orderByKey": "attributes.start_time", "orderByAsc": False}
    return _view(view_id(TRAINING), "Training runs", state, at)


def view_id(sweep: str) -> str:
    """The same for the same sweep, so that saving again replaces."""
    return hashlib.sha256(f"ssl-app {sweep}".encode()).hexdigest()[:32]


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
        if key.startswith(TAG) and (name := json.loads(value).get("name", "")).startswith(TITLE):
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


def _line(metric: str, section: str, identity: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": identity,
        "metricSectionId": section,
        "metricKey": metric,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,  # else the page adds its own chart of the same metric
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


def _uuid(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "ssl-app/" + "/".join(parts)))
