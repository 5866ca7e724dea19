"""Labels saved: how many times the labels scratch needs for the score that a pretraining reaches with few."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component

PER_OCTAVE = 32  # numbers of labels that are tried between a number and its double


@dataclass(frozen=True)
class LabelsSaved:
    """Scratch's labels per class for the same score, over ours; None with a reason where it cannot be told.

    An end of the interval is None where it lies beyond the budgets: they are never extrapolated.
    """

    factor: float | None
    low: float | None
    high: float | None
    bound: str | None  # of the factor: "at least" beyond the last budget, "at most" below the first
    per_class: int  # our labels per class
    reason: str | None


def labels_saved(
    budgets: Sequence[int], scratch: ArrayLike, ours: ArrayLike, found: Sequence[Difference], per_class: int
) -> LabelsSaved:
    """The factors f at which scratch with f times our labels cannot be told from us, around where both are level.

    budgets (M,), scratch (D, M), ours (P, D): scores on shared draws; `found` is the difference at each budget, for
    what its table does not hold: the variance of the test images. Each draw has a curve of its own, straight lines
    over log2 of the labels. The test is the verdict's, so that the interval holds 1 exactly where the verdict's holds
    zero. `per_class` is one of the budgets.
    """
    octaves = np.log2(np.asarray(budgets, dtype=np.float64))
    assert bool((np.diff(octaves) > 0).all()), f"budgets {list(budgets)} do not rise"
    base, table = np.asarray(scratch, dtype=np.float64), np.atleast_2d(np.asarray(ours, dtype=np.float64))
    if len(base) == 1 or len(octaves) == 1:
        reason = "one draw gives no interval" if len(base) == 1 else "one budget gives no curve"
        return LabelsSaved(None, None, None, None, per_class, reason)
    tried = _tried(octaves)
    differences = [_at(octave, octaves, base, table, found) for octave in tried]
    means = np.array([one.mean for one in differences])  # falls as scratch gets more labels
    alike = [bool(one.interval.holds_zero) for one in differences]
    same = int(np.abs(tried - np.log2(per_class)).argmin())  # where scratch has as many labels as we
    level = _level(means, same)
    low = high = level
    while low > 0 and (alike[low - 1] or (same < low and alike[same])):
        low -= 1
    while high < len(tried) - 1 and (alike[high + 1] or (same > high and alike[same])):
        high += 1
    if any(alike):  # a budget beyond a gap in which draws happen to agree is as much alike
        low, high = min(low, alike.index(True)), max(high, len(alike) - 1 - alike[::-1].index(True))
    factors = 2**tried / per_class
    bound = "at least" if means[level] > 0 and level == len(tried) - 1 else None
    bound = "at most" if means[level] < 0 and level == 0 else bound
    return LabelsSaved(
        float(factors[level]),
        None if low == 0 and (alike[0] or means[0] < 0) else float(factors[low]),
        None if high == len(tried) - 1 and (alike[-1] or means[-1] > 0) else float(factors[high]),
        bound,
        per_class,
        None,
    )


def _tried(octaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The budgets, and evenly between each two of them."""
    pieces = [
        np.linspace(a, b, max(2, round(PER_OCTAVE * (b - a))), endpoint=False)
        for a, b in itertools.pairwise(octaves.tolist())
    ]
    return np.concatenate([*pieces, octaves[-1:]])


def _level(means: NDArray[np.float64], same: int) -> int:
    """Where the difference changes its sign, going from `same` to more labels if we are better, else to fewer."""
    if means[same] > 0:
        beyond = np.flatnonzero(means[same:] <= 0)
        return same + int(beyond[0]) if len(beyond) else len(means) - 1
    below = np.flatnonzero(means[: same + 1] >= 0)
    return int(below[-1]) if len(below) else 0


def _at(
    octave: float,
    octaves: NDArray[np.float64],
    curves: NDArray[np.float64],  # (D, M)
    ours: NDArray[np.float64],
    found: Sequence[Difference],
) -> Difference:
    """Ours minus scratch with so many labels, along each draw's own curve."""
    scratch = np.array([np.interp(octave, octaves, curve) for curve in curves])  # (D,)
    images = float(np.interp(octave, octaves, [one.images.variance for one in found]))
    pool = float(np.interp(octave, octaves, [one.pool.variance for one in found]))
    first = found[0]
    return Difference(ours - scratch, Component(images, first.images.degrees), Component(pool, first.pool.degrees))
