"""Turn a pretrained backbone into a classifier, with few labels.

With no --data it takes the data of the pretraining, and with no --init the newest finished
pretraining in --out. The labels of the draw are all that training and selection see; the test
part is looked at once.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ssl_app import config, registry, runs
from ssl_app.commands import DRAW, RecordedRun, RunSpec, record
from ssl_app.commands.base import cache_of, hardware_of, newest_or, planned_of, transfer_config
from ssl_app.config import option
from ssl_app.errors import Set, SettingsError, Unset
from ssl_app.runs import Result
from ssl_app.settings import StageTwoSettings

if TYPE_CHECKING:
    from ssl_app.transfer.calibration import Calibration
    from ssl_app.transfer.trial import Outcome, TrialSetup

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app finetune --strategy two-stage --per-class 32
ssl-app finetune --init pretrain-20261121-101500 --data labeled.csv --group patient
ssl-app finetune --init none --strategy full-fine-tuning --per-class 8 --data folders/
ssl-app finetune --relabel my-maps --per-class 16
ssl-app finetune --init resnet18.pth --backbone resnet18 --data folders/ --per-class 16
"""


@dataclass(frozen=True)
class Settings(StageTwoSettings):
    """Settings of one transfer."""

    init: str | None = option(
        None,
        "run, checkpoint, weights file or none, or A+B: auto averages over both; default: the newest finished "
        "pretraining",
        metavar="RUN|FILE|none",
        path="file",
    )
    strategy: str = option(
        "auto",
        "transfer strategy, see ssl-app methods; or module:Class, whose code runs; auto with --head mlp is two-stage",
        metavar="S",
    )
    per_class: int | None = option(
        None, "labeled images of each class; default: all of the training part", at_least=1
    )
    draw: int = option(0, "number of the labeled draw; draws are nested in --per-class", at_least=0)
    validation: Literal["within", "separate"] = option(
        "within",
        "within: no label outside the draw is used; separate: selection on further labels, as in papers",
    )
    evaluate_on: Literal["test", "validation"] = option(
        "test", "part that is evaluated; validation is a fifth of the training part, and leaves the test part alone"
    )
    calibrate: Literal["auto", "folds", "none"] = option(
        "auto",
        "temperature of the probabilities; auto: by folds of the draw where no network is trained; folds: in any "
        "case, which trains up to five times more; none",
    )


def joined(values: Mapping[str, Any]) -> type | None:
    """The settings of the strategy that the flags or the recipe name."""
    name = _fitting(
        str(values.get("strategy", "auto")), str(values.get("head", "linear")), bool(values.get("relabel"))
    )
    config_class: type = strategy_of(name).Config
    return config_class


def _fitting(strategy: str, head: str, class_maps: bool) -> str:
    """The strategy, or the usual one of class maps, and of a head that `auto` cannot fit."""
    if class_maps and strategy == "auto":
        return "label-pooling"
    return "two-stage" if (strategy, head) == ("auto", "mlp") else strategy


def strategy_of(name: str) -> Any:
    """The class of a strategy. Raises SettingsError for what is none."""
    strategy = registry.find("transfer.strategies", name)
    for needed in ("Config", "fit"):
        if not hasattr(strategy, needed):
            raise SettingsError(
                f"--strategy {name} is no transfer strategy (no '{needed}'); derive from "
                f"ssl_app.transfer.strategies.base.Strategy"
            )
    return strategy


def refuse_unused_maps(strategies: Sequence[str]) -> None:
    """Raise SettingsError where class maps are given, and none of the strategies takes them."""
    if not any(getattr(strategy_of(name), "takes_maps", False) for name in strategies):
        raise SettingsError(
            f"class maps are given, and {' and '.join(strategies)} take{'s' * (len(strategies) == 1)} none",
            fix=(Set("strategy", "label-pooling"), Set("strategy", "relabel"), Unset("relabel")),
        )


