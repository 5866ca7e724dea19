"""Find out what pretraining is worth: initializations x strategies x labels per class x draws, against scratch.

Every variant sees the same labeled draws for the same number of optimizer steps. The end is a table,
paired differences, the labels saved, and one sentence. The same command again, after a stop, does
only what is missing.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ssl_app import config, registry, runs
from ssl_app.commands import RecordedRun, RunSpec, record
from ssl_app.commands.base import hardware_of, newest_or, out_flag, planned_of, transfer_config
from ssl_app.commands.finetune import strategy_of
from ssl_app.errors import SettingsError
from ssl_app.runs import Result
from ssl_app.settings import SweepSettings

if TYPE_CHECKING:
    from ssl_app.tracking import Tracker, TrialRecord
    from ssl_app.transfer.sweep import Sweep, SweepSpec
    from ssl_app.transfer.workers import PlannedTrial

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app sweep
ssl-app sweep --data labeled.csv --group patient --per-class 1,2,4,8,16,32,64
ssl-app sweep --init run-a --init run-b --strategy two-stage --draws 10
ssl-app sweep --init run-a --init resnet18.pth --backbone resnet18 --data labeled.csv --image-size 64
"""
METRICS = ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "labels_used")


Settings = SweepSettings


def run(settings: Settings, part_of: str | None = None) -> Result:
    """Run what is missing of a sweep, and answer; as a part of a comparison, whose sentence is another, do not."""
    from ssl_app.training.signals import Stopped

    try:
        with _signals_raise():
            return _run(settings, part_of)
    except Stopped:
        logger.info("stopped; type the same command to go on")
        raise


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise Stopped, between trials and while waiting for them too."""
    from ssl_app.training.signals import Stopped

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(settings: Settings, part_of: str | None) -> Result:
    from ssl_app.transfer.sweep import Sweep, begun

    started = time.monotonic()
    runs.prepare_out(settings.out)
    if settings.name is not None and not begun(settings.out / settings.name):
        runs.prepare(settings.out, settings.name, "sweep")
    settings = _completed(settings)
    hardware = hardware_of(settings, threads=1)
    workers = _jobs_at_once(settings, hardware.device.type)
    logger.info(f"{hardware.sentence()}; {workers} trials at a time")
    sweep = Sweep.prepare(_spec(settings), hardware)
    about = RunSpec("sweep", settings.out, settings.name, config.as_json(settings), settings.tracking_uri)
    with record(about, sweep.folder, started) as one:
        trials = _trials(sweep, workers, one.tracker)
        one.more = _answered(settings, sweep, trials, part_of)
        _write_report(settings, sweep, trials, one)
    view = one.tracker.save_views(sweep.folder.name)
    if view is not None:
        logger.info(f"view: {one.tracker.view_path(view)}")
    picture = sweep.folder / "label-efficiency.png"
    logger.info(f"curves: type ssl-app ui{out_flag(settings.out)}, or look at {picture}")
    return one.result()


def _spec(settings: Settings) -> "SweepSpec":
    """What the sweep compares, from completed settings. Raises UserError."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.sweep import SweepSpec

    starts = [load_initialization(init, settings.out, settings.backbone) for init in settings.init]
    return SweepSpec(
        planned=[planned_of(settings, start) for start in starts],
        strategies=settings.strategy,
        per_class=settings.per_class,
        draws=settings.draws,
        baseline=settings.baseline == SCRATCH,
        config=transfer_config(settings, starts[0], "within", settings.seed),
        out=settings.out,
        name=settings.name,
        settings=config.as_json(settings),
    )


def _trials(sweep: "Sweep", workers: int, tracker: "Tracker") -> list[dict[str, Any]]:
    """Results of all trials, in order; those that are missing are run."""
    from ssl_app.training.history import duration

    done = sweep.done()
    missing = [one for one in sweep.trials if one.key not in done]
    logger.info(f"run {sweep.folder}: {len(sweep.trials)} trials, {len(missing)} to do")
    transfer = next(iter(sweep.setups.values())).config
    steps = {one.per_class: transfer.steps_for(len(one.job.drawn)) for one in reversed(sweep.trials)}
    logger.info(f"steps of a trial, by labels per class: {', '.join(f'{k}: {n}' for k, n in sorted(steps.items()))}")
    tracker.log_trials([_record(sweep, one, done[one.key]) for one in sweep.trials if one.key in done], sweep.folder)
    since = time.monotonic()
    with closing(sweep.run(missing, workers)) as finished:
        for number, (one, content) in enumerate(finished, 1):
            done[one.key] = content
            tracker.log_trials([_record(sweep, one, content)], sweep.folder)
            left = duration((time.monotonic() - since) / number * (len(missing) - number))
            scored = f"{content['balanced_accuracy']:.3f} ({content['seconds']:.0f} s), {left} left"
            about = f"{_variant(content)}, {one.per_class} per class, draw {one.job.draw}"
            logger.info(f"trial {number} of {len(missing)}: {about}: {scored}")
    return [done[one.key] for one in sweep.trials]


