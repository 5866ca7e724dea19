"""List the runs in --out, the newest first: state, method, data, headline figure, minutes."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_app import config, runs
from ssl_app.commands import state_of
from ssl_app.config import option
from ssl_app.errors import RunError, count_of
from ssl_app.locks import owner_of
from ssl_app.runs import Result

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app list
ssl-app list --verb finetune
ssl-app list --out /data/ssl-runs --json
"""
LONGEST = 40  # characters of a column
SCORES = ("accuracy", "retrieval", "psnr_gain")  # of pretext tasks, which a network without knowledge has by chance
# metrics of a pretraining, those first that say the most about its features, and how they are named
OF_PRETRAINING = {
    "probe_knn": "kNN accuracy",
    "probe_ami": "AMI with labels",
    "ami_labels": "AMI with labels",
    **{f"{part}{name}": None for name in SCORES for part in ("val_", "")},
    "val_loss": None,
    "loss": None,
}
HEAD = ("run", "state", "verb", "method", "data", "figure", "minutes")


@dataclass(frozen=True)
class Settings:
    """Which runs to list."""

    verb: str | None = option(None, "only runs of this verb", metavar="VERB")
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


@dataclass(frozen=True)
class Entry:
    """A run as the list has it."""

    run: str  # name of its folder
    state: str  # running, finished, failed or stopped
    verb: str
    method: str | None  # or strategies; None where the verb has neither
    data: str | None
    figure: str | None  # what it found, in a few words
    minutes: float | None  # None where nobody knows when it stopped
    started: float  # seconds since 1970


def run(settings: Settings) -> Result:
    """Print the runs, on stdout: here the listing is the result. One that cannot be read is named and left out."""
    began = time.monotonic()
    found = []
    for path in settings.out.glob(f"*/{runs.SETTINGS}"):
        if path.parent.name.startswith("."):
            continue
        try:
            found.append(entry(path.parent))
        except RunError as error:
            logger.warning(f"left out: {error}")
    if settings.verb is not None:
        found = [one for one in found if one.verb == settings.verb]
    found.sort(key=lambda one: (-one.started, one.run))
    for row in _table([HEAD, *(_cells(one) for one in found)]) if found else ():
        print(row)
    if not found:
        of = "" if settings.verb is None else f" of {settings.verb}"
        logger.info(f"{settings.out} holds no runs{of}; ssl-app pretrain makes one, --out names another folder")
    more = {"runs": [asdict(one) for one in found]}
    return Result("list", settings.out, time.monotonic() - began, config.as_json(settings), more)


def entry(folder: Path) -> Entry:
    """What the list says of a run. Raises RunError where its files are damaged."""
    held = runs.read_json(folder / runs.SETTINGS)
    verb, given, started = str(held.get("verb")), held.get("settings", {}), float(held.get("started", 0.0))
    state = state_of(folder)
    result = runs.read_result(folder) if runs.finished(folder) else {}
    names = given.get("method") or given.get("methods") or given.get("strategy")
    return Entry(
        folder.name,
        state,
        verb,
        ", ".join(names) if isinstance(names, list) else names,
        given.get("data") or _data_of_init(folder, given),
        figure(verb, result) if result else None,
        _minutes(folder, state, started, result),
        started,
    )


def _minutes(folder: Path, state: str, started: float, result: Mapping[str, Any]) -> float | None:
    """What a run took: in all where that is known, else its last command; never what a clock that was set says."""
    if result:
        trials = sum(float(one.get("seconds", 0)) for one in result.get("trials", ()) if isinstance(one, Mapping))
        at_a_time = result.get("at_once") or result["settings"].get("jobs")  # not known of older sweeps
        seconds = max(float(result["seconds"]), float(result.get("training_seconds") or 0))
        seconds = max(seconds, trials / at_a_time) if at_a_time else seconds
    elif state == "running":
        owner = owner_of(folder)
        since = owner.since if owner is not None and owner.since else started
        seconds = time.time() - since if since else -1
    elif (folder / runs.ENDED).is_file():
        ended = runs.read_json(folder / runs.ENDED)
        seconds = float(ended.get("seconds", ended["at"] - started if started else -1))
    else:
        return None
    return seconds / 60 if seconds >= 0 else None


def figure(verb: str, result: Mapping[str, Any]) -> str | None:
    """What a finished run found, in a few words; None of a verb without a figure."""
    found = FIGURES.get(verb)
    try:
        return None if found is None else found(result)
    except (KeyError, TypeError, IndexError):  # a result of another version
        return None


def _pretrain(result: Mapping[str, Any]) -> str | None:
    final = result["final"]
    name = next((name for name in OF_PRETRAINING if name in final), None)
    if name is None:
        return "warning" if result.get("warning") else None
    score = name.removeprefix("val_")
    figure = f"{OF_PRETRAINING[name] or name.replace('_', ' ')} {final[name]:.3f}"
    if score in SCORES:
        chance = "" if result.get("chance") is None else f" (chance {result['chance']:.3f})"
        figure = f"pretext {score.replace('_', ' ')} {final[name]:.3f}{chance}"
    return f"{figure}, warning" if result.get("warning") else figure


def _finetune(result: Mapping[str, Any]) -> str:
    test = result["test"]
    interval = "" if test.get("low") is None else f" [{test['low']:.3f}, {test['high']:.3f}]"
    return f"balanced accuracy {test['balanced_accuracy']:.3f}{interval}"


def _best_layer(result: Mapping[str, Any]) -> str | None:
    layer = result["best"]["linear"]
    return None if layer is None else f"linear {result['probe'][layer]['linear']['balanced_accuracy']:.3f}, {layer}"


FIGURES: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "sweep": lambda result: result["outcome"] or count_of(len(result["trials"]), "trial"),
    "fit": lambda result: result["outcome"] or _finetune(result),
    "compare": lambda result: ", ".join(result["wanted"]),
    "evaluate": _best_layer,
    "predict": lambda result: count_of(result["n"], "image"),
    "suggest": lambda result: count_of(result["n"], "image"),
}


def _data_of_init(folder: Path, given: Mapping[str, Any]) -> str | None:
    """The data of the pretraining that a run started from, where it names none."""
    init = given.get("init") or given.get("run")
    first = init[0] if isinstance(init, list) and init else init
    path = folder.parent / str(first).partition("+")[0] / runs.SETTINGS
    try:
        data = runs.read_json(path).get("settings", {}).get("data")
    except RunError:  # no run, or one that is listed as damaged itself
        return None
    return None if data is None else str(data)


def _cells(one: Entry) -> tuple[str, ...]:
    minutes = "" if one.minutes is None else f"{one.minutes:.1f}"
    data = one.data or ""
    short = data if len(data) <= LONGEST else f"...{data[3 - LONGEST :]}"
    return one.run, one.state, one.verb, str(one.method or "")[:LONGEST], short, one.figure or "", minutes


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their cells, the last one to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1].rjust(widths[-1])]).rstrip())
    return lines
