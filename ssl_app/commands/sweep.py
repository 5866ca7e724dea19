"""Find out what pretraining is worth: initializations x strategies x labels per class x draws, against scratch.

Every arm sees the same labeled draws for the same number of optimizer steps. The end is a table,
paired differences, the labels saved, and one sentence. The same command again, after a stop, does
only what is missing.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from ssl_app import config, registry, runs
from ssl_app.errors import SettingsError
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import SweepSettings

if TYPE_CHECKING:
    from ssl_app.pool import Job
    from ssl_app.sweeping import Sweep
    from ssl_app.tracking import Tracker, TrialRecord

EXAMPLES = """
ssl-app sweep
ssl-app sweep --data labeled.csv --group patient --per-class 1,2,4,8,16,32,64
ssl-app sweep --init run-a --init run-b --strategy two-stage --draws 10
ssl-app sweep --init run-a --init resnet18.pth --backbone resnet18 --data labeled.csv --image-size 64
"""
METRICS = ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "labels_used")


Settings = SweepSettings


def run(settings: Settings, say: Say = to_stderr, part_of: str | None = None) -> Result:
    """Run what is missing of a sweep, and answer; as a part of a comparison, whose sentence is another, do not."""
    from ssl_app.training.stopping import Stopped

    try:
        with _signals_raise():
            return _run(settings, say, part_of)
    except Stopped:
        say("stopped; type the same command to go on")
        raise


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise Stopped, between trials and while waiting for them too."""
    from ssl_app.training.stopping import Stopped

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


def _run(settings: Settings, say: Say, part_of: str | None) -> Result:
    from ssl_app import comparing, preparing
    from ssl_app.evaluation.verdict import Leak
    from ssl_app.sweeping import Sweep, begun
    from ssl_app.tracking import open_tracker
    from ssl_app.training.hardware import choose
    from ssl_app.training.progress import duration

    started = time.monotonic()
    runs.prepare_out(settings.out)
    if settings.name is not None and not begun(settings.out / settings.name):
        runs.prepare(settings.out, settings.name, "sweep")
    settings = _completed(settings, say)
    hardware = choose(settings.device, settings.precision, settings.threads or 1)
    at_once = _jobs_at_once(settings, hardware.device.type)
    say(f"{hardware.sentence()}; {at_once} trials at a time")
    sweep = Sweep.prepare(settings, hardware, say)
    trials = sweep.done()
    missing = [job for job in sweep.jobs if job.key not in trials]
    say(f"run {sweep.folder}: {len(sweep.jobs)} trials, {len(missing)} to do")
    recipe = next(iter(sweep.benches.values())).recipe
    steps = {job.per_class: recipe.steps_for(len(job.drawn)) for job in reversed(sweep.jobs)}
    say(f"steps of a trial, by labels per class: {', '.join(f'{k}: {n}' for k, n in sorted(steps.items()))}")
    tracker = open_tracker(settings.out, settings.tracking_uri, "ssl-app")
    tracker.log_trials(
        [_record(sweep, job, trials[job.key]) for job in sweep.jobs if job.key in trials], sweep.folder
    )
    since = time.monotonic()
    with closing(sweep.run(missing, at_once)) as finished:
        for number, (job, content) in enumerate(finished, 1):
            trials[job.key] = content
            tracker.log_trials([_record(sweep, job, content)], sweep.folder)
            left = duration((time.monotonic() - since) / number * (len(missing) - number))
            scored = f"{content['balanced_accuracy']:.3f} ({content['seconds']:.0f} s), {left} left"
            about = f"{_arm(content)}, {job.per_class} per class, draw {job.draw}"
            say(f"trial {number} of {len(missing)}: {about}: {scored}")
    ordered = [trials[job.key] for job in sweep.jobs]
    leaks = {name: found for name, bench in sweep.benches.items() if (found := preparing.leaks_of(bench)) is not None}
    trained = {name: bench for name, bench in sweep.benches.items() if bench.start.tensors is not None}
    pooled, outside = sweep.pooled(), sweep.outside()
    worst = max((leaks[name] for name in pooled if name in leaks), key=lambda found: found.total, default=None)
    leak = None if worst is None else Leak(worst.total, worst.of)
    judged = "test set" if settings.judge == "test" else "held-out part of train"
    answer = comparing.answer(ordered, pooled, leak, judged)
    verdict = answer.verdict if part_of is None else f"That of the comparison {part_of}."
    _report(settings, sweep, ordered, verdict, tracker, say)
    more = {
        "trials": ordered,
        "comparisons": answer.comparisons,
        "labels_saved": answer.labels_saved,
        "verdict": verdict,
        "leaks": {name: preparing.leak_sentence(bench) for name, bench in trained.items()},
        "n_test": len(next(iter(sweep.benches.values())).opened.parts.test),
    }
    result = Result("sweep", sweep.folder, time.monotonic() - started, config.as_json(settings), more)
    runs.write_json(sweep.folder / runs.RESULT, result.to_json())
    for line in [*comparing.table_lines(ordered), *comparing.claim_lines(answer.comparisons)]:
        say(line)
    for name, bench in trained.items():
        if not bench.start.ancestry_known or not leaks[name].groups_known:
            say(f"remark: {name}: {preparing.leak_sentence(bench)}")
    if outside and part_of is None:
        say(f"outside the verdict: {', '.join(f'{name} ({reason})' for name, reason in outside.items())}")
    if part_of is None:
        say(verdict)
    say(f"curves: type ssl-app ui{runs.out_flag(settings.out)}, or look at {sweep.folder / 'label-efficiency.png'}")
    return result


