"""Temperature scaling: one number that makes probabilities as large as they are right (Guo et al., 2017,
arXiv:1706.04599), chosen on predictions of images that the classifier has not learned from.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

RANGE = (0.05, 20.0)  # of temperatures
LEAST = 1e-300  # probability
# standard deviation of log T before anything is seen: few labels, and folds that train on fewer of them, say too
# much of T alone. Mean calibration error on validation images, label propagation, 8 draws at 8 labels per class,
# chest X-rays and steel: without a temperature .166 and .025; without a prior .069 and .047; with .5 .065 and .043,
# the worst draw .093 and .080; with .25 .100 and .036; with smoothed targets (Platt, 1999) for a prior .094 and .158
SPREAD = 0.5
STEPS = 200  # of the search, before it is refined


def fit(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """The temperature of `tempered` that is likeliest by these images. (N, K), (N,) -> T > 0.

    The least of their log-loss, summed, and (log T / SPREAD)^2 / 2: log T is normal about 0 beforehand. So a few
    images that are all right do not ask for probabilities of 1, and many images decide alone.
    """
    from scipy.optimize import minimize_scalar

    logs, truth = _logs(probabilities), np.asarray(labels, dtype=np.int64)
    assert truth.shape == (len(logs),), (truth.shape, len(logs))
    assert len(logs), "no image to choose a temperature by"
    own = logs[np.arange(len(logs)), truth]

    def loss(log_t: float) -> float:
        inverse = np.exp(-log_t)
        largest = inverse * logs.max(axis=1)
        total = largest + np.log(np.exp(inverse * logs - largest[:, None]).sum(axis=1))
        return float((total - inverse * own).sum()) + (log_t / SPREAD) ** 2 / 2

    grid = np.linspace(np.log(RANGE[0]), np.log(RANGE[1]), STEPS)
    best = int(np.argmin([loss(log_t) for log_t in grid]))
    around = grid[max(0, best - 1)], grid[min(STEPS - 1, best + 1)]
    return float(np.exp(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-9}).x))


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
