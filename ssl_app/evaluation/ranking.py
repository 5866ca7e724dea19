"""Which of several pretrainings these images want: a ranking that recommends, and a confirmation that may claim.

The ranking has chosen by what it shows: its figures recommend and claim nothing. A confirmation is about new
pretrainings and new draws, which chose nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.difference import Difference, ScoredPart
from ssl_app.evaluation.intervals import LEVEL, Interval, common_half_width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """One method among others. All intervals hold at once."""

    name: str
    mean: float  # balanced accuracy, mean of the budgets and draws, in [0, 1]
    over_scratch: Interval
    behind_best: Interval | None  # the best minus this one; None for the best


def ranking(answers: Mapping[str, Floats], scratch: Floats, part: ScoredPart, reuse: float = 0.0) -> list[Ranked]:
    """Methods, the best first, from their right answers on the same draws and images (D, N), means over budgets.

    Intervals are Tukey's over all pairs, and never narrower than the pair's own, which covers other images too:
    scratch often varies more than what is pretrained. Simulated with ten methods and three draws, where none is
    better than scratch, some method's interval lies above zero in 1 to 3 % of cases.
    """
    scores = {name: part.balanced_accuracy(right) for name, right in answers.items()}
    order = sorted(scores, key=lambda name: (-float(scores[name].mean()), name))
    half = common_half_width(np.stack([*scores.values(), part.balanced_accuracy(scratch)]))

    def over(ours: Floats, theirs: Floats) -> Interval:
        difference = Difference.between(ours[None], theirs, part, reuse)
        own = difference.interval
        if half is None or own.high is None:
            return own
        widest = max(float(np.hypot(half, difference.images_half_width)), own.high - own.mean)
        return Interval(own.mean, own.mean - widest, own.mean + widest, own.n)

    return [
        Ranked(
            name,
            float(scores[name].mean()),
            over(answers[name], scratch),
            None if name == order[0] else over(answers[order[0]], answers[name]),
        )
        for name in order
    ]


def wanted(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The methods to take, the best first: above scratch, and not behind the best; else the first alone."""
    above = [one for one in ranked if _above_0(one.over_scratch)]
    return [one for one in above if not _behind(one)] or above or list(ranked[:1])


def advice(ranked: Sequence[Ranked], budgets: Sequence[int], draws: int, each: str, scored: str) -> str:
    """The recommendation: which methods, what cannot be separated from scratch, and what all of it is over.

    `each` is the time that each method had, `scored` on what: `5m`, `812 held-out images`.
    """
    if not ranked:
        return "None of the methods applies to these images."
    labels = " and ".join(str(budget) for budget in budgets)
    plural = "s" * (draws != 1)
    over = f"mean of {labels} labels per class, {draws} draw{plural}, one pretraining of {each} each, {scored}"
    chosen, best = wanted(ranked), ranked[0]
    leads = f"{best.name} leads scratch by {_points(best.over_scratch)} points"
    unsure = [one.name for one in ranked if not _above_0(one.over_scratch) and not _behind(one)]
    if best.over_scratch.low is None:
        return f"Try {best.name} first: {leads}, and one draw gives no interval ({over})."
    if not _above_0(chosen[0].over_scratch):
        none = f"{_all(unsure)} cannot be separated from scratch"
        return f"Try {best.name} first: {leads}; {none} ({over})."
    clauses = [f"{_either([one.name for one in chosen])} may help here", leads]
    if unsure:
        clauses.append(f"{_all(unsure)} cannot be separated from scratch")
    return f"{'; '.join(clauses)} ({over})."


@dataclass(frozen=True)
class Claim:
    """One method against another, or scratch. All intervals of a confirmation hold at once."""

    name: str
    other: str
    difference: Interval

    @property
    def better(self) -> str | None:
        """The better of the two; None where they cannot be separated."""
        if _above_0(self.difference):
            return self.name
        high = self.difference.high
        return self.other if high is not None and high < 0 else None


def confirm(ours: Mapping[str, Floats], scratch: Floats, part: ScoredPart, reuse: float = 0.0) -> list[Claim]:
    """Claims about methods that were chosen on other pretrainings, draws and images.

    ours: right answers (P, D, N) of each; scratch (D, N). `reuse` is that of `Difference.between`. Bonferroni's level
    over all of them.
    """
    names = list(ours)
    pairs = [(name, SCRATCH) for name in names] + [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    level = 1 - (1 - LEVEL) / len(pairs)
    found = []
    for name, other in pairs:
        difference = Difference.between(ours[name], scratch if other == SCRATCH else ours[other], part, reuse)
        found.append(Claim(name, other, difference.interval_at(level)))
    return found


def confirmation(claims: Sequence[Claim], over: str) -> str:
    """The claims in one sentence; `over` says what they are about."""
    clauses = []
    for one in claims:
        points = f"{_points(one.difference)} points"
        if one.better is None:
            clauses.append(f"{one.name} cannot be separated from {one.other}, {points}")
        else:
            worse = "better" if one.better == one.name else "worse"
            clauses.append(f"{one.name} is {worse} than {one.other}, {points}")
    return f"Confirmed on new pretrainings and draws: {'; '.join(clauses)} ({over})."


def _above_0(interval: Interval) -> bool:
    return interval.low is not None and interval.low > 0


def _behind(one: Ranked) -> bool:
    """Whether it is behind the best."""
    return one.behind_best is not None and _above_0(one.behind_best)


def _either(names: Sequence[str]) -> str:
    return _listed(names, "or")


def _all(names: Sequence[str]) -> str:
    return _listed(names, "and")


def _listed(names: Sequence[str], word: str) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _points(interval: Interval) -> str:
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
