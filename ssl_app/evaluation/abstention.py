"""Abstention: how many images are left blank below a probability, and how often the others are right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation.intervals import LEVEL

STEPS = 100  # thresholds from 0 on, below 1


@dataclass(frozen=True)
class Covered:
    """What is kept at one threshold, of images whose labels are known."""

    threshold: float  # of the largest probability
    n: int  # images, kept or not
    kept: int  # images at the threshold or above
    accuracy: float | None  # of those; None where there are none
    low: float | None  # of a 95 % interval for it
    high: float | None

    @property
    def blank(self) -> float:
        """Share of the images that are left blank, in [0, 1]."""
        return 1 - self.kept / self.n


def curve(
    probabilities: ArrayLike, labels: ArrayLike, groups: Sequence[object] | NDArray[np.generic] | None = None
) -> list[Covered]:
    """Coverage and accuracy at the thresholds 0, .01, ... .99 (El-Yaniv and Wiener, 2010). (N, K), (N,).

    Intervals are Clopper and Pearson's, which hold for few images and for none that is wrong. Images of a group are
    alike: with `groups` (N,) an interval counts the groups among the kept images, not the images.
    """
    given, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    confidence, right = given.max(axis=1), given.argmax(axis=1) == truth
    own = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    for step in range(STEPS):
        kept = confidence >= step / STEPS
        accuracy = float(right[kept].mean()) if kept.any() else None
        low, high = (None, None) if accuracy is None else exact(accuracy, len(np.unique(own[kept])))
        found.append(Covered(step / STEPS, len(truth), int(kept.sum()), accuracy, low, high))
    return found


def exact(share: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Clopper and Pearson's interval (1934) of a share of n independent images."""
    from scipy.special import betaincinv

    tail, right = (1 - level) / 2, share * n
    low = float(betaincinv(right, n - right + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, n - right, 1 - tail)) if right < n else 1.0
    return low, high
