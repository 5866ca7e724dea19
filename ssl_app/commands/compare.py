"""Recommend a method for these images: each pretrains for the same time, then one small sweep over all of them.

Scores are taken on a fifth of the training part, which the methods have seen without labels, so that the test part is
still unseen when the chosen method is swept for good. A recommendation claims nothing: with --confirm the first two
pretrain again with new seeds and are swept on new draws and the test part. Methods that do not apply are listed with
their reason. The same command again goes on where it was stopped, given the --name that the first run printed.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, console, registry, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.base import hardware_of, out_flag, planned_of, transfer_config, workers_of
from ssl_app.config import option
from ssl_app.errors import DataError, RunError, SettingsError, count_of
from ssl_app.runs import Result
from ssl_app.settings import (
    USUAL_SIZES,
    DataSettings,
    PixelSettings,
    PretrainSettings,
    RunSettings,
    SweepSettings,
    WorkerSettings,
)

if TYPE_CHECKING:
    from ssl_app.evaluation.comparison import Answered
    from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app compare --data labeled.csv --budget 5m
ssl-app compare --data labeled.csv --budget 5m --name which --confirm
ssl-app compare --data labeled.csv --group patient --methods rotnet,sela,autoencoder --budget 20m --name which
"""
STRATEGY = "auto"  # what finetune will do with the method that is chosen
# scratch is as long as the others: methods are compared with each other
LIKE_ALL: dict[str, Any] = {"strategy": (STRATEGY,), "baseline_length": "same"}
FROZEN: dict[str, Any] = {"evaluate_on": "validation", "layers": ("pooled",), "baseline": "none"}  # of evaluate
FAILED = "failed.json"  # in the comparison's folder: methods that diverged, which going on does not try again
FAR_OFF = 0.15  # of the time that all should have had, from where the sentence tells what they had
FEW = 10  # images of a class: below it one of them moves the score by points
FINALISTS = 2  # which --confirm pretrains again
FRESH = 1000  # added to the seed: of pretrainings and draws that have chosen nothing
# may differ when a comparison goes on
APART = ("out", "name", "jobs", "tracking_uri", "max_unreadable", "max_image_mb", "confirm", "ray", "gpu_share")


@dataclass(frozen=True)
class Settings(WorkerSettings, RunSettings, PixelSettings, DataSettings):
    """Settings of a comparison."""

    methods: tuple[str, ...] = option((), "comma list of methods; default: all", metavar="M,M")
    budget: str = option("5m", "time that each method pretrains, such as 90s, 5m or 1h", metavar="TIME")
    backbone: str = option("small-resnet", "network of all of them", metavar="B")
    per_class: tuple[int, ...] = option((8, 32), "labeled images of each class", at_least=1, metavar="N,N")
    draws: int = option(3, "random choices of labels for each size; more make the intervals narrower", at_least=1)
    steps: int | None = option(
        None, "optimizer steps of a trial; default: ten a label, 300 to 1000, 30 passes at least", at_least=2
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE", path="file"
    )
    confirm: bool = option(
        False, "pretrain the first two again with three new seeds, and sweep them on new draws and the test part"
    )


def run(settings: Settings) -> Result:
    """Compare, and say which method to take."""
    from ssl_app.pretraining.time_budget import seconds_of
    from ssl_app.training.hardware import same_threads

    started = time.monotonic()
    methods = _methods(settings.methods)
    seconds_of(settings.budget)
    with same_threads():
        scored, fitting = _scored_on(settings, len(methods))
    runs.prepare_out(settings.out)
    stored = config.as_json(settings)
    about = RunSpec("compare", settings.out, settings.name, stored, settings.tracking_uri, keep=runs.SETTINGS)
    with _removed_if_none_applies(), record(about, _stopped(settings), started) as one:
        folder = one.folder
        logger.info(f"run {folder}; where it is stopped, the same command with --name {folder.name} goes on")
        pretrained, reasons = _all_pretrained(settings, methods, folder)
        more = one.more = _answer(settings, pretrained, reasons, folder.name, scored)
        if settings.confirm:
            more["confirmation"] = _confirmed(settings, [row["name"] for row in more["ranking"]], folder.name)
    best = more["wanted"][0]
    labels = "" if settings.labels is None else f" --labels {quote(str(settings.labels))}"
    flags = f"{labels}{fitting}{out_flag(settings.out)}"
    logger.info(f"to see {best} on the test part, type ssl-app sweep --init {folder.name}-{best}{flags}")
    if not settings.confirm:
        logger.info(f"to claim it, type the same command with --name {folder.name} --confirm")
    return one.result()


