"""The verdict: one sentence on what a pretraining was worth here, fixed before the data are seen."""

from dataclasses import dataclass

from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved

STRATEGY = "two-stage"  # against scratch trained fully, balanced accuracy
PER_CLASS = 32  # or the nearest budget


@dataclass(frozen=True)
class SeenInPretraining:
    """Test images that pretraining saw, themselves or their group."""

    seen: int
    test: int


@dataclass(frozen=True)
class Evidence:
    """What the sentence is made of: mean balanced accuracies in [0, 1], and ours minus scratch over draws."""

    pretraining: str  # as the user knows it: a run, a checkpoint
    per_class: int
    ours: float
    scratch: float
    difference: Interval
    draws: int
    pretrainings: int
    saved: LabelsSaved | None
    overlap: SeenInPretraining | None
    judged: str = "test set"  # what was tested on


def nearest_budget(budgets: list[int], wanted: int = PER_CLASS) -> int:
    """The budget that the verdict is about: nearest to 32 by ratio, the smaller of two as near."""
    return min(sorted(budgets), key=lambda budget: max(budget / wanted, wanted / budget))


def sentence(evidence: Evidence) -> str:
    """The one honest sentence: finding, scores, interval and what it is over, labels saved, overlap."""
    e = evidence
    each = f"{e.per_class} label{_s(e.per_class)} per class"
    scores = (
        f"{STRATEGY} from {e.pretraining} reaches {e.ours:.3f} balanced accuracy at {each},"
        f" scratch {e.scratch:.3f}: {_points(e.difference.mean)} points{_bracket(e.difference)}"
    )
    over = f"over {_count(e.draws, 'draw')}, {_count(e.pretrainings, 'pretraining')}, one {e.judged}"
    return f"{_finding(e.difference)}: {scores} {over}{_saved(e.saved)}{_overlap(e.overlap)}."


def _finding(difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return "Undecided, one draw gives no interval (take five draws)"
    if difference.low > 0:
        return "Pretraining helped here"
    if difference.high < 0:
        return "Pretraining hurt here"
    return "Pretraining did not help here"


def _bracket(difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f" [{_points(difference.low)}, {_points(difference.high)}]"


def _saved(saved: LabelsSaved | None) -> str:
    if saved is None:
        return ""
    if saved.factor is None:
        return f"; labels saved cannot be told, because {saved.reason}"
    if saved.bound == "at least" and saved.factor <= 1:
        return f"; labels saved cannot be told without a budget above {saved.per_class} per class"
    factor = f"{saved.bound} {saved.factor:.1f}" if saved.bound else f"{saved.factor:.1f}"
    return f"; scratch needs {factor} times the labels for this score{_range(saved)}"


def _range(saved: LabelsSaved) -> str:
    if saved.low is not None and saved.high is not None:
        return f" [{saved.low:.1f}, {saved.high:.1f}]"
    if saved.low is not None:
        return f" [{saved.low:.1f}, beyond the budgets]"
    if saved.high is not None:
        return f" [below the budgets, {saved.high:.1f}]"
    return ""


def _overlap(overlap: SeenInPretraining | None) -> str:
    if overlap is None or overlap.seen == 0:
        return ""
    share = f"{overlap.seen:,} of {overlap.test:,} test images"
    return f"; {share} (or their groups) were seen in pretraining, which may flatter it"


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def _s(number: int) -> str:
    return "" if number == 1 else "s"
