"""Turn a pretrained backbone into a classifier, with few labels.

With no --data it takes the data of the pretraining, and with no --init the newest finished
pretraining in --out. The labels of the draw are all that training and selection see; the test
part is looked at once.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

from ssl_app import config, runs
from ssl_app.config import option
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import StageTwoSettings

EXAMPLES = """
ssl-app finetune --strategy two-stage --per-class 32
ssl-app finetune --init pretrain-20261121-101500 --data labeled.csv --group patient
ssl-app finetune --init none --strategy full-fine-tuning --per-class 8 --data folders/
ssl-app finetune --init resnet18.pth --backbone resnet18 --data folders/ --per-class 16
"""


@dataclass(frozen=True)
class Settings(StageTwoSettings):
    """Settings of one transfer."""

    init: str | None = option(
        None,
        "run, checkpoint, weights file or none; default: the newest finished pretraining",
        metavar="RUN|FILE|none",
    )
    strategy: str = option("two-stage", "transfer strategy, see ssl-app methods", metavar="S")
    per_class: int | None = option(
        None, "labeled images of each class; default: all of the training part", at_least=1
    )
    draw: int = option(0, "number of the labeled draw; draws are nested in --per-class", at_least=0)
    validation: Literal["within", "held-out"] = option(
        "within",
        "within: no label outside the draw is used; held-out: selection on further labels, as in papers",
    )


def run(settings: Settings, say: Say = to_stderr) -> Result:
    """Train and test one classifier."""
    from ssl_app import handover, preparing, registry, trial
    from ssl_app.data import splits
    from ssl_app.evaluation.intervals import bootstrap_balanced_accuracy
    from ssl_app.report import plots
    from ssl_app.tracking import open_tracker
    from ssl_app.training.hardware import choose

    started = time.monotonic()
    registry.find("transfer", settings.strategy)  # refused before anything is opened
    runs.prepare(settings.out, settings.name, "finetune")
    init = settings.init or handover.newest_pretraining(settings.out)
    if settings.init is None:
        say(f"init: {init}, the newest finished pretraining in {settings.out} (--init says otherwise)")
    hardware = choose(settings.device, settings.precision, settings.threads)
    say(hardware.sentence())
    start = handover.load_initialization(init, settings.out, settings.backbone)
    bench = preparing.bench(
        settings, start, trial.recipe_of(settings, settings.validation, settings.seed), hardware, say
    )
    opened = bench.opened
    drawn = splits.draw(
        opened.dataset, opened.parts.train, settings.per_class, seed=settings.seed, draw=settings.draw
    )
    steps = bench.recipe.steps_for(len(drawn))
    stored = config.as_json(settings) | {"init": init, "steps": steps}
    folder = runs.new_run(settings.out, settings.name, "finetune", stored)
    say(f"run {folder}: {settings.strategy} on {len(drawn)} labels, draw {settings.draw}")
    with runs.whole(folder):
        tracker = open_tracker(settings.out, settings.tracking_uri, "ssl-app")
        tracked = tracker.start(folder.name, folder, stored, {"verb": "finetune"})
        status = "FAILED"
        try:
            splits.write_draw(folder / "draw.csv", opened.dataset, drawn)
            outcome = trial.run(bench, settings.strategy, drawn, settings.draw)
            groups = None if opened.dataset.groups is None else [opened.dataset.groups[row] for row in outcome.rows]
            interval = bootstrap_balanced_accuracy(
                outcome.labels, outcome.probabilities.argmax(1), groups, seed=settings.seed
            )
            test = dict(outcome.test) | {"low": interval.low, "high": interval.high}
            leaks = preparing.leak_sentence(bench)
            preparing.write_classifier(folder, bench, outcome)
            preparing.write_predictions(folder / "test.csv", opened.dataset, outcome)
            plots.confusion(folder / "confusion.png", test["confusion"], opened.dataset.classes)
            tracked.data(opened.dataset.name, opened.dataset.hash, "transfer")
            numbers = {f"test_{k}": float(v) for k, v in test.items() if isinstance(v, int | float)}
            tracked.metrics(numbers, len(drawn))
            for name in ("draw.csv", "test.csv", "confusion.png", handover.CLASSIFIER):
                tracked.artifact(folder / name)
            status = "FINISHED"
        finally:
            tracked.finish(status)
        more: dict[str, Any] = {
            "init": init,
            "test": test,
            "labels_used": outcome.labels_used,
            "validation": settings.validation,
            "how": outcome.how,
            "leaks": leaks,
            "unreadable": list(opened.dataset.unreadable),
            "checkpoint": str(folder / handover.CLASSIFIER),
        }
        result = Result("finetune", folder, time.monotonic() - started, stored, more)
        runs.write_json(folder / runs.RESULT, result.to_json())
    say(outcome.how)
    unit = "images" if groups is None else f"{opened.dataset.columns.group}s"
    say(_sentence(settings, outcome.labels_used, test, leaks, unit))
    return result


def _sentence(settings: Settings, labels: int, test: dict[str, Any], leaks: str | None, unit: str) -> str:
    interval = f" [{test['low']:.3f}, {test['high']:.3f}]" if test["low"] is not None else ""
    held_out = "; selected on held-out labels beside the draw" if settings.validation == "held-out" else ""
    return (
        f"{settings.strategy} on {labels} labels: balanced accuracy {test['balanced_accuracy']:.3f}{interval} "
        f"(bootstrap over test {unit}), accuracy {test['accuracy']:.3f}, macro F1 {test['macro_f1']:.3f}, "
        f"n = {test['n']} test images{held_out}{'; ' + leaks if leaks else ''}"
    )