class NoneApplies(DataError):
    """No method can be used on these images."""

    def __init__(self, found: str, folder: Path) -> None:
        super().__init__(found)
        self.folder = folder  # of the comparison


@contextmanager
def _removed_if_none_applies() -> Iterator[None]:
    """Free the name of a comparison of nothing for the corrected command."""
    try:
        yield
    except NoneApplies as error:
        shutil.rmtree(error.folder)
        raise


def _all_pretrained(
    settings: Settings, methods: list[str], folder: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """result.json of each method's pretraining, and why others have none. Raises DataError where all have none."""
    from ssl_app.training.loop import Diverged

    pretrained: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = runs.read_json(folder / FAILED) if (folder / FAILED).is_file() else {}
    reasons: dict[str, str] = {}
    for number, method in enumerate(methods, 1):
        logger.info(f"method {number} of {len(methods)}: {method}")
        try:
            if method in failed:
                raise Diverged(failed[method])
            pretrained[method] = _pretrained(settings, method, f"{folder.name}-{method}")
        except (DataError, SettingsError, Diverged) as reason:
            why = reasons[method] = reason.sentence(config.flag)
            logger.info(f"{method} {'has failed' if isinstance(reason, Diverged) else 'does not apply'}: {why}")
            if isinstance(reason, Diverged):
                failed[method] = reason.notice.found
                runs.write_json(folder / FAILED, failed)
    if not pretrained:
        raise NoneApplies(f"none of the methods applies; {methods[0]}: {reasons[methods[0]]}", folder)
    return pretrained, reasons


def _answer(
    settings: Settings,
    pretrained: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
    name: str,
    scored: str,
) -> dict[str, Any]:
    """Sweep and evaluate what has been pretrained, print the table and the sentence. -> what result.json adds."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.evaluation import comparison
    from ssl_app.evaluation.ranking import advice, ranking, wanted

    inits = {f"{name}-{method}": method for method in pretrained}
    frozen = {}
    for init, method in [("none", SCRATCH), *inits.items()]:
        frozen[method] = _frozen(settings, init, f"{name}-evaluate-{method}", name)
        found = " and ".join(f"{100 * value:.1f} ({kind})" for kind, value in frozen[method].items())
        logger.info(f"frozen features, {'random weights' if init == 'none' else method}: {found}")
    swept = _swept(settings, tuple(inits), name)
    seconds = {method: float(one["training_seconds"]) for method, one in pretrained.items()}
    tested = _answered(settings.out / f"{name}-sweep", swept)
    means = {variant[0]: tested.mean_answers(variant) for variant in tested.variants}
    ours = {method: means[init] for init, method in inits.items()}
    ranked = ranking(ours, means[SCRATCH], tested.part, max(tested.reuse.values()))
    budgets = sorted(set(settings.per_class))
    advised = advice(ranked, budgets, settings.draws, _each(settings.budget, seconds), scored)
    rows = comparison.ranking_rows(
        ranked, tested, {m: init for init, m in inits.items()}, frozen, seconds, swept["seen_in_pretraining"]
    )
    for line in comparison.aligned(rows):
        logger.info(line)
    for one in pretrained.values():
        if one.get("warning"):
            logger.info(f"warning: {one['warning']}")
    for method, why in reasons.items():
        logger.info(f"not ranked: {method} ({why})")
    logger.info(advised)
    return {
        "ranking": [config.as_json(one) for one in ranked],
        "wanted": [one.name for one in wanted(ranked)],
        "frozen": frozen,
        "seconds_each": seconds,
        "does_not_apply": dict(reasons),
        "sweep": f"{name}-sweep",
        "overlap": {inits[init]: found for init, found in swept["overlap"].items()},
        "advice": advised,
    }


def _each(budget: str, seconds: Mapping[str, float]) -> str:
    """The time of each method: as it should have been, and as it was where that is far from it."""
    from ssl_app.pretraining.time_budget import seconds_of

    least, most = min(seconds.values()), max(seconds.values())
    if max(most / seconds_of(budget), seconds_of(budget) / least) <= 1 + FAR_OFF:
        return budget
    span = f"{least:.0f} to {most:.0f} s" if most < 90 else f"{least / 60:.1f} to {most / 60:.1f} minutes"
    return f"about {budget} ({span})"


def _methods(requested: tuple[str, ...]) -> list[str]:
    from ssl_app.commands.pretrain import method_of

    methods = list(dict.fromkeys(requested)) or registry.names("pretext")
    alone = [method for method in methods if method_of(method).standalone]
    for method in requested:
        if method not in alone:
            raise SettingsError(f"{method} cannot be compared: it learns what another run found; leave it out")
    return alone


def _scored_on(settings: Settings, methods: int) -> tuple[str, str]:
    """What the methods will be scored on, and the flag of a sweep's sizes that the labels allow, where not all.

    Says what all of it will take. Raises now what the sweep would once every method has had its time.
    """
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.data import splits
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.setup import prepare

    sweep = _shared(SweepSettings, settings, name="")(evaluate_on="validation")
    start = load_initialization(SCRATCH, settings.out, settings.backbone)
    transfer = transfer_config(sweep, start, "within", settings.seed)
    hardware = hardware_of(settings, threads=1)
    setup = prepare(planned_of(sweep, start, "validation"), transfer, hardware)
    if settings.confirm:  # which is scored on the test part: what is wrong with it is said now
        with console.without_repeats():
            parts = prepare(planned_of(sweep, start, "test"), transfer, hardware).opened.parts
        splits.check_budgets(setup.dataset, parts.train, settings.per_class)
    dataset, parts = setup.dataset, setup.opened.parts
    splits.check_budgets(dataset, parts.train, settings.per_class)
    _say_cost(settings, setup, methods)
    name, count = splits.fewest(dataset, parts.test)
    few = f", of which only {count} '{name}'" if count < FEW else ""
    fitting = [str(size) for size in USUAL_SIZES if size <= splits.fewest(dataset, parts.train)[1]]
    flag = "" if len(fitting) == len(USUAL_SIZES) else f" --per-class {','.join(fitting)}"
    return f"{len(parts.test):,} held-out images{few}", flag


def _say_cost(settings: Settings, setup: "TrialSetup", methods: int) -> None:
    """The time of all methods, of the frozen features and of the sweep, by a few timed steps from random weights."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.data import splits
    from ssl_app.evaluation.verdict import USUAL_PRETRAININGS
    from ssl_app.pretraining.time_budget import seconds_of
    from ssl_app.training.history import duration
    from ssl_app.transfer.sweep_cost import SweepCost
    from ssl_app.transfer.trial import Job
    from ssl_app.transfer.workers import PlannedTrial

    trials = []
    for per_class in sorted(set(settings.per_class), reverse=True):
        drawn = splits.draw(setup.dataset, setup.opened.parts.train, per_class, seed=settings.seed, draw=0)
        job = Job(STRATEGY, drawn, 0)
        trials += [PlannedTrial(f"{n} of {per_class}", SCRATCH, per_class, job) for n in range(methods + 1)]
    with workers_of(settings, setup.hardware, settings.threads) as workers:
        cost = SweepCost.measured(setup, trials, workers.at_once)
    trained, sweep = methods * seconds_of(settings.budget), settings.draws * cost.total
    frozen = (methods + 1) * len(setup.dataset.keys) * cost.test
    more = ""
    if settings.confirm:
        again = min(FINALISTS, methods) * USUAL_PRETRAININGS
        trained += again * seconds_of(settings.budget)
        sweep *= 1 + (again + 1) / (methods + 1)
        more = f", and {again} pretrainings and a sweep to confirm"
    logger.info(
        f"{count_of(methods, 'method')} of {settings.budget}, then {len(trials) * settings.draws} trials{more}: "
        f"about {duration(trained + sweep + frozen)}, first method in {settings.budget}"
    )


def _stopped(settings: Settings) -> Path | None:
    """The folder of the same comparison that was stopped; None where there is none."""
    if settings.name is None or not (settings.out / settings.name / runs.SETTINGS).is_file():
        return None
    folder = settings.out / settings.name
    content = runs.read_json(folder / runs.SETTINGS)
    if content["verb"] != "compare" or _kept(content["settings"]) != _kept(config.as_json(settings)):
        raise RunError(f"run {folder} was started with other settings; type those, or another --name")
    return folder


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in APART}


