"""Write what a run found as one page to hand on: an HTML file that needs no network and no server.

RUN is a pretraining, a finetune, a sweep or a comparison, finished or not. The page holds its pictures and figures,
reads without JavaScript, and prints. A sweep writes its own at its end.
"""

import importlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs
from ssl_app.commands.base import cache_of, out_flag
from ssl_app.config import option
from ssl_app.errors import RunError
from ssl_app.runs import Result

if TYPE_CHECKING:
    from ssl_app.report.findings import Findings
    from ssl_app.report.run_facts import RunFacts
    from ssl_app.transfer.saved_sweep import SavedSweep

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app report sweep-1a2b3c4d
ssl-app report pretrain-20261121-101500
ssl-app report sweep-1a2b3c4d --output for-the-meeting.html
"""
PAGE = "report.html"  # in the run
VERBS = ("sweep", "pretrain", "finetune", "compare")
MOST_VALUES = 60_000_000  # probabilities, above which only the trials of the details are looked at for calibration
# where a run lies, how it was shared, and what does not change what it finds
APART = ("out", "name", "resume", "tracking_uri", "method_settings", "strategy_settings")


@dataclass(frozen=True)
class Settings:
    """Settings of a report."""

    run: str = option("", "pretraining, finetune, sweep or comparison: its name, or its folder", argument=True)
    output: Path | None = option(
        None, "page to write, .html, not there yet; default: report.html in the run", metavar="FILE"
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Write the page, and say where it lies."""
    started = time.monotonic()
    runs.check_output(settings.output, (".html",))
    folder = runs.find_run(settings.out, settings.run)
    path = write(folder, output=settings.output)
    logger.info(f"report: open this in a browser: {path}")
    more = {"report": str(path), "bytes": path.stat().st_size}
    return Result("report", folder, time.monotonic() - started, config.as_json(settings), more)


def write(folder: Path, result: Mapping[str, Any] | None = None, output: Path | None = None) -> Path:
    """Write the report of a run, `result` being that of one that is about to end. -> the page.

    Raises RunError where the verb has no report, or what the run holds is damaged.
    """
    from ssl_app.report.run_facts import RunFacts

    facts = RunFacts.read(folder, result)
    if facts.verb not in VERBS:
        raise RunError(f"run {folder} is of verb {facts.verb}", expected=f"one of {', '.join(VERBS)}")
    pages = {"sweep": _sweep, "pretrain": _pretrain, "finetune": _finetune, "compare": _compare}
    page = pages[facts.verb](facts)
    path = folder / PAGE if output is None else output
    runs.write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _sweep(facts: "RunFacts") -> str:
    """The page of a sweep."""
    from ssl_app.report.sweep_page import SweepReport
    from ssl_app.transfer.saved_sweep import SavedSweep

    saved = SavedSweep(facts.folder, facts.settings, facts.result, facts.data)
    findings = _findings(saved)
    errors, curves = ({}, {}) if findings is None else _calibrated(findings)
    return SweepReport(
        facts,
        findings,
        saved.trials,
        saved.missing,
        errors,
        curves,
        _pretrainings(facts, saved),
        typed(facts),
        f"ssl-app sweep --resume {quote(facts.name)}{_out(facts)}",
        changed(facts),
        cache_of(facts.folder.parent),
    ).html()


def _findings(saved: "SavedSweep") -> "Findings | None":
    """The answers of a sweep's trials; None where none can be read."""
    from ssl_app.report.findings import Findings

    tested = saved.tested
    return None if tested is None else Findings(tested, saved.pooled, lambda one: saved.probabilities([one]).get(one))


def _pretrain(facts: "RunFacts") -> str:
    """The page of a pretraining."""
    from ssl_app.report.pretrain_page import PretrainReport

    result = facts.result
    history = _history(facts.folder)
    warning = None if result is None else result.get("warning")
    chance = {}
    if result is not None and result.get("chance") is not None:
        score = importlib.import_module("ssl_app.commands.pretrain").method_of(facts.settings["method"]).score
        chance = {score: float(result["chance"])}
    verb = "sweep --init" if result is not None else "pretrain --resume"
    return PretrainReport(
        facts,
        history,
        [] if warning is None else [warning],
        chance,
        typed(facts),
        f"ssl-app {verb} {quote(facts.name)}{_out(facts)}",
        changed(facts),
    ).html()


def _history(folder: Path) -> list[dict[str, float]]:
    """Metrics of the epochs so far, from the checkpoint; none before the first of them was written."""
    from ssl_app import checkpoints
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.initialization import BACKBONE

    for name in (BACKBONE, TRAINING):
        if (folder / name).is_file():
            _, meta = checkpoints.read(folder / name)
            found: list[dict[str, float]] = meta["history"] if name == BACKBONE else meta["position"]["history"]
            return found
    return []


