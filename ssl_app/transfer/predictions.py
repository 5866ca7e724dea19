"""Predictions as a table: path, label and one probability a class."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app import tables
from ssl_app.data.dataset import Dataset
from ssl_app.errors import RunError
from ssl_app.transfer.trial import Outcome


def write_test_predictions(path: Path, dataset: Dataset, outcome: Outcome) -> None:
    """CSV of path, predicted label, truth and probabilities of the test images."""
    keys = [dataset.keys[index] for index in outcome.indices]
    truth = [dataset.classes[label] for label in outcome.labels]
    write_table(path, keys, dataset.classes, outcome.probabilities, truth)


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """What a classifier predicted for the test images, as its table holds it."""

    paths: tuple[str, ...]  # (N,)
    classes: tuple[str, ...]  # (K,)
    probabilities: NDArray[np.float64]  # (N, K)
    labels: NDArray[np.int64]  # (N,) place in classes


def read_test_predictions(path: Path) -> PredictionTable:
    """The table that `write_test_predictions` wrote. Raises RunError where it is damaged."""
    try:
        header, rows = tables.read(path)
        classes = tuple(name.removeprefix("p_") for name in header[3:])
        place = {name: k for k, name in enumerate(classes)}
        return PredictionTable(
            tuple(row[0] for row in rows),
            classes,
            np.array([[float(cell) for cell in row[3:]] for row in rows], dtype=np.float64),
            np.array([place[row[2]] for row in rows], dtype=np.int64),
        )
    except (ValueError, KeyError, IndexError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error})", expected="the table that finetune wrote") from error


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
    header = ("path", "label", *(("truth",) if truth else ()), *(f"p_{name}" for name in classes))

    def cells(row: int) -> list[str]:
        values = probabilities[row]
        label = "" if blank is not None and blank[row] else classes[int(values.argmax())]
        return [keys[row], label, *((truth[row],) if truth else ()), *(f"{value:.6f}" for value in values)]

    tables.write(path, header, map(cells, range(len(keys))))
