"""From images and a few labels to a classifier and a verdict, within a time: pretrain, finetune and sweep in one.

Each step is a command that is printed before it runs, so that it can be typed again with other settings. Pretraining
takes a little more than half of the time, the classifier is trained on all labels of the training part, and what is
left goes into the sweep: as many labels per class and draws as fit. The same command with the --name that is printed
goes on where it was stopped.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, console, runs, tables
from ssl_app.commands import RunSpec, finetune, pretrain, record, sweep
from ssl_app.commands.base import hardware_of, jobs_at_once, out_flag, planned_of, transfer_config
from ssl_app.config import option
from ssl_app.errors import Run, RunError
from ssl_app.locks import locked
from ssl_app.runs import Result
from ssl_app.settings import (
    COLOR_METHOD,
    GRAY_METHOD,
    USUAL_SIZES,
    DataSettings,
    PixelSettings,
    PretrainSettings,
    RunSettings,
    SweepSettings,
)

if TYPE_CHECKING:
    from ssl_app.transfer.setup import Tested
    from ssl_app.transfer.sweep_cost import SweepCost
    from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app fit --data scans/ --labels labels.csv --budget 30m
ssl-app fit --data all.csv --group patient --budget 2h --name scans
"""
PRETRAINING = 0.55  # of the time
STRATEGY = "auto"
DRAWS, FEWEST_DRAWS = 5, 3
CLASSIFIER = 0.4  # of the time after pretraining, at most
FEWEST_STEPS = 100  # of the classifier, however little time there is
APART = ("out", "tracking_uri", "threads", "device", "name", "jobs")  # may differ when it goes on


@dataclass(frozen=True)
class Settings(RunSettings, PixelSettings, DataSettings):
    """Settings of the whole job."""

    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE", path="file"
    )
    budget: str = option("30m", "time for all of it, such as 10m or 2h", metavar="TIME")
    method: str | None = option(
        None,
        f"pretext method, see ssl-app methods; default: {COLOR_METHOD} where images are in color, else {GRAY_METHOD}",
        metavar="M",
    )
    backbone: str | None = option(None, "network; default: the method's", metavar="B")
    jobs: int | None = option(None, "trials of the sweep at a time; default: one a core", at_least=1)


@dataclass(frozen=True)
class Step:
    """A command, as it is printed and as it is run."""

    verb: str
    typed: tuple[tuple[str, object], ...]  # settings that are not left to their defaults

    def settings(self, kind: Any) -> Any:
        """The settings that the command line would give."""
        return config.build(kind, dict(self.typed), {})

    def command(self) -> str:
        """What a user would type."""
        return Run(self.verb, self.typed).command(config.flag)


def run(settings: Settings) -> Result:
    """Pretrain, finetune, sweep; what is done already is not done again."""
    from ssl_app.pretraining.time_budget import seconds_of
    from ssl_app.training.history import duration

    started = time.monotonic()
    seconds = seconds_of(settings.budget)
    if settings.method is not None:
        pretrain.method_of(settings.method)
    runs.prepare_out(settings.out)
    folder = _stopped(settings)
    if folder is None:
        runs.prepare(settings.out, settings.name, "fit")
        _refuse_few_labels(settings)
    about = RunSpec(
        "fit", settings.out, settings.name, config.as_json(settings), settings.tracking_uri, keep=runs.SETTINGS
    )
    with record(about, folder, started) as one:
        name = one.folder.name
        logger.info(f"run {one.folder}; where it is stopped, the same command with --name {name} goes on")
        steps = [_pretraining(settings, name, f"{PRETRAINING * seconds:.0f}s")]
        pretrained = _done(steps[0], pretrain, 1, settings.out)
        left = max(seconds - pretrained["training_seconds"], 0.2 * seconds)
        further, labels = _transfer(settings, name, left)
        steps += further
        tuned = _done(steps[1], finetune, 2, settings.out, labels)
        swept = sweep.run(_said(steps[2], 3).settings(SweepSettings)).more
        one.more = {
            "commands": [step.command() for step in steps],
            "classifier": tuned["checkpoint"],
            "test": tuned["test"],
            "verdict": swept["verdict"],
            "outcome": swept["outcome"],
            "labels_saved": swept["labels_saved"],
            "runs": [dict(step.typed)["name"] for step in steps],
        }
    spent = duration(time.monotonic() - started)
    test = tuned["test"]
    interval = "" if test["low"] is None else f" [{test['low']:.3f}, {test['high']:.3f}]"
    score = f"balanced accuracy {test['balanced_accuracy']:.3f}{interval}, n = {test['n']} test images"
    logger.info(f"done after {spent}: {tuned['checkpoint']}, {score}")
    logger.info(f"to use it, type ssl-app predict {name}-finetune --data NEW{out_flag(settings.out)}")
    return one.result()


