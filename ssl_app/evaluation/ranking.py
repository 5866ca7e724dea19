"""Which of several pretrainings these images want: a ranking by paired scores, and one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.intervals import Interval, common_half_width, paired_t

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """One method among others. All intervals hold at once."""

    name: str
    mean: float  # balanced accuracy, mean of the budgets and draws, in [0, 1]
    over_scratch: Interval
    behind_best: Interval | None  # the best minus this one; None for the best


def ranking(scores: Mapping[str, Sequence[float]], scratch: Sequence[float]) -> list[Ranked]:
    """Methods, the best first, from their scores on the same draws (mean of the budgets each).

    Intervals are Tukey's over all pairs, and never narrower than the pair's own: scratch often varies more than
    what is pretrained. Simulated with ten methods and three draws, where none is better than scratch, some
    method is said to help in 1 to 3 % of cases, with scratch as noisy as the methods or three times as noisy.
    """
    base = np.asarray(scratch, dtype=np.float64)
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    order = sorted(arrays, key=lambda name: (-float(arrays[name].mean()), name))
    half = common_half_width(np.stack([*arrays.values(), base]))

    def over(name: str, other: Floats) -> Interval:
        own = paired_t(arrays[name] - other)
        if half is None or own.high is None:
            return own
        widest = max(half, own.high - own.mean)
        return Interval(own.mean, own.mean - widest, own.mean + widest, own.n)

    return [
        Ranked(
            name,
            float(arrays[name].mean()),
            over(name, base),
            None if name == order[0] else over(order[0], arrays[name]),
        )
        for name in order
    ]


def wanted(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The methods to take, the best first: known to beat scratch, and not known to be behind the best."""
    known = [one for one in ranked if _above_0(one.over_scratch)]
    return [one for one in known if not _behind(one)] or known


def advice(ranked: Sequence[Ranked], budgets: Sequence[int], draws: int, each: str, scored: str) -> str:
    """The one sentence: which method, how sure, over what.

    `each` is the time that each method had, `scored` on what: `5m`, `812 held-out images`.
    """
    if not ranked:
        return "None of the methods applies to these images."
    labels = " and ".join(str(budget) for budget in budgets)
    plural = "s" * (draws != 1)
    over = f"mean of {labels} labels per class, {draws} draw{plural}, one pretraining of {each} each, {scored}"
    leads = f"{ranked[0].name} leads, {_points(ranked[0].over_scratch)} points against scratch"
    if ranked[0].over_scratch.low is None:
        return f"Undecided, one draw gives no interval: {leads} ({over})."
    chosen = wanted(ranked)
    if not chosen:
        return f"No method is known to help on these images: {leads} ({over})."
    best = chosen[0]
    against = f"{_points(best.over_scratch)} points against scratch"
    if len(ranked) == 1:
        return f"{best.name} helps on these images: {against}; no other method was ranked ({over})."
    unsure = [one.name for one in ranked if one not in chosen and not _behind(one)]
    sentence = f"These images want {_either([one.name for one in chosen])}: "
    if len(chosen) > 1:
        sentence += f"{best.name} leads, "
    sentence += against
    following = chosen[1] if len(chosen) > 1 else next((one for one in ranked if _behind(one)), None)
    if best is ranked[0] and following is not None and following.behind_best is not None:
        lead = f"{_points(following.behind_best)} against {following.name}"
        sentence += f", but only {lead}" if len(chosen) > 1 else f", {lead}, the next"
    if unsure:
        sentence += f"; {_either(unsure)} cannot be separated from scratch"
    return f"{sentence} ({over})."


def _above_0(interval: Interval) -> bool:
    return interval.low is not None and interval.low > 0


def _behind(one: Ranked) -> bool:
    """Whether it is known to be behind the best."""
    return one.behind_best is not None and _above_0(one.behind_best)


def _either(names: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _points(interval: Interval) -> str:
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
