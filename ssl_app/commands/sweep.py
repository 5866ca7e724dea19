"""Find out what pretraining is worth: initializations x strategies x labels per class x draws, against scratch.

Every variant sees the same labeled draws; scratch trains as long, or twice as long. The end is a table, paired
differences, the labels saved, and a verdict of three lines. The same command again, after a stop, does only what
is missing.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs, tables
from ssl_app.commands import RecordedRun, RunSpec, record, ui
from ssl_app.commands.base import (
    DIGITS,
    hardware_of,
    newest_or,
    out_flag,
    planned_of,
    transfer_config,
    workers_of,
)
from ssl_app.commands.finetune import refuse_unused_maps, strategy_of
from ssl_app.errors import Change, RunError, Set, SettingsError, count_of
from ssl_app.runs import Result
from ssl_app.settings import NO_RAY, USUAL_DRAWS, USUAL_SIZES, SweepSettings, TransferSettings

if TYPE_CHECKING:
    from ssl_app.data.overlap import Overlap
    from ssl_app.data.splits import Parts
    from ssl_app.evaluation.comparison import Answered
    from ssl_app.evaluation.verdict import Around
    from ssl_app.tracking import Tracker, TrialRecord
    from ssl_app.training.hardware import Hardware
    from ssl_app.transfer.sweep import Sweep, SweepSpec
    from ssl_app.transfer.sweep_cost import SweepCost
    from ssl_app.transfer.workers import PlannedTrial, Workers

logger = logging.getLogger(__name__)

USUAL_STRATEGIES = ("auto", "feature-extraction", "full-fine-tuning", "two-stage")
EXAMPLES = """
ssl-app sweep
ssl-app sweep --data labeled.csv --group patient --per-class 1,2,4,8,16,32,64
ssl-app sweep --init run-a --init run-b --strategy two-stage --draws 10
ssl-app sweep --resume sweep-1a2b3c4d --draws 10
ssl-app sweep --init run-a --init resnet18.pth --backbone resnet18 --data labeled.csv --image-size 64
"""
# what another command on the same images needs
DATA = (
    "data", "labels", "label", "group", "split", "axis", "split_seed", "test_fraction", "allow_leak", "image_size",
    "channels", "intensity", "nodata", "fit", "omit", "unlabeled", "one_spelling", "max_unreadable", "max_image_mb",
)  # fmt: skip
# how a classifier is trained: one that is recommended is to be the one that was measured
TRAINED = (*(field.name for field in fields(TransferSettings) if field.name != "backbone"), "relabel")
METRICS = ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "labels_used")


Settings = SweepSettings


def run(settings: Settings, part_of: str | None = None) -> Result:
    """Run what is missing of a sweep, and answer; as a part of a comparison, whose sentence is another, do not."""
    from ssl_app.training.signals import Stopped

    try:
        return _run(settings, part_of)
    except Stopped as stopped:
        if part_of is None:
            stopped.add_note("type the same command to go on")
        raise


def _run(settings: Settings, part_of: str | None) -> Result:
    from ssl_app.transfer.sweep_identity import begun

    started = time.monotonic()
    runs.prepare_out(settings.out)
    settings = settings if settings.resume is None else _resumed(settings)
    if settings.name is not None and not begun(settings.out / settings.name):
        runs.prepare(settings.out, settings.name, "sweep")
    settings = _completed(settings)
    hardware = hardware_of(settings, threads=1)
    with workers_of(settings, hardware, settings.threads) as workers:
        return _swept(settings, hardware, workers, started, part_of)


def _swept(
    settings: Settings, hardware: "Hardware", workers: "Workers", started: float, part_of: str | None
) -> Result:
    from ssl_app.transfer.sweep import Sweep

    logger.info(f"{hardware.sentence()}; {count_of(workers.at_once, 'trial')} at a time")
    sweep = Sweep.prepare(_spec(settings), hardware)
    about = RunSpec("sweep", settings.out, settings.name, config.as_json(settings), settings.tracking_uri)
    with record(about, sweep.folder, started) as one:
        sweep.keep_identity()
        _keep_about(sweep)
        first = next(iter(sweep.setups.values()))
        one.read(first.dataset, {"training": first.unlabeled, "test": first.opened.parts.test})
        trials = _trials(sweep, workers, one.tracker)
        tested = sweep.answered(sweep.trials(sweep.scratch_lengths()))
        one.more = _answered(settings, sweep, trials, tested, part_of)
        one.more["at_once"] = workers.at_once
        _say_what_teachers_know(trials)
        pages = one.tracker.save_views(sweep.folder.name)
        one.more["pages"] = {name: f"{ui.ADDRESS}/{path}" for name, path in pages.items()}
        _write_report(settings, sweep, trials, tested, one)
        if part_of is None:
            one.note = _note(one.more)
            one.tracker.note(f"Newest sweep, {sweep.folder.name}:\n\n{one.note}")
    for name, address in one.more["pages"].items():
        logger.info(f"{name}: {address}")
    if one.more["pages"]:
        logger.info(f"to open these in a browser, type ssl-app ui{out_flag(settings.out)} and leave it running")
    if (sweep.folder / "report.html").is_file():
        logger.info(f"report: open this in a browser: {sweep.folder / 'report.html'}")
    return one.result()


def _note(more: Mapping[str, Any]) -> str:
    """The verdict with the pages that show it, in Markdown."""
    verdict = "\n\n".join(str(more["verdict"]).splitlines())
    outcome = f"**{more['outcome']}**\n\n" if more["outcome"] else ""
    return f"{outcome}{verdict}\n\n" + " · ".join(
        f"[{name}](#{address.partition('#')[2]})" for name, address in more["pages"].items()
    )


def _keep_about(sweep: "Sweep") -> None:
    """Write what the data and the machine are, for a report of a sweep that is not finished too."""
    from ssl_app.data.summary import write_summary
    from ssl_app.training.machine import write_machine

    setup = next(iter(sweep.setups.values()))
    opened, parts = setup.opened, setup.opened.parts
    named = {"training": setup.unlabeled, "validation": parts.val, "test": parts.test}
    kept = {name: indices for name, indices in named.items() if len(indices)}
    write_summary(sweep.folder, opened.dataset, kept, parts.how, setup.scaling)
    write_machine(sweep.folder, setup.hardware)


def _resumed(given: Settings) -> Settings:
    """The settings of the sweep to go on with; what may grow is as given. Raises RunError, SettingsError."""
    assert given.resume is not None
    folder = runs.find_run(given.out, given.resume)
    content = runs.read_json(folder / runs.SETTINGS)
    if content["verb"] != "sweep":
        raise RunError(f"run {folder} is of verb {content['verb']}; --resume takes a sweep")
    saved, default = config.from_json(Settings, content["settings"]), Settings()
    grow = ("init", "strategy", "per_class", "baseline_strategy", "baseline_per_class")
    free = ("out", "jobs", "ray", "gpu_share", "tracking_uri", "draws", *grow)
    changed = {f.name: getattr(given, f.name) for f in fields(Settings)}
    changed = {name: value for name, value in changed.items() if value != getattr(default, name) and name != "resume"}
    for name, value in changed.items():
        if name not in free and value != getattr(saved, name):
            raise SettingsError(
                f"{config.flag(name)} {value} is not what sweep {folder.name} was started with "
                f"({getattr(saved, name)}); leave it out, or start a new sweep"
            )
    for name in grow:
        if name in changed:
            changed[name] = tuple(dict.fromkeys((*getattr(saved, name), *changed[name])))
    changed["draws"] = max(saved.draws or USUAL_DRAWS, given.draws or 0)
    where = {
        "jobs": None if given.ray != NO_RAY else given.jobs or saved.jobs,
        "ray": given.ray,
    }  # where it runs now
    return replace(saved, **(changed | where | {"out": folder.parent, "name": folder.name, "resume": None}))


def _spec(settings: Settings) -> "SweepSpec":
    """What the sweep compares, from completed settings. Raises UserError."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.transfer.joined import load_joined
    from ssl_app.transfer.replicates import with_replicates
    from ssl_app.transfer.sweep import SweepSpec

    names = []
    for init in settings.init:
        several = with_replicates(settings.out, init)
        if len(several) > 1:
            logger.info(f"init: {init} with its seeds, {', '.join(several[1:])}")
        names += [name for name in several if name not in names]
    starts = [load_joined(name, settings.out, settings.backbone) for name in names]
    first = next((start for start in starts if start.pretrained), None)
    if first is None:
        _refuse_strategies_of_scratch(settings)
    return SweepSpec(
        planned=[planned_of(settings, start, settings.evaluate_on) for start in starts],
        strategies=settings.strategy,
        per_class=settings.per_class,
        baseline_per_class=settings.baseline_per_class,
        draws=settings.draws or USUAL_DRAWS,
        baseline=settings.baseline == SCRATCH,
        baseline_strategies=settings.baseline_strategy,
        choose_length=settings.baseline_length == "chosen" and settings.steps is None,
        config=transfer_config(settings, first or starts[0], "within", settings.seed),
        out=settings.out,
        name=settings.name,
        settings=config.as_json(settings),
    )


