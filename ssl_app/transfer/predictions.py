"""Predictions as a table: path, label and one probability a class."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.data.dataset import Dataset
from ssl_app.transfer.trial import Outcome


def write_test_predictions(path: Path, dataset: Dataset, outcome: Outcome) -> None:
    """CSV of path, predicted label, truth and probabilities of the test images."""
    keys = [dataset.keys[index] for index in outcome.indices]
    truth = [dataset.classes[label] for label in outcome.labels]
    write_table(path, keys, dataset.classes, outcome.probabilities, truth)


def write_table(
    path: Path,
    keys: Sequence[str],
    classes: tuple[str, ...],
    probabilities: NDArray[np.float64],
    truth: Sequence[str] | None = None,
    blank: NDArray[np.bool_] | None = None,
) -> None:
    """CSV of path, label (the predicted class) and one probability a class.

    `truth` adds a column; where `blank` (N,) is True the label is left out.
    """
    with (
        runs.draft(path) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "label", *(["truth"] if truth else []), *(f"p_{name}" for name in classes)])
        for row, (key, values) in enumerate(zip(keys, probabilities, strict=True)):
            known = [truth[row]] if truth else []
            label = "" if blank is not None and blank[row] else classes[int(values.argmax())]
            writer.writerow([key, label, *known, *(f"{value:.6f}" for value in values)])
