"""Which of several pretrainings these images want: a ranking by paired scores, and one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.intervals import Interval, paired_t

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """One method among others."""

    name: str
    mean: float  # balanced accuracy, mean of the budgets and draws, in [0, 1]
    over_scratch: Interval  # paired over draws
    over_next: Interval | None  # against the one below; None for the last


def ranking(scores: Mapping[str, Sequence[float]], scratch: Sequence[float]) -> list[Ranked]:
    """Methods, the best first, from their scores on the same draws (mean of the budgets each)."""
    base = np.asarray(scratch, dtype=np.float64)
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    order = sorted(arrays, key=lambda name: (-float(arrays[name].mean()), name))
    below: list[Floats | None] = [arrays[name] for name in order[1:]] + [None]
    return [
        Ranked(
            name,
            float(arrays[name].mean()),
            paired_t(arrays[name] - base),
            None if other is None else paired_t(arrays[name] - other),
        )
        for name, other in zip(order, below, strict=True)
    ]


def advice(ranked: Sequence[Ranked], budgets: Sequence[int], draws: int, each: str) -> str:
    """The one sentence: which method, how sure, over what. `each` is the time that each was given."""
    if not ranked:
        return "None of the methods applies to these images."
    best = ranked[0]
    labels = " and ".join(str(budget) for budget in budgets)
    over = f"mean of {labels} labels per class, {draws} draw{'s' * (draws != 1)}, one pretraining of {each} each"
    against = f"{_points(best.over_scratch)} points against scratch"
    if best.over_scratch.low is None:
        return f"Undecided, one draw gives no interval: {best.name} leads, {against} ({over})."
    if best.over_scratch.low <= 0:
        return f"No method is known to help on these images: {best.name} leads, {against} ({over})."
    if best.over_next is None or best.over_next.low is None or best.over_next.low > 0:
        lead = "" if best.over_next is None else f", {_points(best.over_next)} against {ranked[1].name}, the next"
        return f"These images want {best.name}: {against}{lead} ({over})."
    return (
        f"These images want {best.name} or {ranked[1].name}: {best.name} leads, {against}, "
        f"but only {_points(best.over_next)} against {ranked[1].name} ({over})."
    )


def _points(interval: Interval) -> str:
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
