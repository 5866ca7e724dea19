"""The verdict: what the unlabeled images were worth here, in at most three lines, by rules fixed before the data.

Outcomes: helped (the whole interval above zero), hurt (below), no difference that matters (inside the margin), and no
difference shown (the rest), which names the gain that is still possible and what would settle it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ssl_app.errors import Run
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved

# the first that a sweep has, against scratch trained fully: balanced accuracy
STRATEGIES = (
    "auto", "two-stage", "label-propagation", "fixmatch", "self-training", "full-fine-tuning", "feature-extraction",
)  # fmt: skip
ON_LABELS = ("two-stage", "full-fine-tuning", "feature-extraction")  # those that see labeled images only
PER_CLASS = 32  # or the nearest budget
MARGIN = 0.01  # a smaller difference does not matter, or as much as the test images can show, but never more than
WIDEST_MARGIN = 0.03
MOST_DRAWS, MOST_PRETRAININGS = 30, 10  # more of them are not recommended
FEWEST_DRAWS, USUAL_PRETRAININGS = 5, 3

Typed = tuple[tuple[str, object], ...]  # settings and their values
Outcome = Literal["helped", "hurt", "no difference that matters", "no difference shown"]
HEADS: dict[Outcome, str] = {
    "helped": "{what} helped",
    "hurt": "{what} hurt",
    "no difference that matters": "No difference that matters",
    "no difference shown": "No difference shown",
}


@dataclass(frozen=True)
class SeenInPretraining:
    """Test images that pretraining saw, themselves, near copies or their group."""

    seen: int
    test: int


@dataclass(frozen=True)
class Around:
    """What the lines say beside the numbers, and what the next command needs."""

    sweep: str  # name of its run
    init: str  # the pretraining as it is typed
    replicable: bool  # whether ssl-app can make the pretraining again with another seed
    again: Typed = ()  # flags of the sweep that finetune and another sweep need too, such as the data
    compared: Typed = ()  # and those of a comparison of methods on the same images
    judged: str = "test images"
    overlap: SeenInPretraining | None = None
    learned: int = 0  # images whose labels are in the pretraining
    rising: int | None = None  # steps at which scratch was still getting better; None: it was not
    most_labels: int = 0  # a class, in the training part


@dataclass(frozen=True)
class Evidence:
    """Mean balanced accuracies in [0, 1] at one budget, ours minus scratch, and the labels saved."""

    pretrainings: tuple[str, ...]  # as the user knows them; seeds of one pretraining
    per_class: int
    ours: float
    scratch: float
    difference: Difference
    images: int  # that were tested on
    saved: LabelsSaved
    last_budget: int  # scratch's largest
    strategy: str = "two-stage"

    @property
    def head(self) -> str:
        """The outcome, and of what: most strategies use unlabeled images after pretraining too."""
        what = "Pretraining" if self.strategy in ON_LABELS else "Unlabeled images"
        return HEADS[self.outcome].format(what=what)

    @property
    def margin(self) -> float:
        """Differences up to it do not matter."""
        return min(WIDEST_MARGIN, max(MARGIN, self.difference.resolution))

    @property
    def outcome(self) -> Outcome:
        """One of the four."""
        found = self.difference.interval
        if found.low is None or found.high is None:
            return "no difference shown"
        if found.low > 0:
            return "helped"
        if found.high < 0:
            return "hurt"
        within = max(-found.low, found.high) <= self.margin
        return "no difference that matters" if within else "no difference shown"


@dataclass(frozen=True)
class Settling:
    """What would show a gain, in four of five sweeps; None where no reasonable number does."""

    gain: float
    draws: int | None
    pretrainings: int | None


def nearest_budget(budgets: list[int], wanted: int = PER_CLASS) -> int:
    """The budget that the verdict is about: nearest to 32 by ratio, the smaller of two as near."""
    return min(sorted(budgets), key=lambda budget: max(budget / wanted, wanted / budget))


def possible(e: Evidence) -> tuple[float, float] | None:
    """The losses and the gains that the interval allows, of which no score can be below 0 or above 1."""
    found = e.difference.interval
    if found.low is None or found.high is None:
        return None
    return max(found.low, -e.scratch), min(found.high, 1 - e.scratch)


def settling(evidence: Evidence) -> Settling:
    """What would show the gain that was seen, or half of the one that is still possible, or one that matters."""
    difference = evidence.difference
    pretrainings, draws = difference.table.shape
    ends = possible(evidence)
    assert ends is not None
    high = ends[1]
    gain = max(difference.mean, high / 2, min(high, MARGIN))
    more_draws = (n for n in range(draws + 1, MOST_DRAWS + 1) if difference.shown_by(pretrainings, n) <= gain)
    several = range(pretrainings + 1, MOST_PRETRAININGS + 1) if pretrainings > 1 else ()
    more = (n for n in several if difference.shown_by(n, draws) <= gain)
    return Settling(gain, next(more_draws, None), next(more, None))


def strategy_among(swept: Collection[str]) -> str | None:
    """The strategy that a verdict is about, of those swept from pretrainings: by the order above, or the only one."""
    return next((name for name in STRATEGIES if name in swept), next(iter(swept)) if len(swept) == 1 else None)


def lines(evidence: Evidence, around: Around) -> tuple[list[str], str, list[Run]]:
    """The verdict: lines of findings, why to go on, and the commands to go on with."""
    e = evidence
    which = f"{e.strategy} from {_pretrainings(e.pretrainings)}"
    whose = ", for this pretraining" if len(e.pretrainings) == 1 else ""
    finding = (
        f"{e.head}{whose}: {_percent(e.ours)} % balanced accuracy at {_labels(e.per_class)} ({which}), "
        f"scratch {_percent(e.scratch)}: {_points(e.difference.mean)} points{_bracket(e.difference.interval)}, "
        f"{_count(e.difference.table.shape[1], 'draw')}, {e.images:,} {around.judged}."
    )
    rest = [*_open(e), saved_sentence(e.saved), *_remarks(around)]
    why, command = _next(e, around)
    return [finding, " ".join(rest)], why, command


def saved_sentence(saved: LabelsSaved) -> str:
    """Labels saved at a budget, in words."""
    if saved.factor is None:
        return f"Labels saved are not known: {saved.reason}."
    more = 2 * round(saved.factor * saved.per_class)  # than scratch's last budget, where that is the bound
    if saved.bound == "at least" and saved.factor <= 1:
        return f"Labels saved are not known: scratch would have to be tried with {_labels(more)} or more."
    if saved.bound == "at most" and saved.factor >= 1:
        return f"No labels are saved: scratch needs as many for this score, or fewer{saved_range(saved)}."
    factor = f"{saved.bound} {saved.factor:.1f}" if saved.bound else f"{saved.factor:.1f}"
    further = f"; {_labels(more)} for scratch would show more" if saved.bound == "at least" else ""
    return f"Scratch needs {factor} times the labels for this score{saved_range(saved)}{further}."


def saved_range(saved: LabelsSaved) -> str:
    """The interval of the factor in brackets, with a space before it; an open end in words."""
    if saved.low is not None and saved.high is not None:
        return f" [{saved.low:.1f}, {saved.high:.1f}]"
    if saved.low is not None:
        return f" [{saved.low:.1f} or more]"
    if saved.high is not None:
        return f" [{saved.high:.1f} or less]"
    return " [not limited by these budgets]"


def _open(e: Evidence) -> list[str]:
    """What is still possible where no difference is shown, and what would settle it."""
    if e.outcome == "no difference that matters":
        return [f"Differences up to {_size(e.margin)} do not matter here."]
    if e.outcome != "no difference shown":
        return []
    ends = possible(e)
    if ends is None:
        return ["One draw gives no interval."]
    low, high = ends
    if high <= MARGIN:
        return [f"Gains above {_size(high)} are ruled out, losses up to {_size(low)} are not."]
    would = settling(e)
    still = f"Gains up to {_size(high)} are still possible"
    ways = [f"{would.draws} draws"] if would.draws else []
    ways += [f"{would.pretrainings} pretrainings"] if would.pretrainings else []
    if ways:
        return [f"{still}; {' or '.join(ways)} would show {_points(would.gain)} at this spread."]
    if e.difference.resolution > would.gain:
        return [f"{still}; {e.images:,} images cannot show less than {_size(e.difference.resolution)}."]
    return [f"{still}; {MOST_DRAWS} draws would not show {_points(would.gain)} at this spread."]


def _remarks(around: Around) -> list[str]:
    found = []
    if around.rising is not None:
        found.append(f"Scratch was still rising at {around.rising:,} steps.")
    if around.overlap is not None and around.overlap.seen:
        share = f"{around.overlap.seen:,} of {around.overlap.test:,} test images (or near copies, or their groups)"
        found.append(f"{share} were seen in pretraining, which may flatter it.")
    if around.learned:
        found.append(f"Pretraining has learned the labels of {around.learned:,} images, which scratch has not.")
    return found


def _next(e: Evidence, around: Around) -> tuple[str, list[Run]]:
    """Why to go on, and how."""
    outcome, high, init = e.outcome, e.difference.interval.high, ("init", around.init)
    if outcome == "no difference shown" and high is None:
        return "For an interval", [_sweep(around, draws=FEWEST_DRAWS)]
    if outcome == "no difference shown" and high is not None and high > MARGIN:
        would = settling(e)
        if would.draws is not None:
            return "To settle it", [_sweep(around, draws=would.draws)]
        if would.pretrainings is not None and around.replicable:
            return "To settle it", [_replicate(around, would.pretrainings), _sweep(around)]
        if e.difference.resolution > would.gain:
            wanted = int(e.images * (e.difference.resolution / would.gain) ** 2)
            about = round(wanted, 1 - len(str(wanted)))
            return f"Once about {about:,} images are labeled to test on", [Run("sweep", (init, *around.again))]
    if outcome == "helped":
        wider = tuple(n for n in (2 * e.last_budget, 4 * e.last_budget) if n <= around.most_labels)
        if e.saved.bound == "at least" and wider:
            budgets = ",".join(map(str, wider))
            return "To see how many labels scratch needs", [_sweep(around, baseline_per_class=budgets)]
        if len(e.pretrainings) == 1 and around.replicable:
            why = "To see whether other pretrainings help too"
            return why, [_replicate(around, USUAL_PRETRAININGS), _sweep(around)]
        strategy = () if e.strategy == STRATEGIES[0] else (("strategy", e.strategy),)
        return "To use it", [Run("finetune", (init, *strategy, ("per_class", e.per_class), *around.again))]
    return "To look for a method that suits these images", [Run("compare", around.compared)]


def _sweep(around: Around, **settings: object) -> Run:
    return Run("sweep", (("resume", around.sweep), *settings.items()))


def _replicate(around: Around, seeds: int) -> Run:
    return Run("pretrain", (("resume", around.init), ("seeds", seeds)))


def _pretrainings(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} pretrainings"


def _bracket(difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f" [{_points(difference.low)}, {_points(difference.high)}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _size(share: float) -> str:
    text = f"{100 * abs(share):.1f}"
    return f"{text} point{'' if text == '1.0' else 's'}"


def _labels(number: int) -> str:
    return f"{number} label{'' if number == 1 else 's'} per class"


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"