def _trials(sweep: "Sweep", workers: "Workers", tracker: "Tracker") -> list[dict[str, Any]]:
    """Results of all trials, in order; those that are missing are run."""
    choosing = sweep.length_trials()
    cost = _cost(sweep, choosing, workers.at_once)
    _run_missing(sweep, choosing, cost, workers, None)
    lengths = sweep.scratch_lengths()
    for per_class, length in lengths.items():
        logger.info(f"steps of scratch at {per_class} per class: {length.how}")
    trials = sweep.trials(lengths)
    if cost is not None:
        cost.plan([one for one in trials if one.key in cost.predicted])
    transfer = next(iter(sweep.setups.values())).config
    steps = {one.per_class: transfer.steps_for(len(one.job.drawn)) for one in reversed(trials)}
    also = "" if lengths else ", scratch's too"
    logger.info(f"steps by labels per class{also}: {', '.join(f'{k}: {n}' for k, n in sorted(steps.items()))}")
    return _run_missing(sweep, trials, cost, workers, tracker)


def _cost(sweep: "Sweep", choosing: list["PlannedTrial"], workers: int) -> "SweepCost | None":
    """What is missing, and the time that it will take; None where nothing is."""
    from ssl_app.training.history import duration
    from ssl_app.transfer.sweep_cost import SweepCost

    every = [*choosing, *sweep.trials({})]
    done = sweep.done(every)
    missing = [one for one in every if one.key not in done]
    trials = len(every) - len(choosing)
    logger.info(
        f"run {sweep.folder}: {count_of(trials, 'trial')}, {sum(one not in choosing for one in missing)} to do"
    )
    if not missing:
        return None
    cost = SweepCost.measured(next(iter(sweep.setups.values())), missing, workers)
    also = f", {len(choosing)} of them to choose the length of scratch" if choosing else ""
    logger.info(
        f"{len(missing)} trainings{also}: about {duration(cost.total)}, first result in {duration(cost.first)}"
    )
    return cost


