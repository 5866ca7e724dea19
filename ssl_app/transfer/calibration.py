"""Calibration of a trained classifier: its temperature, by predictions of labels that were held out of training.

The predictor's own training images cannot say how sure it may be: it has learned them. So the strategy is run again
on parts of the draw, as it was run on the whole, and predicts the rest.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssl_app import registry
from ssl_app.evaluation import temperature
from ssl_app.training.inference import probabilities
from ssl_app.transfer import trial
from ssl_app.transfer.trial import Job, Outcome, TrialSetup

logger = logging.getLogger(__name__)

Wanted = Literal["auto", "folds", "none"]


@dataclass(frozen=True)
class Calibration:
    """A temperature, or why there is none."""

    temperature: float | None
    n: int  # labels that it was chosen by
    how: str
    costly: bool = False  # whether there is none because folds would train networks


def calibrate(setup: TrialSetup, job: Job, outcome: Outcome, wanted: Wanted, cache: Path) -> Calibration:
    """The temperature of a trial's predictor. `cache` is a folder for features while they are needed.

    Separate validation labels choose it where there are some. Else folds of the draw do: with `auto` where the
    strategy trains heads alone, on frozen features, which takes seconds; with `folds` in any case.
    """
    dataset, count = setup.dataset, len(job.drawn)
    if wanted == "none":
        return Calibration(None, 0, "as set")
    if setup.config.validation == "separate":
        val = setup.opened.parts.val
        found = probabilities(outcome.predictor, setup.rows(val), setup.hardware)
        chosen = temperature.fit(found, dataset.labels[val])
        return Calibration(chosen, len(val), f"chosen on {len(val)} separate labels")
    if _teacher_knows(setup, job):
        return Calibration(None, 0, "the teacher of the class maps may know the labels of the draw: none is held out")
    folds = trial.draw_of(setup, job, 0).folds()
    if folds is None:
        return Calibration(None, 0, f"{count} labels cannot be folded, none can be held out")
    trained = bool(outcome.history)
    if trained and wanted == "auto":
        return Calibration(None, 0, f"{len(folds)} folds would train the network {len(folds)} times more", True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as kept:
        reused = setup if trained else replace(setup, cache=Path(kept))
        parts = list(_held_out(reused, job, outcome, folds))
    chosen = temperature.fit(np.concatenate([found for found, _ in parts]), np.concatenate([own for _, own in parts]))
    return Calibration(chosen, count, f"chosen by {len(folds)} folds of the {count} labels")


def _teacher_knows(setup: TrialSetup, job: Job) -> bool:
    """Whether the targets come from a teacher that has learned labels of the draw, or may have."""
    if setup.maps is None or not registry.find("transfer.strategies", job.strategy).takes_maps:
        return False
    labeled = setup.maps.index.labeled
    return labeled is None or bool(np.isin(setup.dataset.content[job.drawn], labeled).any())


def _held_out(
    setup: TrialSetup, job: Job, outcome: Outcome, folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Probabilities and labels of each fold, by the strategy on the others: as many steps, and its rules alike."""
    whole = trial.budget_of(setup, job)
    for number, (fit, held) in enumerate(folds, start=1):
        if outcome.history:
            logger.info(f"calibration: training {number} of {len(folds)}, on {len(fit)} of {len(job.drawn)} labels")
        part = replace(
            job, drawn=job.drawn[fit], tested=job.drawn[held], steps=outcome.steps, per_class=whole.per_class
        )
        found = trial.run(setup, part)
        yield found.probabilities, found.labels
