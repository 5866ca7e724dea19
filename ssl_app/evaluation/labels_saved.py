"""Labels saved: how many times the labels scratch needs for the score that a pretraining reaches with few."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation.intervals import Interval


@dataclass(frozen=True)
class LabelsSaved:
    """Scratch's labels per class for the same score, over ours; None with a reason where it cannot be told."""

    factor: float | None
    low: float | None
    high: float | None
    bound: str | None  # "at least" beyond the last budget, "at most" below the first
    per_class: int  # our labels per class
    reason: str | None


def labels_saved(
    budgets: Sequence[int], scratch: ArrayLike, ours: ArrayLike, per_class: int, difference: Interval
) -> LabelsSaved:
    """Read our mean score off scratch's learning curve. budgets (M,), scratch (D, M), ours (D,).

    The curve is scratch's mean over log2 of labels per class, made monotone (isotonic regression: a running
    maximum would credit scratch with its luckiest draw). `difference` is the paired interval of ours minus
    scratch at `per_class`; its ends, put on our mean, are read off the same curve, so that the factor's
    interval excludes 1 where the difference's excludes 0. A budget out of reach is never extrapolated: the
    factor becomes a bound, and an end of the interval None. On a flat stretch the fewest labels count.
    """
    from sklearn.isotonic import isotonic_regression

    labels = np.asarray(budgets, dtype=np.float64)
    assert bool((np.diff(labels) > 0).all()), f"budgets {list(budgets)} do not rise"
    table = np.atleast_2d(np.asarray(scratch, dtype=np.float64))
    score = float(np.asarray(ours, dtype=np.float64).mean())
    reason = _reason(len(labels), difference)
    if reason is not None:
        return LabelsSaved(None, None, None, None, per_class, reason)
    curve = np.asarray(isotonic_regression(table.mean(axis=0)), dtype=np.float64)  # (M,)
    octaves = np.log2(labels)
    assert difference.low is not None
    assert difference.high is not None
    factor, bound = _read(octaves, curve, score, per_class)
    low, low_bound = _read(octaves, curve, score + difference.low - difference.mean, per_class)
    high, high_bound = _read(octaves, curve, score + difference.high - difference.mean, per_class)
    return LabelsSaved(
        factor,
        None if low_bound == "at most" else low,
        None if high_bound == "at least" else high,
        bound,
        per_class,
        None,
    )


def _reason(budgets: int, difference: Interval) -> str | None:
    if difference.holds_zero is None:
        return "one draw gives no interval"
    if difference.holds_zero:
        return "the interval of the difference holds zero"
    return "one budget gives no curve" if budgets < 2 else None


def _read(
    octaves: NDArray[np.float64], curve: NDArray[np.float64], score: float, per_class: int
) -> tuple[float, str | None]:
    """Labels at which the rising curve reaches the score, over ours, and whether that is only a bound."""
    if score > curve[-1]:
        return float(2 ** octaves[-1] / per_class), "at least"
    if score < curve[0]:
        return float(2 ** octaves[0] / per_class), "at most"
    right = int(np.searchsorted(curve, score, side="left"))  # the first budget at or above the score
    if right == 0:
        return float(2 ** octaves[0] / per_class), None
    share = (score - curve[right - 1]) / (curve[right] - curve[right - 1])
    octave = octaves[right - 1] + share * (octaves[right] - octaves[right - 1])
    return float(2**octave / per_class), None