def _pretrained(settings: Settings, method: str, name: str) -> dict[str, Any]:
    """result.json of a method's pretraining: as it is, gone on with, or new."""
    from ssl_app.commands import pretrain

    make = _shared(PretrainSettings, settings, name=name)
    requested = make(method=method, budget=settings.budget, data=settings.data or "digits")
    return pretrain.ensured(requested)


def _swept(settings: Settings, inits: tuple[str, ...], name: str) -> Mapping[str, Any]:
    """What the sweep over all of them found."""
    make = _shared(SweepSettings, settings, name=f"{name}-sweep")
    return _sweep(make(init=inits, evaluate_on="validation", **LIKE_ALL), name)


def _sweep(settings: SweepSettings, name: str) -> Mapping[str, Any]:
    from ssl_app.commands import sweep
    from ssl_app.training.hardware import same_threads
    from ssl_app.transfer.workers import TrialDiverged

    try:
        with same_threads():
            return sweep.run(settings, part_of=name).more
    except TrialDiverged as error:
        others = " ".join(f"--init {init}" for init in settings.init if init != error.init)
        raise RunError(
            f"{error.notice.found}; to sweep the others type ssl-app sweep {others} --strategy {STRATEGY} "
            f"--evaluate-on {settings.evaluate_on}{out_flag(settings.out)}"
        ) from error


