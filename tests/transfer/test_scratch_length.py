"""How long scratch trains: the better of two on a part of the first draw's labels, the rule where they are level."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ssl_app.transfer import kept_predictions
from ssl_app.transfer.scratch_length import chosen
from ssl_app.transfer.trial import Job
from ssl_app.transfer.workers import PlannedTrial

LABELS = np.arange(100) % 2
DRAWN, HELD = np.arange(100), np.arange(0, 40)
SETUP = cast(
    Any,
    SimpleNamespace(
        config=SimpleNamespace(steps_for=lambda labels: 10 * labels),
        dataset=SimpleNamespace(labels=LABELS, units=[f"u{i}" for i in range(100)]),
    ),
)


def picked(folder: Path, usual: int, longer: int) -> Any:
    """The length where so many of the 40 held-out images were right after each training."""
    trials = []
    for times, right in ((1, usual), (2, longer)):
        predicted = np.where(np.arange(40) < right, LABELS[HELD], 1 - LABELS[HELD])
        key = f"scratch-length-k50-x{times}"
        kept_predictions.write(folder, key, np.eye(2)[predicted])
        job = Job("full-fine-tuning", DRAWN[40:], 0, steps=1000 * times, tested=HELD)
        trials.append(PlannedTrial(key, "scratch", 50, job))
    return chosen(SETUP, folder, {50: DRAWN}, trials)[50]


@pytest.mark.parametrize(
    ("usual", "longer", "steps", "rising"),
    [(30, 30, 1000, False), (31, 30, 1000, False), (30, 31, 2000, False), (28, 36, 2000, True)],
)
def test_the_better_is_taken_and_rising_is_more_than_the_images_leave_open(
    tmp_path: Path, usual: int, longer: int, steps: int, rising: bool
) -> None:
    found = picked(tmp_path, usual, longer)
    assert (found.steps, found.rising) == (steps, rising)
    assert found.how == f"{steps}: {usual / 40:.3f} at 1000 steps, {longer / 40:.3f} at 2000 on 40 labels"


def test_without_folds_it_is_the_rule(tmp_path: Path) -> None:
    found = chosen(SETUP, tmp_path, {1: DRAWN[:2]}, [])[1]
    assert (found.steps, found.rising, found.how) == (20, False, "20: too few labels to choose by")