def _run_missing(
    sweep: "Sweep",
    trials: list["PlannedTrial"],
    cost: "SweepCost | None",
    workers: "Workers",
    tracker: "Tracker | None",
) -> list[dict[str, Any]]:
    """Results of some trials, in order; those that are missing are run. With a tracker they are logged there."""
    from ssl_app.training.history import duration

    done = sweep.done(trials)
    missing = [one for one in trials if one.key not in done]
    if tracker is not None:
        tracker.log_trials([_record(sweep, one, done[one.key]) for one in trials if one.key in done], sweep.folder)
    with closing(sweep.run(missing, workers)) as finished:
        for number, (one, content) in enumerate(finished, 1):
            done[one.key] = content
            assert cost is not None
            cost.finished(one.key, content["seconds"])
            if tracker is not None:
                tracker.log_trials([_record(sweep, one, content)], sweep.folder)
            what = "trial" if tracker is not None else "length of scratch"
            scored = f"{content['balanced_accuracy']:.3f} ({content['seconds']:.0f} s), {duration(cost.left)} left"
            fold = "" if one.fold is None else f", fold {one.fold}"
            about = f"{_variant(content)}, {one.per_class} per class, draw {one.job.draw}{fold}"
            logger.info(f"{what} {number} of {len(missing)}: {about}: {scored}")
            for warning in content.get("warnings", ()):
                logger.warning(f"warning: {about}: {warning}")
    return [done[one.key] for one in trials]