def _completed(settings: Settings, say: Say) -> Settings:
    """The settings with the inits and strategies that were left to us."""
    from ssl_app import handover

    strategies = settings.strategy or tuple(registry.names("transfer"))
    for strategy in strategies:
        registry.find("transfer", strategy)
    strategies = tuple(dict.fromkeys(s if ":" in s else s.replace("_", "-") for s in strategies))
    init = settings.init
    if not init:
        init = (handover.newest_pretraining(settings.out),)
        say(f"init: {init[0]}, the newest finished pretraining in {settings.out} (--init says otherwise)")
    twice = next((name for name in init if init.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"--init names {twice} twice; name each once")
    return replace(settings, strategy=strategies, init=init, per_class=tuple(sorted(set(settings.per_class))))


def _jobs_at_once(settings: Settings, device: str) -> int:
    from ssl_app.pool import MOST_JOBS
    from ssl_app.training.hardware import cores

    if settings.jobs is not None:
        return settings.jobs
    return 1 if device != "cpu" else max(1, min(MOST_JOBS, cores() // (settings.threads or 1)))


def _arm(content: dict[str, Any]) -> str:
    from ssl_app.handover import SCRATCH

    return SCRATCH if content["init"] == SCRATCH else f"{content['strategy']} from {content['init']}"


def _record(sweep: "Sweep", job: "Job", content: dict[str, Any]) -> "TrialRecord":
    from ssl_app.tracking import TrialRecord

    shown = {name: str(content[name]) for name in ("init", "strategy", "per_class", "draw")}
    shown |= {"sweep": sweep.folder.name, "arm": _arm(content)}
    numbers = {name: float(content[name]) for name in METRICS if name in content}
    place = sweep.folder / "trials" / job.key
    return TrialRecord(f"{sweep.folder.name}/{job.key}", place, shown, job.per_class, numbers)


def _report(
    settings: Settings, sweep: "Sweep", trials: list[dict[str, Any]], told: str, tracker: "Tracker", say: Say
) -> None:
    """The table as CSV, the curves as PNG, and the views in MLflow."""
    import csv

    from ssl_app import comparing
    from ssl_app.report import plots

    columns = ["init", "strategy", "per_class", "draw", "labels_used", "n", *METRICS[:-1], "how"]
    with (sweep.folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(trials)
    series = {
        _arm({"init": init, "strategy": strategy}): {k: list(by_draw.values()) for k, by_draw in arm.items()}
        for (init, strategy), arm in comparing.scores(trials).items()
    }
    data = next(iter(sweep.benches.values())).opened.dataset.name
    where = "balanced accuracy on the test set" if settings.judge == "test" else "balanced accuracy, held out"
    plots.label_efficiency(sweep.folder / "label-efficiency.png", series, data, where)
    tracked = tracker.start(
        sweep.folder.name, sweep.folder, {"trials": len(trials)}, {"verb": "sweep", "verdict": told}
    )
    for name in ("trials.csv", "label-efficiency.png", "draws"):
        tracked.artifact(sweep.folder / name)
    tracked.finish()
    view = tracker.save_views(sweep.folder.name)
    if view is not None:
        say(f"view: {tracker.view_path(view)}")
