"""From the answers of a sweep's trials to what it says: paired differences, labels saved, and the verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.checkpoints import SCRATCH
from ssl_app.errors import Run, count_of
from ssl_app.evaluation import verdict
from ssl_app.evaluation.difference import Difference, ScoredPart
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved, labels_saved
from ssl_app.evaluation.ranking import Ranked

METRIC = "balanced_accuracy"
BASELINE = "full-fine-tuning"  # strategy of scratch that all else is compared with
Floats = NDArray[np.float64]
Variant = tuple[str, str]  # (init, strategy)
Trial = tuple[str, str, int, int]  # init, strategy, labels per class, draw


@dataclass(frozen=True)
class Point:
    """Scores at one budget, one for each draw and pretraining, and the interval of their mean.

    It holds for other draws and test images, and for other pretrainings where there are several.
    """

    scores: list[float]
    interval: Interval


@dataclass(frozen=True, eq=False)
class Answered:
    """What trials answered for the test images: (N,) of 0 and 1, where 1 is right."""

    part: ScoredPart
    right: Mapping[Trial, NDArray[np.bool_]]
    reuse: Mapping[int, float] = field(default_factory=dict)  # of labels, by labels per class: `reuse_of`

    def difference(self, ours: Floats, theirs: Floats, *budgets: int) -> Difference:
        """Of right answers (P, D, N) and (D, N), with so many labels per class."""
        return Difference.between(ours, theirs, self.part, max(self.reuse.get(budget, 0.0) for budget in budgets))

    @cached_property
    def variants(self) -> dict[Variant, dict[int, list[int]]]:
        """Labels per class and draws of each variant."""
        found: dict[Variant, dict[int, list[int]]] = {}
        for init, strategy, per_class, draw in sorted(self.right):
            found.setdefault((init, strategy), {}).setdefault(per_class, []).append(draw)
        return found

    @property
    def scratch(self) -> Variant | None:
        """The variant from random weights, trained fully."""
        return next((variant for variant in self.variants if variant == (SCRATCH, BASELINE)), None)

    def answers(self, variant: Variant, per_class: int, draws: Sequence[int]) -> Floats:
        """Right answers on some draws, (D, N)."""
        return np.stack([self.right[(*variant, per_class, draw)] for draw in draws]).astype(np.float64)

    def mean_answers(self, variant: Variant) -> Floats:
        """Right answers on the draws that all budgets have, as their mean over the budgets, (D, N)."""
        budgets = self.variants[variant]
        draws = sorted(set.intersection(*(set(draws) for draws in budgets.values())))
        return np.asarray(np.mean([self.answers(variant, budget, draws) for budget in budgets], axis=0))

    def curves(self, pretrainings: Sequence[str]) -> dict[str, dict[int, Point]]:
        """Scores by labels per class of each variant, by its name; those of these pretrainings are one."""
        alike: dict[str, list[Variant]] = {}
        for init, strategy in self.variants:
            several = init in pretrainings and len(pretrainings) > 1
            name = f"{strategy} from {len(pretrainings)} pretrainings" if several else name_of((init, strategy))
            alike.setdefault(name, []).append((init, strategy))
        return {name: self.curve(*variants) for name, variants in alike.items()}

    def curve(self, *variants: Variant) -> dict[int, Point]:
        """Scores by labels per class, of several as of one, at the budgets and on the draws that all of them have."""
        tables = [self.variants[variant] for variant in variants]
        found = {}
        for budget in tables[0]:
            draws = sorted(set.intersection(*(set(table.get(budget, ())) for table in tables)))
            if draws:
                found[budget] = self._point(variants, budget, draws)
        return found

    def _point(self, variants: Sequence[Variant], budget: int, draws: list[int]) -> Point:
        right = np.stack([self.answers(variant, budget, draws) for variant in variants])
        difference = self.difference(right, np.zeros((1, 1)), budget)
        return Point(difference.table.ravel().tolist(), difference.interval)


@dataclass(frozen=True)
class Answer:
    """What a sweep says."""

    comparisons: list[dict[str, Any]]
    labels_saved: dict[str, Any] | None
    labels_saved_by_budget: list[dict[str, Any]]
    outcome: str | None
    verdict: list[str]  # lines
    next: tuple[str, list[Run]] | None  # why to go on, and the commands


def answer(tested: Answered, pretrainings: Sequence[str], around: verdict.Around) -> Answer:
    """Compare every variant with scratch, the verdict's strategy with the others, and say what pretraining was worth.

    `pretrainings` are the inits that the verdict pools: seeds of one pretraining.
    """
    comparisons, table = _comparisons(tested), tested.variants
    scratch = tested.scratch
    strategy = strategy_of(table, pretrainings)
    variants = [(init, strategy) for init in pretrainings if strategy is not None and (init, strategy) in table]
    if scratch is None or strategy is None or not variants:
        missing = SCRATCH if scratch is None else f"{' or '.join(verdict.STRATEGIES[:2])} from a pretraining"
        return Answer(comparisons, None, [], None, [f"No verdict: the sweep holds no {missing}."], None)
    per_class = verdict.nearest_budget(sorted(table[variants[0]]))
    saved = {budget: _saved(tested, variants, budget) for budget in table[variants[0]]}
    draws = table[scratch][per_class]
    ours = np.stack([tested.answers(variant, per_class, draws) for variant in variants])
    base = tested.answers(scratch, per_class, draws)
    evidence = verdict.Evidence(
        pretrainings=tuple(init for init, _ in variants),
        per_class=per_class,
        ours=float(tested.part.balanced_accuracy(ours).mean()),
        scratch=float(tested.part.balanced_accuracy(base).mean()),
        difference=tested.difference(ours, base, per_class),
        images=len(tested.part.labels),
        saved=saved[per_class],
        last_budget=max(table[scratch]),
        strategy=strategy,
    )
    lines, why, commands = verdict.lines(evidence, around)
    return Answer(
        comparisons,
        asdict(saved[per_class]),
        [asdict(one) for one in saved.values()],
        evidence.outcome,
        lines,
        (why, commands),
    )


def strategy_of(variants: Iterable[Variant], pretrainings: Sequence[str]) -> str | None:
    """The strategy that the verdict is about, of those that a sweep has from these pretrainings."""
    return verdict.strategy_among({strategy for init, strategy in variants if init in pretrainings})


def _saved(tested: Answered, variants: Sequence[Variant], per_class: int) -> LabelsSaved:
    """Labels saved at one budget, against scratch's own curve."""
    scratch = tested.scratch
    assert scratch is not None
    budgets = tested.variants[scratch]
    draws = sorted(set.intersection(*(set(draws) for draws in budgets.values())))
    ours = np.stack([tested.answers(variant, per_class, draws) for variant in variants])
    theirs = {budget: tested.answers(scratch, budget, draws) for budget in budgets}
    found = [tested.difference(ours, theirs[budget], per_class, budget) for budget in budgets]
    curves = np.stack([tested.part.balanced_accuracy(theirs[budget]) for budget in budgets], axis=-1)
    return labels_saved(list(budgets), curves, tested.part.balanced_accuracy(ours), found, per_class)