def run(settings: Settings, own: Any = None) -> Result:
    """Train and test one classifier. `own` is the strategy's Config; None: its defaults."""
    from ssl_app.data import splits
    from ssl_app.data.summary import write_summary
    from ssl_app.training.machine import write_machine
    from ssl_app.transfer import trial
    from ssl_app.transfer.calibration import calibrate
    from ssl_app.transfer.joined import load_joined
    from ssl_app.transfer.setup import prepare

    started = time.monotonic()
    named = settings.strategy
    settings = replace(settings, strategy=_fitting(named, settings.head, settings.relabel is not None))
    if settings.strategy != named:
        why = f"{named} fits linear heads, the head is an {settings.head}"
        if settings.relabel is not None:
            why = f"{named} takes no class maps"
        logger.info(f"strategy: {settings.strategy} ({why})")
    strategy = strategy_of(settings.strategy)  # refused before anything is opened
    if settings.relabel is not None:
        refuse_unused_maps([settings.strategy])
    own = strategy.Config() if own is None else own
    runs.prepare(settings.out, settings.name, "finetune")
    init = newest_or(settings.init, settings.out)
    hardware = hardware_of(settings)
    logger.info(hardware.sentence())
    start = load_joined(init, settings.out, settings.backbone)
    setup = prepare(
        planned_of(settings, start, settings.evaluate_on),
        transfer_config(settings, start, settings.validation, settings.seed),
        hardware,
    )
    train = setup.opened.parts.train
    if settings.per_class is not None:
        splits.check_budgets(setup.dataset, train, (settings.per_class,))
    drawn = splits.draw(setup.dataset, train, settings.per_class, seed=settings.seed, draw=settings.draw)
    stored = config.as_json(settings) | {"init": init, "steps": setup.config.steps_for(len(drawn))}
    stored |= {"precision": setup.hardware.precision, "strategy_settings": config.as_json(own)}
    with record(
        RunSpec("finetune", settings.out, settings.name, stored, settings.tracking_uri), None, started
    ) as one:
        logger.info(f"run {one.folder}: {settings.strategy} on {len(drawn)} labels, draw {settings.draw}")
        splits.write_draw(one.folder / "draw.csv", setup.dataset, drawn)
        parts = {"training": setup.unlabeled, "test": setup.opened.parts.test}
        write_summary(one.folder, setup.dataset, parts, setup.opened.parts.how, setup.scaling)
        write_machine(one.folder, setup.hardware)
        one.read(setup.dataset, {DRAW: drawn, "test": setup.opened.parts.test})
        job = trial.Job(settings.strategy, drawn, settings.draw, own)
        outcome = trial.run(setup, job)
        logger.info(outcome.how)
        calibration = calibrate(setup, job, outcome, settings.calibrate, cache_of(settings.out))
        outcome, calibrated = _calibrated(outcome, calibration, _judged(settings))
        one.more = _written(settings, setup, outcome, one)
        one.more |= {"init": init, "calibration": calibrated}
        sentence = _sentence(settings, setup, one.more)
        one.note = f"{sentence}.\n\nInitialization: {init}."
    for warning in outcome.warnings:
        logger.warning(f"warning: {warning}")
    if settings.validation == "separate" and not outcome.validation_used:
        logger.info(f"remark: {settings.strategy} selects nothing on labels beside the draw, and used none of them")
    logger.info(sentence)
    return one.result()


def _calibrated(outcome: "Outcome", calibration: "Calibration", judged: str) -> tuple["Outcome", dict[str, Any]]:
    """The outcome with calibrated probabilities, and what result.json says of them."""
    from ssl_app.evaluation.calibration import calibration as measured
    from ssl_app.evaluation.temperature import tempered

    before = measured(outcome.probabilities, outcome.labels).ece
    about = {"temperature": calibration.temperature, "n": calibration.n, "how": calibration.how}
    if calibration.temperature is None:
        more = "; --calibrate folds does that" if calibration.costly else ""
        logger.info(
            f"probabilities are not calibrated ({calibration.how}{more}), {judged} calibration error {before:.3f}"
        )
        return outcome, about | {"error": before, "error_before": before}
    outcome.predictor.temperature = calibration.temperature
    found = tempered(outcome.probabilities, calibration.temperature)
    after = measured(found, outcome.labels).ece
    logger.info(
        f"probabilities are calibrated: temperature {calibration.temperature:.2f}, {calibration.how}; "
        f"{judged} calibration error {after:.3f}, before {before:.3f}"
    )
    return replace(outcome, probabilities=found), about | {"error": after, "error_before": before}