def _answered(
    settings: Settings, sweep: "Sweep", trials: list[dict[str, Any]], part_of: str | None
) -> dict[str, Any]:
    """Log the table and the verdict. -> what result.json adds."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.evaluation import comparison
    from ssl_app.evaluation.verdict import SeenInPretraining
    from ssl_app.transfer.setup import overlap_of, overlap_sentence

    seen = {name: found for name, setup in sweep.setups.items() if (found := overlap_of(setup)) is not None}
    trained = {name: setup for name, setup in sweep.setups.items() if setup.initialization.pretrained}
    pooled, outside = sweep.pooled(), sweep.outside()
    worst = max((seen[name] for name in pooled if name in seen), key=lambda found: found.total, default=None)
    overlap = None if worst is None else SeenInPretraining(worst.total, worst.of)
    part = "test set" if settings.evaluate_on == "test" else "validation part of train"
    answer = comparison.answer(trials, pooled, overlap, part)
    verdict = answer.verdict if part_of is None else f"That of the comparison {part_of}."
    for line in [*comparison.table_lines(trials), *comparison.claim_lines(answer.comparisons)]:
        logger.info(line)
    for name, setup in trained.items():
        if not setup.initialization.ancestry_known or not seen[name].groups_known:
            logger.info(f"remark: {name}: {overlap_sentence(setup)}")
    if outside and part_of is None:
        shown = ", ".join(f"{name} ({reason})" for name, reason in outside.items())
        logger.info(f"outside the verdict: {shown}")
    if part_of is None:
        logger.info(verdict)
        if SCRATCH not in sweep.setups:
            logger.info("to compare with random weights, type --baseline scratch")
    return {
        "trials": trials,
        "comparisons": answer.comparisons,
        "labels_saved": answer.labels_saved,
        "verdict": verdict,
        "overlap": {name: overlap_sentence(setup) for name, setup in trained.items()},
        "n_test": len(next(iter(sweep.setups.values())).opened.parts.test),
    }


def _completed(settings: Settings) -> Settings:
    """The settings with the inits and strategies that were left to us."""
    strategies = settings.strategy or tuple(registry.names("transfer.strategies"))
    for strategy in strategies:
        strategy_of(strategy)
    strategies = tuple(dict.fromkeys(s if ":" in s else s.replace("_", "-") for s in strategies))
    init = settings.init or (newest_or(None, settings.out),)
    twice = next((name for name in init if init.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"--init names {twice} twice; name each once")
    return replace(settings, strategy=strategies, init=init, per_class=tuple(sorted(set(settings.per_class))))


def _jobs_at_once(settings: Settings, device: str) -> int:
    from ssl_app.training.hardware import cores
    from ssl_app.transfer.workers import MOST_JOBS

    if settings.jobs is not None:
        return settings.jobs
    return 1 if device != "cpu" else max(1, min(MOST_JOBS, cores() // (settings.threads or 1)))


def _variant(content: dict[str, Any]) -> str:
    from ssl_app.checkpoints import SCRATCH

    return SCRATCH if content["init"] == SCRATCH else f"{content['strategy']} from {content['init']}"


def _record(sweep: "Sweep", one: "PlannedTrial", content: dict[str, Any]) -> "TrialRecord":
    from ssl_app.tracking import TrialRecord

    shown = {name: str(content[name]) for name in ("init", "strategy", "per_class", "draw")}
    shown |= {"sweep": sweep.folder.name, "arm": _variant(content)}
    numbers = {name: float(content[name]) for name in METRICS if name in content}
    place = sweep.folder / "trials" / one.key
    return TrialRecord(f"{sweep.folder.name}/{one.key}", place, shown, one.per_class, numbers)


def _write_report(settings: Settings, sweep: "Sweep", trials: list[dict[str, Any]], one: RecordedRun) -> None:
    """The table as CSV, and the curves as PNG."""
    import csv

    from ssl_app.evaluation import comparison
    from ssl_app.report import plots

    columns = ["init", "strategy", "per_class", "draw", "labels_used", "unlabeled_used", "n", *METRICS[:-1], "how"]
    with runs.draft(sweep.folder / "trials.csv") as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(trials)
    series = {
        _variant({"init": init, "strategy": strategy}): {k: list(by_draw.values()) for k, by_draw in curve.items()}
        for (init, strategy), curve in comparison.scores(trials).items()
    }
    data = "/".join(Path(next(iter(sweep.setups.values())).dataset.name).parts[-2:])  # the figure may be shown around
    part = "on the test set" if settings.evaluate_on == "test" else "on a validation part"
    plots.label_efficiency(sweep.folder / "label-efficiency.png", series, data, f"balanced accuracy {part}")
    one.tracked.metrics({"trials": float(len(trials))}, 0)
    for name in ("trials.csv", "label-efficiency.png", "draws"):
        one.tracked.artifact(sweep.folder / name)