def _pretraining(settings: Settings, name: str, budget: str) -> Step:
    chosen = tuple(
        (one, getattr(settings, one)) for one in ("backbone", "method") if getattr(settings, one) is not None
    )
    own = (("budget", budget), ("name", f"{name}-pretrain"))
    in_table = ("label",) if settings.labels is not None else ()  # --label is one of its columns
    return Step("pretrain", (*_common(settings, PretrainSettings, ("labels", "name", *in_table)), *chosen, *own))


def _transfer(settings: Settings, name: str, seconds: float) -> tuple[list[Step], dict[str, str]]:
    """The classifier on all labels, and the largest sweep that the rest of the time allows; labels by image."""
    common = _common(settings, SweepSettings, ("name", "image_size", "channels", "intensity"))
    init = ("init", f"{name}-pretrain")
    strategy = ("strategy", STRATEGY)
    size, draws, steps, labels = _fitting(settings, name, seconds)
    alone = (pair for pair in common if pair[0] != "jobs")
    shorter = () if steps is None else (("steps", steps),)
    sizes = ",".join(str(one) for one in USUAL_SIZES if one <= size)
    own = (("per_class", sizes), ("draws", draws), ("baseline_length", "same"), ("name", f"{name}-sweep"))
    return [
        Step("finetune", (*alone, init, strategy, *shorter, ("name", f"{name}-finetune"))),
        Step("sweep", (*common, init, strategy, *own)),
    ], labels