def _written(settings: Settings, setup: "TrialSetup", outcome: "Outcome", one: RecordedRun) -> dict[str, Any]:
    """Files and metrics of a trial. -> what result.json adds."""
    from ssl_app.evaluation.abstention import curve
    from ssl_app.evaluation.intervals import balanced_accuracy_interval
    from ssl_app.report import plots
    from ssl_app.transfer.predictions import write_test_predictions
    from ssl_app.transfer.setup import overlap_sentence
    from ssl_app.transfer.trained import CLASSIFIER, write_classifier

    dataset, folder = setup.dataset, one.folder
    groups = None if dataset.groups is None else [dataset.groups[index] for index in outcome.indices]
    predicted = outcome.probabilities.argmax(1)
    interval = balanced_accuracy_interval(outcome.labels, predicted, groups)
    test = dict(outcome.test) | {"low": interval.low, "high": interval.high}
    covered = curve(outcome.probabilities, outcome.labels, groups)
    write_classifier(folder / CLASSIFIER, setup, outcome.predictor, outcome.labels_seen, covered)
    write_test_predictions(folder / "test.csv", dataset, outcome)
    plots.confusion(folder / "confusion.png", test["confusion"], dataset.classes)
    if outcome.unlabeled_used:
        one.read(dataset, {"unlabeled": setup.unlabeled})
    numbers = {f"test_{k}": float(v) for k, v in test.items() if isinstance(v, int | float)}
    one.tracked.metrics(numbers, outcome.labels_used)
    for name in ("draw.csv", "test.csv", "confusion.png"):
        one.tracked.artifact(folder / name)
    one.keep_model(folder / CLASSIFIER, "test")
    return {
        "test": test,
        "abstention": [asdict(one) for one in covered],
        "labels_used": outcome.labels_used,
        "unlabeled_used": outcome.unlabeled_used,
        "teacher_labels": outcome.teacher_labels,
        "validation": "separate" if outcome.validation_used else "within",
        "how": outcome.how,
        "warnings": list(outcome.warnings),
        "overlap": overlap_sentence(setup, of_test=settings.evaluate_on == "test"),
        "unreadable": list(dataset.unreadable),
        "checkpoint": str(folder / CLASSIFIER),
    }


def _judged(settings: Settings) -> str:
    """What kind of images a classifier is evaluated on."""
    return "held-out training" if settings.evaluate_on == "validation" else "test"


def _sentence(settings: Settings, setup: "TrialSetup", more: Mapping[str, Any]) -> str:
    test, overlap, dataset = more["test"], more["overlap"], setup.dataset
    judged = _judged(settings)
    interval = f" [{test['low']:.3f}, {test['high']:.3f}]" if test["low"] is not None else ""
    unit = "images" if dataset.groups is None else f"groups ({dataset.columns.group})"
    separate = "; selected on separate labels beside the draw" if more["validation"] == "separate" else ""
    unlabeled = f" and {more['unlabeled_used']} unlabeled images" if more["unlabeled_used"] else ""
    teacher = more["teacher_labels"]
    if teacher is None:
        unlabeled += ", targets by a teacher whose labels are not known"
    elif teacher:
        unlabeled += f", targets by a teacher with {teacher} labels outside the draw"
    return (
        f"{settings.strategy} on {more['labels_used']} labels{unlabeled}: balanced accuracy "
        f"{test['balanced_accuracy']:.3f}{interval} (over {judged} {unit}), accuracy {test['accuracy']:.3f}, "
        f"macro F1 {test['macro_f1']:.3f}, n = {test['n']} {judged} images{separate}"
        f"{'; ' + overlap if overlap else ''}"
    )
