"""From the trials of a sweep to its answer: paired differences, labels saved, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation import verdict
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component, paired_t
from ssl_app.evaluation.labels_saved import LabelsSaved, labels_saved
from ssl_app.evaluation.ranking import Ranked

METRIC = "balanced_accuracy"
Variant = tuple[str, str]  # (init, strategy)
Curve = dict[int, dict[int, float]]  # labels per class -> draw -> score
Trials = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a sweep says."""

    comparisons: list[dict[str, Any]]
    labels_saved: dict[str, Any] | None
    verdict: str


def scores(trials: Trials) -> dict[Variant, Curve]:
    """Balanced accuracy by variant, labels per class and draw."""
    found: dict[Variant, Curve] = {}
    for one in sorted(trials, key=lambda t: (t["init"], t["strategy"], t["per_class"], t["draw"])):
        variant = found.setdefault((one["init"], one["strategy"]), {})
        variant.setdefault(one["per_class"], {})[one["draw"]] = one[METRIC]
    return found


def answer(
    trials: Trials, pretrainings: Sequence[str], overlap: verdict.SeenInPretraining | None, judged: str = "test set"
) -> Answer:
    """Compare every variant with scratch, two-stage with the other strategies, and say what pretraining was worth.

    `pretrainings` are the inits that the verdict pools: seeds of one pretraining.
    """
    table = scores(trials)
    comparisons = _comparisons(table)
    scratch = next((variant for variant in table if variant[0] == SCRATCH), None)
    variants = [(init, verdict.STRATEGY) for init in pretrainings if (init, verdict.STRATEGY) in table]
    if scratch is None or not variants:
        missing = "scratch" if scratch is None else f"{verdict.STRATEGY} from a pretraining"
        return Answer(comparisons, None, f"No verdict: the sweep holds no {missing}.")
    budgets = sorted(table[scratch])
    per_class = verdict.nearest_budget(budgets)
    draws = sorted(table[scratch][per_class])
    ours = np.array([[table[variant][per_class][draw] for draw in draws] for variant in variants])  # (P, D)
    base = np.array([table[scratch][per_class][draw] for draw in draws])  # (D,)
    curve = np.array([[table[scratch][budget][draw] for budget in budgets] for draw in draws])  # (D, M)
    images = Component(0.0, 1.0)  # this test part: of other images nothing is said
    difference = Difference(ours - base, images).interval
    saved: LabelsSaved = labels_saved(budgets, curve, ours, [images] * len(budgets), per_class)
    name = variants[0][0] if len(variants) == 1 else " and ".join(variant[0] for variant in variants)
    evidence = verdict.Evidence(
        name,
        per_class,
        float(ours.mean()),
        float(base.mean()),
        difference,
        len(draws),
        len(variants),
        saved,
        overlap,
        judged,
    )
    return Answer(comparisons, asdict(saved), verdict.sentence(evidence))


def _comparisons(table: dict[Variant, Curve]) -> list[dict[str, Any]]:
    """Paired differences over draws: each variant minus scratch, two-stage minus each other strategy of its init."""
    found = []
    scratch = next((variant for variant in table if variant[0] == SCRATCH), None)
    for init, strategy in table:
        if scratch is not None and init != SCRATCH:
            found += _pairs(table, (init, strategy), scratch)
            found += _with_half(table, (init, strategy), scratch)
        if strategy == verdict.STRATEGY:
            for other in [variant for variant in table if variant[0] == init and variant[1] != strategy]:
                found += _pairs(table, (init, strategy), other)
    return found


def _pairs(table: dict[Variant, Curve], ours: Variant, other: Variant) -> list[dict[str, Any]]:
    """One variant minus another at each budget, and (per_class null) on the mean of the budgets from 8 to 64."""
    shared = sorted(set(table[ours]) & set(table[other]))
    found = [_row(table, ours, other, [(budget, budget)]) | {"per_class": budget} for budget in shared]
    middle = [(budget, budget) for budget in shared if 8 <= budget <= 64]
    if len(middle) > 1:
        found.append(_row(table, ours, other, middle) | {"per_class": None})
    return found