def _comparisons(tested: Answered) -> list[dict[str, Any]]:
    """Paired differences over draws: each variant minus scratch, the verdict's minus each other of its init."""
    found, table, scratch = [], tested.variants, tested.scratch
    main = strategy_of(table, [init for init, _ in table if init != SCRATCH])
    for init, strategy in table:
        if scratch is not None and (init, strategy) != scratch:
            found += _pairs(tested, (init, strategy), scratch)
            found += _with_half(tested, (init, strategy), scratch)
        if strategy == main:
            for other in [variant for variant in table if variant[0] == init and variant[1] != strategy]:
                found += _pairs(tested, (init, strategy), other)
    return found


def _pairs(tested: Answered, ours: Variant, other: Variant) -> list[dict[str, Any]]:
    """One variant minus another at each budget, and (per_class null) on the mean of the budgets from 8 to 64."""
    shared = sorted(set(tested.variants[ours]) & set(tested.variants[other]))
    found = [_row(tested, ours, other, [(budget, budget)]) | {"per_class": budget} for budget in shared]
    middle = [(budget, budget) for budget in shared if 8 <= budget <= 64]
    if len(middle) > 1:
        found.append(_row(tested, ours, other, middle) | {"per_class": None})
    return found


def _with_half(tested: Answered, ours: Variant, other: Variant) -> list[dict[str, Any]]:
    """One variant minus another that has twice the labels: the articles' claim, at each budget that allows it."""
    found = []
    for budget in tested.variants[ours]:
        if 2 * budget in tested.variants[other]:
            row = _row(tested, ours, other, [(budget, 2 * budget)])
            against = row["against"] | {"per_class": 2 * budget}
            found.append(row | {"per_class": budget, "against": against})
    return found


def _row(tested: Answered, ours: Variant, other: Variant, budgets: list[tuple[int, int]]) -> dict[str, Any]:
    """The paired interval of ours minus other, over draws and test images, on the mean of pairs of budgets."""
    table = tested.variants
    every = [set(table[ours][a]) & set(table[other][b]) for a, b in budgets]
    draws = sorted(set.intersection(*every))
    apart = [tested.answers(ours, a, draws) - tested.answers(other, b, draws) for a, b in budgets]
    every_budget = [budget for pair in budgets for budget in pair]
    found = tested.difference(np.mean(apart, axis=0)[None], np.zeros((1, 1)), *every_budget).interval
    about = {"init": ours[0], "strategy": ours[1], "against": {"init": other[0], "strategy": other[1]}}
    return about | {"metric": METRIC} | asdict(found)