def _fitting(settings: Settings, name: str, seconds: float) -> tuple[int, int, int | None, dict[str, str]]:
    """Labels per class and draws of the largest sweep that fits; the classifier's steps where the usual do not.

    And its labels, by image.
    """
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.data import splits
    from ssl_app.training.history import duration
    from ssl_app.transfer.sweep import folds_of, smallest
    from ssl_app.transfer.sweep_cost import SweepCost
    from ssl_app.transfer.trial import Job
    from ssl_app.transfer.workers import PlannedTrial

    init = f"{name}-pretrain"
    setup = _setup(settings, init, "auto")  # as the sweep will have it: few labels are tested fold by fold
    with console.muted():
        alone = _setup(settings, init, "test") if setup.opened.parts.cross_validated else setup
    folds = folds_of(setup.opened, settings.seed, 0)
    train = alone.opened.parts.train
    most = splits.fewest(setup.dataset, smallest(setup.dataset, folds))[1]
    sizes = [size for size in USUAL_SIZES if size <= max(1, most // 2)] or [1]  # draws of all labels are all alike
    workers = jobs_at_once(settings.jobs, settings.threads, hardware_of(settings, threads=1))
    trials = []
    for size in sizes:
        for number, (part, tested) in enumerate(folds):
            drawn = splits.draw(setup.dataset, part, size, seed=settings.seed, draw=0)
            trials += [
                PlannedTrial(f"{start} f{number} {size}", start, size, Job(strategy, drawn, 0, tested=tested))
                for start, strategy in ((name, STRATEGY), (SCRATCH, "full-fine-tuning"))
            ]
    cost = SweepCost.measured(setup, trials, workers)
    everything = splits.draw(alone.dataset, train, None, seed=settings.seed, draw=0)
    last = PlannedTrial("all", name, most, Job(STRATEGY, everything, 0))
    cost.plan([last])
    usual, most_time = cost.predicted["all"], CLASSIFIER * seconds
    steps = None
    if usual > most_time:
        steps = max(FEWEST_STEPS, int(setup.config.steps_for(len(everything)) * most_time / usual))
        logger.info(f"classifier: {steps:,} steps, the usual ones would take {duration(usual)}")
    left = seconds - min(usual, most_time)
    size, draws = _largest(sizes, cost, left)
    shown = f"{draws} draws of up to {size} labels per class"
    logger.info(f"sweep: {shown} (about {duration(_spent(size, cost) * draws)} of {duration(max(0, left))} left)")
    named = {alone.dataset.keys[row]: alone.dataset.classes[alone.dataset.labels[row]] for row in everything}
    return size, draws, steps, named


def _largest(sizes: list[int], cost: "SweepCost", seconds: float) -> tuple[int, int]:
    """Most labels per class of which three draws fit, and as many as fit, up to five; else the smallest sweep."""
    for size in reversed(sizes):
        each = _spent(size, cost)
        if FEWEST_DRAWS * each <= seconds:
            return size, min(DRAWS, int(seconds / each))
    return sizes[0], FEWEST_DRAWS


def _spent(size: int, cost: "SweepCost") -> float:
    """Seconds of one draw of every size up to this one."""
    every = [cost.predicted[key] for key in cost.predicted if key != "all" and int(key.split()[-1]) <= size]
    return sum(every) / cost.workers


def _setup(settings: Settings, init: str, tested: "Tested") -> "TrialSetup":
    """The labeled set as the pretraining wants it, and what of it is evaluated."""
    from ssl_app.training.hardware import same_threads
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.setup import prepare

    own = Step("sweep", _common(settings, SweepSettings, ("name", "image_size", "channels", "intensity")))
    sweeping = own.settings(SweepSettings)
    with same_threads():
        start = load_initialization(init, settings.out, settings.backbone)
        hardware = hardware_of(settings, threads=1)
        return prepare(planned_of(sweeping, start, tested), transfer_config(sweeping, start, "within", 0), hardware)


def _refuse_few_labels(settings: Settings) -> None:
    """Raise UserError now for what would be wrong with the labels after the pretraining."""
    with console.muted():
        _setup(settings, "none", "test")


def _done(step: Step, verb: Any, number: int, out: Path, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """result.json of a step: as it is, gone on with, or new. Of a classifier `labels` are those of its images."""
    _said(step, number)
    name = str(dict(step.typed)["name"])
    if (out / name / runs.SETTINGS).is_file() and runs.read_json(out / name / runs.SETTINGS)["verb"] != step.verb:
        raise RunError(f"run {out / name} is of another verb; remove it, or type another --name")
    if verb is pretrain:
        return pretrain.ensured(step.settings(PretrainSettings))
    requested = step.settings(verb.Settings)
    if runs.finished(out / name):
        _refuse_another(out / name, config.as_json(requested), labels or {})
        found: dict[str, Any] = runs.read_result(out / name)
        return found
    if (out / name).is_dir():
        with locked(out / name):
            shutil.rmtree(out / name)  # killed in its middle, and a classifier has no checkpoint to go on from
    return dict(verb.run(requested).to_json())


def _refuse_another(folder: Path, requested: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Raise RunError where a finished classifier is of other settings or labels.

    How long it trained was settled by the time that was left.
    """
    kept = runs.read_json(folder / runs.SETTINGS)["settings"]
    alike = [key for key in requested if key not in (*APART, "steps", "precision")]
    unlike = [key for key in alike if requested[key] is not None and kept.get(key) != requested[key]]
    if unlike:
        raise RunError(f"run {folder} is of other settings ({', '.join(unlike)}); remove it, or type another --name")
    drawn = {path: label for path, label, *_ in tables.read(folder / "draw.csv")[1]}
    changed = sum(drawn.get(key) != labels.get(key) for key in {*drawn, *labels})
    if changed:
        raise RunError(
            f"run {folder} was trained on other labels ({changed} changed); remove it, or type another --name"
        )


def _said(step: Step, number: int) -> Step:
    logger.info(f"step {number} of 3: {step.command()}")
    return step


def _common(settings: Settings, kind: Any, without: Iterable[str]) -> tuple[tuple[str, object], ...]:
    """What is not left to its default, of the settings that another verb has too."""
    default, theirs = Settings(), {field.name for field in fields(kind)}
    names = [field.name for field in fields(Settings) if field.name in theirs and field.name not in without]
    values = {name: getattr(settings, name) for name in names if name not in ("budget", "method", "backbone")}
    return tuple((name, value) for name, value in values.items() if value != getattr(default, name))


def _stopped(settings: Settings) -> Path | None:
    """The folder of the same job that was stopped; None where there is none."""
    if settings.name is None or not (settings.out / settings.name / runs.SETTINGS).is_file():
        return None
    folder = settings.out / settings.name
    content = runs.read_json(folder / runs.SETTINGS)
    ours = {key: value for key, value in config.as_json(settings).items() if key not in APART}
    theirs = {key: value for key, value in content["settings"].items() if key not in APART}
    if content["verb"] != "fit" or ours != theirs:
        raise RunError(f"run {folder} was started with other settings; type those, or another --name")
    return folder
