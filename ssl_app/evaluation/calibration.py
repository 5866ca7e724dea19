"""Calibration: whether images predicted with 80 % are right in 80 % of cases (Guo et al., 2017, arXiv:1706.04599)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BINS = 15  # of equal width, as in section 4.1 of the paper


@dataclass(frozen=True)
class Bin:
    """Images whose predicted class has a probability in (low, high]; the first bin holds 0 too."""

    low: float
    high: float
    n: int
    confidence: float | None  # mean probability of the predicted class; None without images
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """The reliability curve, and its mean distance from the diagonal."""

    ece: float  # expected calibration error, in [0, 1]
    n: int
    confidence: float  # mean probability of the predicted class
    accuracy: float
    bins: tuple[Bin, ...]

    @property
    def overconfident(self) -> bool:
        """Whether the classifier is surer, on average, than it is right."""
        return self.confidence > self.accuracy


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Calibration:
    """Reliability bins and ECE of the predicted class. (N, K) in [0, 1], (N,) -> Calibration.

    ECE is the mean of |accuracy - confidence| over bins, weighted by their images (section 2, equation 3). Of few
    images it is too large: a bin of three cannot be right in 80 % of cases. Ties go to the first class.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    assert scores.ndim == 2, scores.shape
    assert len(scores) == len(truth) > 0, (scores.shape, truth.shape)
    confidence = scores.max(axis=1)  # (N,)
    right = scores.argmax(axis=1) == truth  # (N,)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # (N,)
    counts = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, bins) / np.maximum(counts, 1)
    accuracy = np.bincount(place, right, bins) / np.maximum(counts, 1)
    found = tuple(
        Bin(
            float(edges[k]),
            float(edges[k + 1]),
            int(n),
            *((float(sure[k]), float(accuracy[k])) if n else (None, None)),
        )
        for k, n in enumerate(counts)
    )
    ece = float((counts * np.abs(accuracy - sure)).sum() / len(truth))
    return Calibration(ece, len(truth), float(confidence.mean()), float(right.mean()), found)