def _with_half(table: dict[Variant, Curve], ours: Variant, other: Variant) -> list[dict[str, Any]]:
    """One variant minus another that has twice the labels: the articles' claim, at each budget that allows it."""
    found = []
    for budget in sorted(set(table[ours])):
        if 2 * budget in table[other]:
            row = _row(table, ours, other, [(budget, 2 * budget)])
            against = row["against"] | {"per_class": 2 * budget}
            found.append(row | {"per_class": budget, "against": against})
    return found


def _row(
    table: dict[Variant, Curve], ours: Variant, other: Variant, budgets: list[tuple[int, int]]
) -> dict[str, Any]:
    """The paired interval of ours minus other, over draws, on the mean of pairs of budgets."""
    both = [table[ours][a] for a, _ in budgets] + [table[other][b] for _, b in budgets]
    draws = sorted(set.intersection(*(set(by_draw) for by_draw in both)))
    differences = [np.mean([table[ours][a][d] - table[other][b][d] for a, b in budgets]) for d in draws]
    about = {"init": ours[0], "strategy": ours[1], "against": {"init": other[0], "strategy": other[1]}}
    return about | {"metric": METRIC} | asdict(paired_t(differences))


def claim_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """For people: two-stage against scratch with twice the labels, a line a budget."""
    lines = []
    for one in comparisons:
        if one["strategy"] == verdict.STRATEGY and "per_class" in one["against"] and one["low"] is not None:
            points = f"{100 * one['mean']:+.1f} points [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
            twice = one["against"]["per_class"]
            lines.append(
                f"{one['init']} at {one['per_class']} per class minus scratch at {twice}: {points}, n = {one['n']}"
            )
    return lines


def means_by_draw(curve: Curve) -> list[float]:
    """The mean over budgets of each draw that all budgets have."""
    draws = sorted(set.intersection(*(set(by_draw) for by_draw in curve.values())))
    return [float(np.mean([by_draw[draw] for by_draw in curve.values()])) for draw in draws]


def ranking_rows(
    ranked: Sequence[Ranked],
    table: Mapping[Variant, Curve],
    inits: Mapping[str, str],
    frozen: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
) -> list[list[str]]:
    """The table of a comparison of methods: time, frozen features, each budget, and the mean against scratch."""
    budgets = sorted({budget for curve in table.values() for budget in curve})
    heads = [*(f"{budget}/class" for budget in budgets), "mean minus scratch"]
    rows = [["balanced accuracy, %", "minutes", "kNN", "linear", *heads]]
    for one in ranked:
        curve = next(curve for variant, curve in table.items() if variant[0] == inits[one.name])
        over = one.over_scratch
        bracket = "" if over.low is None or over.high is None else f" [{100 * over.low:+.1f}, {100 * over.high:+.1f}]"
        cells = [_cell(list(curve[budget].values())) for budget in budgets]
        cells = [f"{seconds[one.name] / 60:.1f}", *_frozen(frozen[one.name]), *cells]
        rows.append([one.name, *cells, f"{100 * over.mean:+.1f}{bracket}"])
    scratch = next(curve for variant, curve in table.items() if variant[0] == SCRATCH)
    cells = [_cell(list(scratch[budget].values())) for budget in budgets]
    return [*rows, [SCRATCH, "", *_frozen(frozen[SCRATCH]), *cells, ""]]


def _frozen(scores: Mapping[str, float]) -> list[str]:
    return [f"{100 * scores[kind]:.1f}" for kind in ("knn", "linear")]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def table_lines(trials: Trials) -> list[str]:
    """The table for people: a row a variant, a column a budget, mean and 95 % interval over draws in points."""
    table = scores(trials)
    budgets = sorted({budget for variant in table.values() for budget in variant})
    heads = ["balanced accuracy, %", *(f"{budget}/class" for budget in budgets)]
    rows = [heads]
    for (init, strategy), variant in table.items():
        cells = [_cell(list(variant.get(budget, {}).values())) for budget in budgets]
        rows.append([SCRATCH if init == SCRATCH else f"{strategy} from {init}", *cells])
    return aligned(rows)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    interval = paired_t(values)
    half = f" ±{100 * (interval.high - interval.mean):.1f}" if interval.high is not None else ""
    return f"{100 * interval.mean:.1f}{half}"