def claim_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """For people: the verdict's strategy against scratch with twice the labels, a line a budget."""
    lines = []
    had = {one["strategy"] for one in comparisons if one["init"] != SCRATCH}
    main = verdict.strategy_among(had)
    of_main = [one for one in comparisons if one["init"] != SCRATCH and one["strategy"] == main]
    for one in of_main:
        if "per_class" in one["against"] and one["low"] is not None:
            points = f"{100 * one['mean']:+.1f} points [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
            twice = one["against"]["per_class"]
            lines.append(
                f"{one['init']} at {one['per_class']} per class minus scratch at {twice}: {points}, n = {one['n']}"
            )
    return lines


def saved_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For people: labels saved at every budget, a line each."""
    found = [LabelsSaved(**row) for row in rows]
    return [f"{one.per_class} per class: {verdict.saved_sentence(one)}" for one in found]


def ranking_rows(
    ranked: Sequence[Ranked],
    tested: Answered,
    inits: Mapping[str, str],
    frozen: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
    seen: Mapping[str, int],
) -> list[list[str]]:
    """The table of a comparison of methods: time, frozen features, each budget, and the mean against scratch.

    `seen` is how many of the scored images each initialization's pretraining saw.
    """
    images = len(tested.part.labels)
    curves = {init: tested.curve((init, strategy)) for init, strategy in tested.variants}
    budgets = sorted(curves[SCRATCH])
    heads = [*(f"{budget}/class" for budget in budgets), "mean minus scratch"]
    rows = [["balanced accuracy, %", "minutes", "scored images seen", "kNN", "linear", *heads]]
    for one in ranked:
        over = one.over_scratch
        bracket = "" if over.low is None or over.high is None else f" [{100 * over.low:+.1f}, {100 * over.high:+.1f}]"
        cells = [_cell(curves[inits[one.name]].get(budget)) for budget in budgets]
        share = f"{seen[inits[one.name]]:,} of {images:,}"
        cells = [f"{seconds[one.name] / 60:.1f}", share, *_frozen(frozen[one.name]), *cells]
        rows.append([one.name, *cells, f"{100 * over.mean:+.1f}{bracket}"])
    cells = [_cell(curves[SCRATCH][budget]) for budget in budgets]
    return [*rows, [SCRATCH, "", "", *_frozen(frozen[SCRATCH]), *cells, ""]]


def _frozen(scores: Mapping[str, float]) -> list[str]:
    return [f"{100 * scores[kind]:.1f}" for kind in ("knn", "linear")]


def name_of(variant: Variant) -> str:
    """For people: `auto from pretrain-1`, `fixmatch from scratch`, or `scratch`, the baseline."""
    init, strategy = variant
    return SCRATCH if variant == (SCRATCH, BASELINE) else f"{strategy} from {init}"


def alone_line(tested: Answered, pretrainings: Sequence[str], per_class: int) -> str | None:
    """For people: what pretraining alone was worth where the verdict is about more, two-stage minus scratch.

    Over the pretrainings that the verdict pools. None without an interval, or where the verdict is about two-stage.
    """
    table, scratch = tested.variants, tested.scratch
    variants = [(init, "two-stage") for init in pretrainings if per_class in table.get((init, "two-stage"), {})]
    if scratch is None or not variants or strategy_of(table, pretrainings) != verdict.STRATEGIES[0]:
        return None
    draws = table[scratch].get(per_class, [])
    if not draws or any(table[variant][per_class] != draws for variant in variants):
        return None
    ours = np.stack([tested.answers(variant, per_class, draws) for variant in variants])
    found = tested.difference(ours, tested.answers(scratch, per_class, draws), per_class).interval
    if found.low is None or found.high is None:
        return None
    points = f"{100 * found.mean:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    whose = variants[0][0] if len(variants) == 1 else f"{len(variants)} pretrainings"
    images = len(tested.part.labels)
    return (
        f"pretraining alone (two-stage from {whose} minus scratch) at {per_class} per class: {points}, "
        f"{count_of(len(draws), 'draw')}, {count_of(images, 'image')}"
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def table_lines(curves: Mapping[str, Mapping[int, Point]]) -> list[str]:
    """The table for people: a row a curve, a column a budget, mean and 95 % interval in points."""
    budgets = sorted({budget for curve in curves.values() for budget in curve})
    rows = [["balanced accuracy, %", *(f"{budget}/class" for budget in budgets)]]
    rows += [[name, *(_cell(curve.get(budget)) for budget in budgets)] for name, curve in curves.items()]
    return aligned(rows)


def _cell(point: Point | None) -> str:
    if point is None:
        return "-"
    found = point.interval
    half = f" ±{100 * (found.high - found.mean):.1f}" if found.high is not None else ""
    return f"{100 * found.mean:.1f}{half}"
