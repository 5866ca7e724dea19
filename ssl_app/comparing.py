"""From the trials of a sweep to its answer: paired differences, labels saved, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssl_app.evaluation import verdict
from ssl_app.evaluation.intervals import Interval, nested_t, paired_t
from ssl_app.evaluation.labels_saved import LabelsSaved, labels_saved
from ssl_app.handover import SCRATCH

METRIC = "balanced_accuracy"
Arm = tuple[str, str]  # (init, strategy)
Trials = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a sweep says."""

    comparisons: list[dict[str, Any]]
    labels_saved: dict[str, Any] | None
    verdict: str


def scores(trials: Trials) -> dict[Arm, dict[int, dict[int, float]]]:
    """Balanced accuracy by arm, labels per class and draw."""
    found: dict[Arm, dict[int, dict[int, float]]] = {}
    for one in sorted(trials, key=lambda t: (t["init"], t["strategy"], t["per_class"], t["draw"])):
        arm = found.setdefault((one["init"], one["strategy"]), {})
        arm.setdefault(one["per_class"], {})[one["draw"]] = one[METRIC]
    return found


def answer(trials: Trials, pretrainings: Sequence[str], leak: verdict.Leak | None) -> Answer:
    """Compare every arm with scratch, two-stage with the other strategies, and say what pretraining was worth.

    `pretrainings` are the inits that the verdict pools: seeds of one pretraining.
    """
    table = scores(trials)
    comparisons = _comparisons(table)
    scratch = next((arm for arm in table if arm[0] == SCRATCH), None)
    arms = [(init, verdict.STRATEGY) for init in pretrainings if (init, verdict.STRATEGY) in table]
    if scratch is None or not arms:
        missing = "scratch (--baseline scratch)" if scratch is None else f"{verdict.STRATEGY} from a pretraining"
        return Answer(comparisons, None, f"No verdict: the sweep holds no {missing}.")
    budgets = sorted(table[scratch])
    per_class = verdict.nearest_budget(budgets)
    draws = sorted(table[scratch][per_class])
    ours = np.array([[table[arm][per_class][draw] for draw in draws] for arm in arms])  # (P, D)
    base = np.array([table[scratch][per_class][draw] for draw in draws])  # (D,)
    difference = paired_t(ours[0] - base) if len(arms) == 1 else nested_t(ours - base)
    curve = np.array([[table[scratch][budget][draw] for budget in budgets] for draw in draws])  # (D, M)
    saved: LabelsSaved = labels_saved(budgets, curve, ours.mean(0), per_class, difference)
    name = arms[0][0] if len(arms) == 1 else " and ".join(arm[0] for arm in arms)
    evidence = verdict.Evidence(
        name,
        per_class,
        float(ours.mean()),
        float(base.mean()),
        difference,
        len(draws),
        len(arms),
        saved,
        leak,
    )
    return Answer(comparisons, asdict(saved), verdict.sentence(evidence))


def _comparisons(table: dict[Arm, dict[int, dict[int, float]]]) -> list[dict[str, Any]]:
    """Paired differences over draws: each arm minus scratch, two-stage minus each other strategy of its init."""
    found = []
    scratch = next((arm for arm in table if arm[0] == SCRATCH), None)
    for init, strategy in table:
        if scratch is not None and init != SCRATCH:
            found += _pairs(table, (init, strategy), scratch)
        if strategy == verdict.STRATEGY:
            others = [arm for arm in table if arm[0] == init and arm[1] != strategy]
            for other in others:
                found += _pairs(table, (init, strategy), other)
    return found


def _pairs(table: dict[Arm, dict[int, dict[int, float]]], ours: Arm, other: Arm) -> list[dict[str, Any]]:
    """One arm minus another at each budget, and (per_class null) on the mean of the budgets from 8 to 64."""
    about = {
        "init": ours[0],
        "strategy": ours[1],
        "against": {"init": other[0], "strategy": other[1]},
        "metric": METRIC,
    }
    rows: list[tuple[int | None, Interval]] = []
    shared = sorted(set(table[ours]) & set(table[other]))
    for budget in shared:
        rows.append((budget, paired_t(_differences(table, ours, other, [budget]))))
    middle = [budget for budget in shared if 8 <= budget <= 64]
    if len(middle) > 1:
        rows.append((None, paired_t(_differences(table, ours, other, middle))))
    return [about | {"per_class": budget} | asdict(interval) for budget, interval in rows]


def _differences(
    table: dict[Arm, dict[int, dict[int, float]]], ours: Arm, other: Arm, budgets: list[int]
) -> list[float]:
    """A difference a draw, the mean over the budgets."""
    draws = sorted(set.intersection(*(set(table[arm][b]) for arm in (ours, other) for b in budgets)))
    return [float(np.mean([table[ours][b][d] - table[other][b][d] for b in budgets])) for d in draws]


def table_lines(trials: Trials) -> list[str]:
    """The table for people: a row an arm, a column a budget, mean and 95 % interval over draws in points."""
    table = scores(trials)
    budgets = sorted({budget for arm in table.values() for budget in arm})
    heads = ["balanced accuracy, %", *(f"{budget}/class" for budget in budgets)]
    rows = [heads]
    for (init, strategy), arm in table.items():
        cells = [_cell(list(arm.get(budget, {}).values())) for budget in budgets]
        rows.append([SCRATCH if init == SCRATCH else f"{init} {strategy}", *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    interval = paired_t(values)
    half = f" ±{100 * (interval.high - interval.mean):.1f}" if interval.high is not None else ""
    return f"{100 * interval.mean:.1f}{half}"
