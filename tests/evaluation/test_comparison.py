"""From trials to the answer: which differences are taken, by hand."""

import numpy as np
import pytest

from ssl_app.evaluation import comparison
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component, Interval
from ssl_app.evaluation.ranking import Ranked


def of_table(table) -> Interval:
    """Over pretrainings and draws, on one test part."""
    return Difference(np.atleast_2d(np.asarray(table, dtype=np.float64)), Component(0.0, 1.0)).interval


def trials() -> list[dict[str, object]]:
    scores = {
        ("run", "two-stage", 8): [0.60, 0.64],
        ("run", "two-stage", 16): [0.70, 0.72],
        ("run", "feature-extraction", 8): [0.61, 0.61],
        ("run", "feature-extraction", 16): [0.65, 0.66],
        ("scratch", "full-fine-tuning", 8): [0.50, 0.52],
        ("scratch", "full-fine-tuning", 16): [0.58, 0.61],
    }
    return [
        {"init": init, "strategy": strategy, "per_class": k, "draw": draw, "balanced_accuracy": score}
        for (init, strategy, k), values in scores.items()
        for draw, score in enumerate(values)
    ]


def pick(strategy: str, against: dict[str, object], per_class: int | None) -> dict[str, object]:
    found = comparison.answer(trials(), ["run"], None).comparisons
    (row,) = [c for c in found if (c["strategy"], c["against"], c["per_class"]) == (strategy, against, per_class)]
    return row


def test_arms_are_compared_with_scratch_draw_by_draw() -> None:
    row = pick("two-stage", {"init": "scratch", "strategy": "full-fine-tuning"}, 8)
    assert row["mean"] == pytest.approx((0.10 + 0.12) / 2)
    assert row["n"] == 2


def test_two_stage_is_compared_with_the_other_strategies_on_the_mean_of_the_budgets() -> None:
    row = pick("two-stage", {"init": "run", "strategy": "feature-extraction"}, None)
    assert row["mean"] == pytest.approx(((-0.01 + 0.05) / 2 + (0.03 + 0.06) / 2) / 2)


def test_half_the_labels_are_compared_with_scratch_on_all_of_them() -> None:
    row = pick("two-stage", {"init": "scratch", "strategy": "full-fine-tuning", "per_class": 16}, 8)
    assert row["mean"] == pytest.approx((0.02 + 0.03) / 2)
    (line,) = comparison.claim_lines([row])
    assert line == "run at 8 per class minus scratch at 16: +2.5 points [-3.9, +8.9], n = 2"


def test_a_sweep_without_scratch_has_no_verdict() -> None:
    ours = [trial for trial in trials() if trial["init"] == "run"]
    assert comparison.answer(ours, ["run"], None).verdict == ("No verdict: the sweep holds no scratch.")


def test_the_table_has_a_row_an_arm_and_a_column_a_budget() -> None:
    lines = comparison.table_lines(trials())
    assert lines[0].split() == ["balanced", "accuracy,", "%", "8/class", "16/class"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "feature-extraction from run",
        "two-stage from run",
        "scratch",
    ]


def wider() -> list[dict[str, object]]:
    more = {("run", "two-stage"): [0.80, 0.82], ("scratch", "full-fine-tuning"): [0.70, 0.69]}
    rows = [
        {"init": i, "strategy": s, "per_class": 128, "draw": d, "balanced_accuracy": v}
        for (i, s), values in more.items()
        for d, v in enumerate(values)
    ]
    return [*trials(), *rows]


def test_the_verdict_is_of_the_numbers_by_hand() -> None:
    assert comparison.answer(wider(), ["run"], None).verdict == (
        "Pretraining helped here: two-stage from run reaches 0.710 balanced accuracy at 16 labels per class, scratch "
        "0.595: +11.5 points [+5.1, +17.9] over 2 draws, one pretraining, one test set; scratch needs at least 8.0 "
        "times the labels for this score [2.9, beyond the budgets]."
    )


def test_pretrainings_are_sampled_as_draws_are() -> None:
    more = [
        t | {"init": "two", "balanced_accuracy": t["balanced_accuracy"] + 0.04}
        for t in trials()
        if t["init"] == "run"
    ]
    over = of_table([[0.12, 0.11], [0.16, 0.15]])
    bracket = f"+13.5 points [{100 * over.low:+.1f}, {100 * over.high:+.1f}] over 2 draws, 2 pretrainings"
    assert over.high - over.low > 0.2
    assert bracket in comparison.answer([*trials(), *more], ["run", "two"], None).verdict


def test_the_mean_row_is_of_budgets_up_to_64() -> None:
    gains = {4: 0.01, 8: 0.02, 64: 0.04, 128: 0.08}
    some = [
        {
            "init": i,
            "strategy": "two-stage",
            "per_class": k,
            "draw": d,
            "balanced_accuracy": 0.5 + (gains[k] if i == "run" else 0),
        }
        for k in gains
        for d in (0, 1)
        for i in ("run", "scratch")
    ]
    (row,) = [c for c in comparison.answer(some, ["run"], None).comparisons if c["per_class"] is None]
    assert row["mean"] == pytest.approx(0.03)


def test_means_are_over_the_budgets_that_a_draw_has() -> None:
    curve = {8: {0: 0.1, 1: 0.3}, 32: {0: 0.5, 1: 0.6, 2: 0.9}}
    assert comparison.means_by_draw(curve) == pytest.approx([0.3, 0.45])


def test_rows_of_a_ranking() -> None:
    table = {
        ("w-sela", "two-stage"): {8: {0: 0.58, 1: 0.60}},
        ("scratch", "full-fine-tuning"): {8: {0: 0.50, 1: 0.50}},
    }
    frozen = {"sela": {"knn": 0.41, "linear": 0.52}, "scratch": {"knn": 0.3, "linear": 0.4}}
    ranked = [Ranked("sela", 0.59, Interval(0.09, -0.04, 0.22, 2), None)]
    assert comparison.ranking_rows(ranked, table, {"sela": "w-sela"}, frozen, {"sela": 90.0})[1:] == [
        ["sela", "1.5", "41.0", "52.0", "59.0 ±12.7", "+9.0 [-4.0, +22.0]"],
        ["scratch", "", "30.0", "40.0", "50.0 ±0.0", ""],
    ]
