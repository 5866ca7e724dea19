"""Temperature scaling: one number that makes probabilities as large as they are right (Guo et al., 2017,
arXiv:1706.04599), chosen on predictions of images that the classifier has not learned from.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

RANGE = (0.05, 20.0)  # of temperatures
LEAST = 1e-300  # probability


def fit(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with the least log-loss of `tempered`. (N, K), (N,) -> T > 0.

    The targets are smoothed: (N + 1) / (N + K) for the label, 1 / (N + K) for each other class, as Platt (1999,
    section 2.2) has it for two. Without that, a few images that are all right ask for probabilities of 1.
    """
    logs, truth = _logs(probabilities), np.asarray(labels, dtype=np.int64)
    count, classes = logs.shape
    assert truth.shape == (count,), (truth.shape, count)
    assert count, "no image to choose a temperature by"
    target = np.full(logs.shape, 1 / (count + classes))
    target[np.arange(count), truth] = (count + 1) / (count + classes)
    wanted = float((target * logs).sum())

    def slope(inverse: float) -> float:
        """Of the log-loss, which is convex in 1 / T."""
        return float((_softmax(inverse * logs) * logs).sum()) - wanted

    low, high = 1 / RANGE[1], 1 / RANGE[0]
    if slope(low) >= 0:
        return RANGE[1]
    if slope(high) <= 0:
        return RANGE[0]
    from scipy.optimize import brentq

    return 1 / float(brentq(slope, low, high, xtol=1e-9))


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """softmax(log p / T), of one classifier the softmax of its logits / T. (N, K) -> (N, K). The order stays."""
    given = np.asarray(probabilities, dtype=np.float64)
    return given if temperature == 1 else _softmax(_logs(given) / temperature)


def _logs(probabilities: ArrayLike) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), LEAST))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return found
