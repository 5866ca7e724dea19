"""Classify images with a finished classifier: a CSV of path, label and one probability a class.

The images are scaled, cut and computed as those that the classifier was trained on. With --abstain 0.9
a label is left blank where its probability is lower, and the log says what that came to on the
classifier's test images.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.base import cache_of, names_of
from ssl_app.config import option
from ssl_app.errors import DataError, SettingsError, count_of
from ssl_app.runs import Result
from ssl_app.settings import MAX_IMAGE_MB, FileSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.data.dataset import Dataset
    from ssl_app.transfer.trained import TrainedClassifier

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app predict finetune-20261121-101500 --data new-scans/
ssl-app predict ssl-runs/my-run --data new.csv --output predicted.csv
ssl-app predict my-run --data new-scans/ --abstain 0.9
"""


@dataclass(frozen=True)
class Settings(FileSettings):
    """Settings of a prediction."""

    run: str = option("", "finished finetune run: its name, or its folder", argument=True)
    data: str | None = option(
        None, "images to classify: whatever --data of the other verbs takes", metavar="D", path="any"
    )
    label: str | None = option(None, "column of known labels, to score the prediction by", metavar="COLUMN")
    abstain: float | None = option(
        None, "probability below which the label is left blank, in hundredths", at_least=0, at_most=0.99, metavar="P"
    )
    output: Path | None = option(
        None, "CSV to write, not there yet; default: predictions.csv in a new run", metavar="FILE"
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")
    name: str | None = option(None, "name of this run's folder; default: verb and time", metavar="NAME")
    max_unreadable: int = option(0, "unreadable images to allow; they are listed and left out", at_least=0)
    max_image_mb: int = option(
        MAX_IMAGE_MB, "largest decoded image in megabytes; larger ones are unreadable", at_least=1
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", metavar="NAME")
    threads: int | None = option(None, "CPU threads", at_least=1)


def run(settings: Settings) -> Result:
    """Predict; where the images carry labels of the same classes, score the prediction too."""
    from ssl_app.data.loading import every_row
    from ssl_app.data.opened import describe, open_images
    from ssl_app.data.sources.base import UNUSED, Columns
    from ssl_app.data.spec import DataSpec
    from ssl_app.training.hardware import choose
    from ssl_app.training.inference import probabilities
    from ssl_app.transfer.predictions import write_table
    from ssl_app.transfer.trained import load_classifier

    started = time.monotonic()
    if settings.data is None:
        raise DataError("predict has nothing to classify; type --data FOLDER")
    runs.check_output(settings.output, (".csv",))
    if settings.abstain is not None and not math.isclose(100 * settings.abstain, round(100 * settings.abstain)):
        raise SettingsError(f"--abstain is {settings.abstain}; expected hundredths, such as 0.9 or 0.95")
    trained = load_classifier(runs.find_run(settings.out, settings.run))
    runs.prepare(settings.out, settings.name, "predict")
    hardware = choose(settings.device, trained.precision, settings.threads)
    columns = Columns(settings.label, UNUSED, UNUSED, trained.meta.get("axis"), *names_of(vars(settings)))
    data = DataSpec(
        settings.data,
        cache_of(settings.out),
        columns,
        max_unreadable=settings.max_unreadable,
        max_image_mb=settings.max_image_mb,
    )
    dataset = open_images(data, trained.pixels)
    describe(dataset)
    rows = every_row(dataset.images, trained.scaling, trained.pixels.size, dataset.name, dataset.value_units)
    found = probabilities(trained.predictor, rows, hardware)
    about = RunSpec("predict", settings.out, settings.name, config.as_json(settings), keep="predictions.csv")
    with record(about, None, started) as one:
        path = settings.output or one.folder / "predictions.csv"
        blank = found.max(axis=1) < (settings.abstain or 0.0)
        write_table(path, list(dataset.keys), trained.classes, found, blank=blank)
        one.more = {"predictions": str(path), "n": len(dataset.keys), "unreadable": list(dataset.unreadable)}
        one.more |= {"calibrated": trained.meta.get("temperature") is not None}
        if settings.abstain is not None:
            one.more |= {"abstained": _abstained(settings.abstain, trained, blank)}
        one.more |= _scored(dataset, found, trained)
    if not one.more["calibrated"]:
        logger.info("the probabilities are not calibrated: they may be too high, or too low")
    logger.info(f"{count_of(len(dataset.keys), 'image')} classified: {path}")
    return one.result()


def _abstained(threshold: float, trained: "TrainedClassifier", blank: "NDArray[np.bool_]") -> dict[str, Any]:
    """How many labels are left blank, here and among the classifier's test images. -> for result.json."""
    counts = {"threshold": threshold, "blank": int(blank.sum()), "share": float(blank.mean())}
    logger.info(f"{blank.sum()} of {count_of(len(blank), 'label')} left blank, of a probability below {threshold:g}")
    known = next((one for one in trained.abstention if math.isclose(one.threshold, threshold)), None)
    if known is None:
        logger.info("what that does to the accuracy is unknown: the run was made by an earlier version")
        return counts | {"test": None}
    rest = "no label was left"
    if known.accuracy is not None:
        whole = trained.abstention[0].accuracy
        rest = f"accuracy of the rest {known.accuracy:.3f} [{known.low:.3f}, {known.high:.3f}], of all {whole:.3f}"
    logger.info(f"on the {known.n} test images of the run: {100 * known.blank:.0f} % left blank, {rest}")
    return counts | {"test": asdict(known) | {"blank": known.blank}}


def _scored(dataset: "Dataset", found: "NDArray[np.float64]", trained: "TrainedClassifier") -> dict[str, Any]:
    """Metrics against the labels of the data, where they are of the classifier's classes. -> for result.json.

    Of images whose labels it was trained on too: those are counted, and the others scored alone.
    """
    import numpy as np

    from ssl_app.evaluation.metrics import classification

    known, classes = np.flatnonzero(dataset.labeled), trained.classes
    if not len(known):
        return {}
    others = set(dataset.classes) - set(classes)
    if others:
        logger.info(f"not scored: label '{min(others)}' is none of the classifier's ({', '.join(classes)})")
        return {}
    labels = np.array([classes.index(dataset.classes[label]) for label in dataset.labels[known]])
    test = classification(found[known], labels, classes)
    logger.info(
        f"against the {count_of(len(known), 'label')} of the data: balanced accuracy {test['balanced_accuracy']:.3f}"
    )
    learned = np.isin(dataset.content[known], trained.labeled) if trained.labeled is not None else None
    if learned is None:
        logger.info("whether it was trained on some of these labels is not known")
        return {"test": test, "trained_on": None}
    count = int(learned.sum())
    if not count:
        return {"test": test, "trained_on": 0}
    if count == len(known):
        logger.warning("warning: it was trained on all of these labels, and says nothing of other images by them")
        return {"test": test, "trained_on": count, "test_of_others": None}
    others_alone = classification(found[known[~learned]], labels[~learned], classes)
    logger.warning(
        f"warning: it was trained on {count} of these labels; balanced accuracy on the other {len(known) - count} "
        f"{others_alone['balanced_accuracy']:.3f}"
    )
    return {"test": test, "trained_on": count, "test_of_others": others_alone}
