"""From trials to the answer: which differences are taken, by hand."""

import pytest

from ssl_app import comparing


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
    found = comparing.answer(trials(), ["run"], None).comparisons
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
    (line,) = comparing.claim_lines([row])
    assert line == "run at 8 per class minus scratch at 16: +2.5 points [-3.9, +8.9], n = 2"


def test_a_sweep_without_scratch_has_no_verdict() -> None:
    ours = [trial for trial in trials() if trial["init"] == "run"]
    assert comparing.answer(ours, ["run"], None).verdict == (
        "No verdict: the sweep holds no scratch (--baseline scratch)."
    )


def test_the_table_has_a_row_an_arm_and_a_column_a_budget() -> None:
    lines = comparing.table_lines(trials())
    assert lines[0].split() == ["balanced", "accuracy,", "%", "8/class", "16/class"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "feature-extraction from run",
        "two-stage from run",
        "scratch",
    ]