def _finetune(facts: "RunFacts") -> str:
    """The page of a finetune."""
    from ssl_app.report.finetune_page import FinetuneReport
    from ssl_app.transfer.predictions import read_test_predictions

    path = facts.folder / "test.csv"
    found = read_test_predictions(path) if path.is_file() else None
    use = f"ssl-app predict {quote(facts.name)} --data NEW-IMAGES"
    return FinetuneReport(
        facts,
        None if found is None else found.probabilities,
        None if found is None else found.labels,
        typed(facts),
        changed(facts),
        f"{use}{_out(facts)}",
        f"{use} --abstain 0.9{_out(facts)}",
        cache_of(facts.folder.parent),
    ).html()


def _compare(facts: "RunFacts") -> str:
    """The page of a comparison, with the curves of its sweep."""
    from ssl_app.report.compare_page import CompareReport
    from ssl_app.report.run_facts import RunFacts
    from ssl_app.transfer.saved_sweep import SavedSweep

    out, result = facts.folder.parent, facts.result or {}
    folder = out / f"{facts.name}-sweep"
    sweep = RunFacts.read(folder) if (folder / runs.SETTINGS).is_file() else None
    findings = None
    if sweep is not None:
        findings = _findings(SavedSweep(folder, sweep.settings, sweep.result, sweep.data))
    warnings = {}
    for one in result.get("ranking", ()):
        path = out / f"{facts.name}-{one['name']}" / runs.RESULT
        warning = runs.read_json(path).get("warning") if path.is_file() else None
        if warning is not None:
            warnings[one["name"]] = warning
    again = f"{typed(facts)} --name {quote(facts.name)}"
    return CompareReport(facts, findings, warnings, sweep, again, changed(facts)).html()


def _out(facts: "RunFacts") -> str:
    """The flag of the folder that a run lies in."""
    return out_flag(facts.folder.parent)


def _calibrated(findings: "Findings") -> tuple[dict[tuple[str, int], float], dict[str, Any]]:
    """ECE by variant and budget, as the mean over trials; and the reliability of the details, draws together."""
    import numpy as np

    from ssl_app.evaluation.calibration import calibration
    from ssl_app.evaluation.comparison import name_of

    labels = findings.tested.part.labels
    found: dict[tuple[str, int], list[float]] = {}
    detailed = {
        findings.subject_name: findings.subject,
        **({} if findings.baseline is None else {name_of(findings.baseline): [findings.baseline]}),
    }
    curves = {}
    for name, variants in detailed.items():
        predicted = findings.predicted(variants)
        if predicted:
            curves[name] = calibration(np.concatenate(predicted), np.tile(labels, len(predicted)))
    values = len(labels) * len(findings.tested.right) * len(np.unique(labels))
    for one in findings.tested.right if values <= MOST_VALUES else ():
        predicted_by = findings.read(one)
        if predicted_by is not None:
            found.setdefault((name_of(one[:2]), one[2]), []).append(calibration(predicted_by, labels).ece)
    return {key: sum(several) / len(several) for key, several in found.items()}, curves


def _pretrainings(facts: "RunFacts", saved: "SavedSweep") -> "list[RunFacts]":
    """The pretrainings of a sweep that lie beside it."""
    from ssl_app.report.run_facts import RunFacts

    names = list(dict.fromkeys(str(one["init"]) for one in saved.trials))
    folders = [facts.folder.parent / name for name in names]
    found = [RunFacts.read(folder) for folder in folders if (folder / runs.SETTINGS).is_file()]
    return [one for one in found if one.verb == "pretrain"]


def changed(facts: "RunFacts") -> dict[str, Any]:
    """The settings of a run that are not left to their defaults, those of its method or strategy too."""
    found = _unlike(facts.settings, _module(facts.verb).Settings())
    for key, owner in (("method_settings", "method"), ("strategy_settings", "strategy")):
        held = facts.settings.get(key)
        if held:
            kind = _module(facts.verb).joined({owner: facts.settings[owner]})
            found |= _unlike(held, kind())
    if "epochs" in found:  # the length that a budget came to: the two together are refused
        found.pop("budget", None)
    return found


def _unlike(held: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """What differs from the defaults."""
    usual = config.as_json(default)
    return {
        name: value
        for name, value in held.items()
        if name not in APART and name in usual and value != usual[name] and value not in ([], None)
    }


def typed(facts: "RunFacts") -> str:
    """The command that makes a run like this one."""
    words = [f"ssl-app {facts.verb}"]
    repeated = {one.name for one in config.fields(_module(facts.verb).Settings) if one.repeat}
    for name, value in changed(facts).items():
        flag = config.flag(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list):
            several = map(str, value) if name in repeated else [",".join(map(str, value))]
            words += [f"{flag} {quote(one)}" for one in several]
        else:
            words.append(f"{flag} {quote(str(value))}")
    return " ".join(words) + _out(facts)


def _module(verb: str) -> Any:
    return importlib.import_module(f"ssl_app.commands.{verb}")
