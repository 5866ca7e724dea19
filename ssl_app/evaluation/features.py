"""Statistics of features without labels: effective rank and standard deviation."""

import numpy as np
from numpy.typing import ArrayLike


def effective_rank(features: ArrayLike) -> float:
    """Number of directions that features spread over: exp of the singular values' entropy. (N, d) -> 1 to N - 1.

    Of centered features (Roy and Vetterli, 2007). 1 where all differences lie on a line, and where there are none;
    nan where a feature is not finite.
    """
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        return float("nan")
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    total = values.sum()
    if total <= 1e-12 * max(1.0, float(np.abs(x).max())) * len(x):
        return 1.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def feature_std(features: ArrayLike) -> float:
    """Standard deviation of the L2-normalized features: root mean square distance to their mean, in [0, 1].

    0 where all point one way, near 1 where they point everywhere. A row of zeros counts as the mean direction;
    nan where a feature is not finite.
    """
    x = np.asarray(features, dtype=np.float64)
    if not np.isfinite(x).all():
        return float("nan")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    unit = np.where(length > 0, unit, unit[length[:, 0] > 0].mean(0) if (length > 0).any() else 0)
    return float(np.sqrt(np.square(unit - unit.mean(0)).sum(1).mean()))
