"""A file of a run that holds something else than ssl-app writes: one line that names it, at any depth."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ssl_app import runs
from ssl_app.errors import RunError
from ssl_app.report.run_facts import RunFacts
from tests.saved_runs import Made, make_sweep

WRONG = (None, "text", [], {}, -1.5, [None], [3], True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep."""
    return make_sweep(tmp_path_factory.mktemp("runs"), "s", Made(per_class=(4, 8), draws=2, images=24))


def replaced(content: Any, at: tuple[str | int, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    held = content
    for name in at[:-1]:
        held = held[name]
    held[at[-1]] = value
    return content


PLACES = [
    ("result.json", ("trials",)),
    ("result.json", ("trials", 0)),
    ("result.json", ("trials", 0, "draw")),
    ("result.json", ("trials", 1, "init")),
    ("result.json", ("trials", 0, "per_class")),
    ("result.json", ("comparisons", 0, "per_class")),
    ("result.json", ("labels_saved_by_budget", 0, "factor")),
    ("result.json", ("pooled",)),
    ("result.json", ("seconds",)),
    ("result.json", ("settings",)),
    ("data.json", ("groups",)),
    ("data.json", ("name",)),
    ("data.json", ("parts",)),
    ("data.json", ("parts", "test")),
    ("data.json", ("parts", "test", "n")),
    ("data.json", ("parts", "training", "per_class")),
    ("data.json", ("pixels", "shape")),
    ("data.json", ("unreadable", 0)),
    ("data.json", ("classes",)),
    ("data.json", ("test", "rows")),
    ("settings.json", ("settings",)),
    ("settings.json", ("started",)),
    ("machine.json", ("packages",)),
]


@pytest.mark.parametrize(
    ("name", "at"), PLACES, ids=lambda one: one if isinstance(one, str) else ".".join(map(str, one))
)
def test_what_is_of_another_shape_is_named(
    name: str, at: tuple[str | int, ...], folder: Path, tmp_path: Path
) -> None:
    path = folder / name
    before = path.read_text()
    whole = json.loads(before)
    held = whole
    for step in at:
        held = held[step]
    try:
        for value in WRONG:
            if value is None or isinstance(value, type(held)) or {type(value), type(held)} <= {int, float}:
                continue  # it may stand there
            path.write_text(json.dumps(replaced(whole, at, value)))
            with pytest.raises(RunError, match=f"{name} cannot be used .*; expected a file that ssl-app wrote"):
                RunFacts.read(folder)
    finally:
        path.write_text(before)
    assert RunFacts.read(folder).state == "finished"


@pytest.mark.parametrize("value", [[], {"init": 3}, {"init": "a", "strategy": "b", "per_class": "4", "draw": 0}])
def test_a_trial_of_another_shape_is_named(value: Any, folder: Path) -> None:
    path = next(folder.glob("trials/*/result.json"))
    before = path.read_text()
    try:
        path.write_text(json.dumps(value))
        with pytest.raises(RunError, match="expected a file that ssl-app wrote"):
            runs.read_json(path, runs.OF_TRIAL)
    finally:
        path.write_text(before)