def _answered(
    settings: Settings, sweep: "Sweep", trials: list[dict[str, Any]], tested: "Answered", part_of: str | None
) -> dict[str, Any]:
    """Log the table and the verdict. -> what result.json adds."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.evaluation import comparison
    from ssl_app.evaluation.verdict import nearest_budget
    from ssl_app.transfer.setup import overlap_of, overlap_sentence

    seen = {name: found for name, setup in sweep.setups.items() if (found := overlap_of(setup)) is not None}
    trained = {name: setup for name, setup in sweep.setups.items() if setup.initialization.pretrained}
    outside, lengths = sweep.outside(), sweep.scratch_lengths()
    answer = comparison.answer(tested, sweep.pooled(), _around(settings, sweep, seen))
    lines, typed = list(answer.verdict), []
    if answer.next is not None:
        why, commands = answer.next
        typed = [f"{command.command(config.flag)}{out_flag(settings.out)}" for command in commands]
        lines.append(f"{why}, type {', and then '.join(typed)}.")
    verdict = "\n".join(lines) if part_of is None else f"That of the comparison {part_of}."
    for line in [*comparison.table_lines(tested.curves(sweep.pooled())), *comparison.claim_lines(answer.comparisons)]:
        logger.info(line)
    alone = comparison.alone_line(tested, sweep.pooled(), nearest_budget(list(settings.per_class)))
    if alone is not None:
        logger.info(alone)
    for line in comparison.saved_lines(answer.labels_saved_by_budget):
        logger.info(line)
    for name, setup in trained.items():
        of = setup.initialization
        if not of.ancestry_known or of.labels_learned or not seen[name].groups_known:
            logger.info(f"remark: {name}: {overlap_sentence(setup)}")
    if outside and part_of is None:
        shown = ", ".join(f"{name} ({reason})" for name, reason in outside.items())
        logger.info(f"outside the verdict: {shown}")
    if part_of is None:
        for line in lines:
            logger.info(line)
        if SCRATCH not in sweep.setups:
            logger.info("to compare with random weights, type --baseline scratch")
    return {
        "trials": trials,
        "comparisons": answer.comparisons,
        "labels_saved": answer.labels_saved,
        "labels_saved_by_budget": answer.labels_saved_by_budget,
        "scratch_steps": {per_class: vars(length) for per_class, length in lengths.items()},
        "outcome": answer.outcome,
        "verdict": verdict,
        "next": typed if part_of is None else [],
        "labels_shared": tested.reuse,
        "seen_in_pretraining": {name: found.total for name, found in seen.items()},
        "overlap": {name: overlap_sentence(setup) for name, setup in trained.items()},
        "n_test": len(next(iter(sweep.setups.values())).opened.parts.test),
        "pooled": sweep.pooled(),
    }


def _around(settings: Settings, sweep: "Sweep", seen: dict[str, "Overlap"]) -> "Around":
    """What the verdict says beside its numbers, and what the next command needs."""
    from ssl_app.evaluation.verdict import Around, SeenInPretraining, nearest_budget

    pooled, first = sweep.pooled(), next(iter(sweep.setups.values()))
    worst = max((seen[name] for name in pooled if name in seen), key=lambda found: found.total, default=None)
    per_class = nearest_budget(list(settings.per_class))
    length = sweep.scratch_lengths().get(per_class)
    start = sweep.setups[pooled[0]].initialization if pooled else first.initialization
    init = next((one for one in settings.init if start.name in (Path(one).name, Path(one).stem)), start.name)
    plain = ("backbone",) if start.pretrained and not start.settings else ()
    again = _typed(settings, *DATA, *TRAINED, *plain)
    theirs = {name: start.settings[name] for name in DATA if start.settings.get(name) is not None}
    merged = replace(settings, **(theirs | dict(again)))
    return Around(
        sweep=sweep.folder.name,
        init=init,
        replicable=bool(start.settings) and not start.members and not Path(init).is_file(),
        again=again,
        compared=_typed(replace(merged, data=merged.data or DIGITS), *DATA, "labels"),
        judged=_judged(settings, first.opened.parts),
        overlap=None if worst is None else SeenInPretraining(worst.total, worst.of),
        learned=max((sweep.setups[name].initialization.labels_learned for name in pooled), default=0),
        rising=length.steps if length is not None and length.rising else None,
        most_labels=sweep.most_labels,
    )


def _say_what_teachers_know(trials: list[dict[str, Any]]) -> None:
    """Of strategies whose class maps come from a teacher with labels outside the draws."""
    taught = [one for one in trials if one.get("teacher_labels", 0) != 0]
    if taught:
        known = [one["teacher_labels"] for one in taught if one["teacher_labels"] is not None]
        how_many = f"up to {max(known)}" if known else "it is not known how many"
        logger.info(
            f"remark: the class maps of {' and '.join(sorted({one['strategy'] for one in taught}))} come from a "
            f"teacher with labels outside the draws ({how_many}): label for label the other strategies had less"
        )


def _typed(settings: Settings, *names: str) -> tuple[tuple[str, object], ...]:
    """Those of the settings that are not left to their defaults."""
    default = Settings()
    values = [(name, getattr(settings, name)) for name in dict.fromkeys(names)]
    return tuple((name, value) for name, value in values if value != getattr(default, name))


def _judged(settings: Settings, parts: "Parts") -> str:
    """What the scores are of."""
    if parts.leakage:
        return f"test images ({'; '.join(parts.leakage)})"
    if parts.cross_validated:
        return "images by cross-validation"
    return "held-out training images" if settings.evaluate_on == "validation" else "test images"


def _completed(settings: Settings) -> Settings:
    """The settings with the inits and strategies that were left to us."""
    from ssl_app.evaluation.comparison import BASELINE

    strategies, further = _named(settings.strategy or _usual(settings)), _named(settings.baseline_strategy)
    if settings.relabel is not None:
        refuse_unused_maps([*strategies, *further])
    if BASELINE in further:
        raise SettingsError(f"--baseline-strategy names {BASELINE}, which is the baseline itself; leave it out")
    if further and settings.baseline == "none":
        raise SettingsError("--baseline-strategy has no scratch to train; leave out --baseline none")
    init = settings.init or (newest_or(None, settings.out),)
    twice = next((name for name in init if init.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"--init names {twice} twice; name each once")
    sizes = tuple(sorted(set(settings.per_class or USUAL_SIZES)))
    settings = replace(settings, strategy=strategies, baseline_strategy=further, init=init, per_class=sizes)
    return replace(settings, draws=settings.draws or USUAL_DRAWS)


def _usual(settings: Settings) -> tuple[str, ...]:
    """The strategies where the user names none; auto fits linear heads only."""
    return USUAL_STRATEGIES if settings.head == "linear" else USUAL_STRATEGIES[1:]


def _refuse_strategies_of_scratch(settings: Settings) -> None:
    """Raise SettingsError where strategies are named and there is no pretraining to try them on."""
    from ssl_app.evaluation.comparison import BASELINE

    if settings.strategy in (_usual(settings), (BASELINE,)):
        return
    others = ",".join(name for name in settings.strategy if name != BASELINE)
    raise SettingsError(
        f"there is no pretraining to train by {others} from: scratch is trained by {BASELINE}",
        fix=(Set("baseline_strategy", f"{others} in the place of --strategy"), Change("init")),
    )


def _named(strategies: tuple[str, ...]) -> tuple[str, ...]:
    """Strategies as they are spelled, each once. Raises SettingsError for one that is not there."""
    for strategy in strategies:
        strategy_of(strategy)
    return tuple(dict.fromkeys(s if ":" in s else s.replace("_", "-") for s in strategies))


def _variant(content: dict[str, Any]) -> str:
    from ssl_app.evaluation.comparison import name_of

    return name_of((content["init"], content["strategy"]))


def _record(sweep: "Sweep", one: "PlannedTrial", content: dict[str, Any]) -> "TrialRecord":
    from ssl_app.tracking import TrialRecord

    shown = {"sweep": sweep.folder.name, "arm": _variant(content)}
    for name in ("init", "strategy", "per_class", "draw", "fold"):
        if name in content:
            shown[name] = str(content[name])
    numbers = {name: float(content[name]) for name in METRICS if name in content}
    place = sweep.folder / "trials" / one.key
    return TrialRecord(f"{sweep.folder.name}/{one.key}", place, shown, one.per_class, numbers)


def _write_report(
    settings: Settings, sweep: "Sweep", trials: list[dict[str, Any]], tested: "Answered", one: RecordedRun
) -> None:
    """The table as CSV, the curves and the labels saved as PNG, all of it as one page."""
    from shlex import quote

    from ssl_app.commands import report
    from ssl_app.evaluation.labels_saved import LabelsSaved
    from ssl_app.report import plots

    columns = [
        "init",
        "strategy",
        "per_class",
        "draw",
        *(["fold"] if any("fold" in one for one in trials) else []),
        "labels_used",
        "unlabeled_used",
        "teacher_labels",
        "steps",
        "n",
        *METRICS[:-1],
        "seconds",
        "how",
    ]
    tables.write(sweep.folder / "trials.csv", columns, ([one.get(name) for name in columns] for one in trials))
    series = tested.curves(sweep.pooled())
    data = "/".join(Path(next(iter(sweep.setups.values())).dataset.name).parts[-2:])  # the figure may be shown around
    judged = _judged(settings, next(iter(sweep.setups.values())).opened.parts)
    part = f"on {judged.partition(' (')[0]}"  # what they have in common with others is no label of an axis
    plots.label_efficiency(sweep.folder / "label-efficiency.png", series, data, f"balanced accuracy {part}")
    files = ["trials.csv", "label-efficiency.png", "draws"]
    saved = [LabelsSaved(**row) for row in one.more["labels_saved_by_budget"]]
    if any(row.factor is not None for row in saved):
        files.append("labels-saved.png")
        plots.labels_saved(sweep.folder / files[-1], saved, data)
    try:
        files.append(report.write(sweep.folder, one.result().to_json()).name)
    except Exception as error:  # hours of trials are worth more than their page
        why, again = f"{type(error).__name__}: {error}", f"type ssl-app report {quote(str(sweep.folder))}"
        logger.warning(f"warning: the report could not be made ({why}); to try again, {again}")
    one.tracked.metrics({"trials": float(len(trials))}, 0)
    for name in files:
        one.tracked.artifact(sweep.folder / name)