def _answered(folder: Path, swept: Mapping[str, Any]) -> "Answered":
    """The right answers of a sweep's trials."""
    from ssl_app.transfer import kept_predictions

    about = [(one["init"], one["strategy"], one["per_class"], one["draw"]) for one in swept["trials"]]
    return kept_predictions.answered(folder, about, {int(k): share for k, share in swept["labels_shared"].items()})


def _confirmed(settings: Settings, order: list[str], name: str) -> dict[str, Any]:
    """Pretrain the first of the ranking again, sweep them on the test part, and say what may be claimed."""
    import numpy as np

    from ssl_app.checkpoints import SCRATCH
    from ssl_app.evaluation.ranking import confirm, confirmation
    from ssl_app.evaluation.verdict import USUAL_PRETRAININGS
    from ssl_app.transfer.replicates import name_of

    fresh = replace(settings, seed=settings.seed + FRESH)
    inits: dict[str, list[str]] = {}
    for method in order[:FINALISTS]:
        for seed in range(fresh.seed, fresh.seed + USUAL_PRETRAININGS):
            own = name_of(f"{name}-confirm-{method}", seed, fresh.seed)
            logger.info(f"to confirm: {method}, pretraining {own}")
            _pretrained(replace(fresh, seed=seed), method, own)
            inits.setdefault(method, []).append(own)
    make = _shared(SweepSettings, fresh, name=f"{name}-confirm")
    every = tuple(init for several in inits.values() for init in several)
    swept = _sweep(make(init=every, evaluate_on="test", **LIKE_ALL), name)
    tested = _answered(settings.out / f"{name}-confirm", swept)
    means = {variant[0]: tested.mean_answers(variant) for variant in tested.variants}
    ours = {method: np.stack([means[init] for init in several]) for method, several in inits.items()}
    claims = confirm(ours, means[SCRATCH], tested.part, max(tested.reuse.values()))
    budgets = " and ".join(str(budget) for budget in sorted(set(settings.per_class)))
    over = (
        f"mean of {budgets} labels per class, {settings.draws} draws, {USUAL_PRETRAININGS} pretrainings of "
        f"{settings.budget} each, {swept['n_test']:,} test images"
    )
    sentence = confirmation(claims, over)
    logger.info(sentence)
    return {"claims": [config.as_json(one) for one in claims], "sentence": sentence, "sweep": f"{name}-confirm"}


def _frozen(settings: Settings, init: str, name: str, comparison: str) -> dict[str, float]:
    """Balanced accuracy of nearest neighbors and of a linear probe on the frozen features."""
    from ssl_app.commands import evaluate

    folder = settings.out / name
    if (folder / runs.SETTINGS).is_file():  # of what was there before, or stopped midway
        if runs.read_json(folder / runs.SETTINGS)["verb"] != "evaluate":
            raise RunError(f"run {folder} is of another verb; remove it, or type another --name")
        before = [comparison] if init == "none" else [comparison, init]
        since = max(runs.started(settings.out / run) for run in before)
        if not runs.finished(folder) or runs.started(folder) < since:
            shutil.rmtree(folder)
    if runs.finished(folder):
        found = runs.read_result(folder)
    else:
        make = _shared(evaluate.Settings, settings, name=name)
        backbone = settings.backbone if init == "none" else None
        with console.muted():
            found = evaluate.run(make(run=init, **FROZEN, backbone=backbone)).to_json()
    pooled = found["probe"][evaluate.POOLED]
    return {kind: float(pooled[kind]["balanced_accuracy"]) for kind in ("knn", "linear")}


def _shared(kind: Any, settings: Settings, name: str) -> Any:
    """Makes settings of another verb, with what it has in common with ours filled in."""
    common = {field.name for field in fields(kind)} & {field.name for field in fields(settings)} - {"budget"}
    return lambda **own: replace(kind(**{n: getattr(settings, n) for n in common}), name=name, **own)
