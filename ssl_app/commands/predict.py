"""Classify images with a finished classifier: a CSV of path, label and one probability a class.

The images are scaled, cut and computed as those that the classifier was trained on.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app import config, runs
from ssl_app.config import option
from ssl_app.errors import DataError
from ssl_app.runs import Result

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app predict finetune-20261121-101500 --data new-scans/
ssl-app predict ssl-runs/my-run --data new.csv --output predicted.csv
"""


@dataclass(frozen=True)
class Settings:
    """Settings of a prediction."""

    run: str = option("", "finished finetune run: its name, or its folder", argument=True)
    data: str | None = option(None, "images to classify: whatever --data of the other verbs takes", metavar="D")
    label: str | None = option(None, "column of known labels, to score the prediction by", metavar="COLUMN")
    output: Path | None = option(
        None, "CSV to write, not there yet; default: predictions.csv in a new run", metavar="FILE"
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")
    name: str | None = option(None, "name of this run's folder; default: verb and time", metavar="NAME")
    max_unreadable: int = option(0, "unreadable images to put up with; they are listed and left out", at_least=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", metavar="NAME")
    threads: int | None = option(None, "CPU threads", at_least=1)


def run(settings: Settings) -> Result:
    """Predict; where the images carry labels of the same classes, score the prediction too."""
    import numpy as np

    from ssl_app.data import opened
    from ssl_app.data.dataset import open_dataset
    from ssl_app.data.sources.base import Columns, open_source
    from ssl_app.evaluation.metrics import classification
    from ssl_app.training import inference
    from ssl_app.training.hardware import choose
    from ssl_app.transfer import setup, trained

    started = time.monotonic()
    if settings.data is None:
        raise DataError("predict has nothing to classify; type --data FOLDER")
    runs.check_output(settings.output, (".csv",))
    finished = trained.load_classifier(runs.find_run(settings.out, settings.run))
    meta = finished.meta
    runs.prepare(settings.out, settings.name, "predict")
    hardware = choose(settings.device, "bf16" if meta["bf16"] else "fp32", settings.threads)
    dataset = open_dataset(
        open_source(settings.data, Columns(settings.label, "none", "none")),
        image_size=meta["image_size"],
        channels=meta["channels"],
        intensity=finished.pixels.intensity,
        cache=settings.out / "cache",
        max_unreadable=settings.max_unreadable,
        progress=True,
        pack_side=meta.get("pack_side"),
    )
    opened.tell(dataset)
    finished.pixels.refuse_other_depth(dataset.images.dtype, dataset.name)
    rows = np.arange(len(dataset.keys))
    probabilities = inference.probabilities(finished.classifier, rows, dataset.images, finished.pixels, hardware)
    stored = config.as_json(settings)
    folder = runs.new_run(settings.out, settings.name, "predict", stored)
    path = settings.output or folder / "predictions.csv"
    classes = tuple(meta["classes"])
    with runs.whole(folder, keep="predictions.csv"):
        setup.write_table(path, list(dataset.keys), classes, probabilities)
    more: dict[str, Any] = {"predictions": str(path), "n": len(rows), "unreadable": list(dataset.unreadable)}
    known = np.flatnonzero(dataset.labeled)
    if len(known) and set(dataset.classes) <= set(classes):
        labels = np.array([classes.index(dataset.classes[label]) for label in dataset.labels[known]])
        more["test"] = classification(probabilities[known], labels, classes)
        logger.info(
            f"against the {len(known)} labels there: balanced accuracy {more['test']['balanced_accuracy']:.3f}"
        )
    elif len(known):
        other = min(set(dataset.classes) - set(classes))
        logger.info(f"not scored: label '{other}' is none of the classifier's ({', '.join(classes)})")
    result = Result("predict", folder, time.monotonic() - started, stored, more)
    runs.write_json(folder / runs.RESULT, result.to_json())
    logger.info(f"{len(rows)} images classified: {path}")
    return result
