"""From answers of trials to what a sweep says: which differences are taken, by hand."""

import numpy as np
import pytest

from ssl_app.evaluation import comparison
from ssl_app.evaluation.comparison import Answer, Answered
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.ranking import Ranked
from ssl_app.evaluation.verdict import Around
from tests.answers import PART, right, with_scores

AROUND = Around("swept", "run", True, most_labels=500)
SCORES = {
    ("run", "two-stage", 8): [0.60, 0.64],
    ("run", "two-stage", 16): [0.70, 0.72],
    ("run", "feature-extraction", 8): [0.61, 0.61],
    ("run", "feature-extraction", 16): [0.65, 0.66],
    ("scratch", "full-fine-tuning", 8): [0.50, 0.52],
    ("scratch", "full-fine-tuning", 16): [0.58, 0.61],
}
WIDER = SCORES | {
    ("run", "two-stage", 128): [0.80, 0.82],
    ("scratch", "full-fine-tuning", 128): [0.70, 0.69],
}


def answered(scores: dict[tuple[str, str, int], list[float]], *pretrainings: str) -> Answer:
    return comparison.answer(with_scores(scores), pretrainings or ("run",), AROUND)


def pick(strategy: str, against: dict[str, object], per_class: int | None) -> dict[str, object]:
    found = answered(SCORES).comparisons
    (row,) = [c for c in found if (c["strategy"], c["against"], c["per_class"]) == (strategy, against, per_class)]
    return row


def test_variants_are_compared_with_scratch_draw_by_draw() -> None:
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
    assert line.startswith("run at 8 per class minus scratch at 16: +2.5 points [")


def test_every_interval_covers_draws_and_test_images() -> None:
    row = pick("two-stage", {"init": "scratch", "strategy": "full-fine-tuning"}, 8)
    ours, base = (np.stack([right(one) for one in SCORES[key]]) for key in list(SCORES)[::4][:2])
    by_hand = Difference.between(ours[None], base, PART)
    assert by_hand.images.variance > 0
    assert (row["low"], row["high"]) == (by_hand.interval.low, by_hand.interval.high)


def test_a_sweep_without_scratch_has_no_verdict() -> None:
    found = answered({key: values for key, values in SCORES.items() if key[0] == "run"})
    assert found.verdict == ["No verdict: the sweep holds no scratch."]
    assert found.outcome is None


@pytest.mark.parametrize(
    ("swept", "main", "what"),
    [
        (["feature-extraction", "two-stage", "auto"], "auto", "Unlabeled images"),
        (["label-propagation", "two-stage"], "two-stage", "Pretraining"),
        (["feature-extraction", "label-propagation"], "label-propagation", "Unlabeled images"),
        (["feature-extraction"], "feature-extraction", "Pretraining"),
        (["mine:Own"], "mine:Own", "Unlabeled images"),
        (["mine:Own", "mine:Other"], None, ""),
    ],
)
def test_the_strategy_of_the_verdict_is_fixed_whatever_the_scores(
    swept: list[str], main: str | None, what: str
) -> None:
    trials = {key: value for key, value in SCORES.items() if key[0] == "scratch"}
    trials |= {
        ("run", name, per_class): SCORES["run", "two-stage", per_class] for name in swept for per_class in (8, 16)
    }
    found = answered(trials)
    if main is None:
        assert found.verdict == ["No verdict: the sweep holds no auto or two-stage from a pretraining."]
        return
    assert f"({main} from run)" in found.verdict[0]
    assert found.verdict[0].startswith((what, "No difference"))


def test_the_table_has_a_row_a_variant_and_a_column_a_budget() -> None:
    lines = comparison.table_lines(with_scores(SCORES).curves([]))
    assert lines[0].split() == ["balanced", "accuracy,", "%", "8/class", "16/class"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "feature-extraction from run",
        "two-stage from run",
        "scratch",
    ]


def test_seeds_of_one_pretraining_are_one_row_and_others_stay_apart() -> None:
    others = {(name, s, k): [v + 0.04 for v in values] for (i, s, k), values in SCORES.items() if i == "run"
              for name in ("two", "apart")}  # fmt: skip
    tested = with_scores(SCORES | others)
    curves = tested.curves(["run", "two"])
    assert sorted(curves) == [
        "feature-extraction from 2 pretrainings",
        "feature-extraction from apart",
        "scratch",
        "two-stage from 2 pretrainings",
        "two-stage from apart",
    ]
    both = curves["two-stage from 2 pretrainings"][16]
    assert sorted(both.scores) == pytest.approx([0.70, 0.72, 0.74, 0.76])
    assert both.interval.mean == pytest.approx(0.73)
    alone = tested.curve(("run", "two-stage"))[16].interval
    assert both.interval.low is not None
    assert both.interval.high is not None
    assert alone.mean == pytest.approx(0.71)
    fewer = {
        key: values[:1] if key == ("two", "two-stage", 16) else values for key, values in (SCORES | others).items()
    }
    assert len(with_scores(fewer).curves(["run", "two"])["two-stage from 2 pretrainings"][16].scores) == 2


def test_the_verdict_is_of_the_numbers_by_hand() -> None:
    found = answered(WIDER)
    assert found.verdict[0].startswith(
        "Pretraining helped, for this pretraining: 71.0 % balanced accuracy at 16 labels per class (two-stage from "
        "run), scratch 59.5: +11.5 points [+"
    )
    assert found.verdict[0].endswith("], 2 draws, 1,000 test images.")
    assert found.labels_saved is not None
    assert found.labels_saved["factor"] == 8.0
    assert found.labels_saved["bound"] == "at least"


def test_labels_saved_are_told_at_every_budget() -> None:
    found = answered(WIDER)
    assert [one["per_class"] for one in found.labels_saved_by_budget] == [8, 16, 128]
    lines = comparison.saved_lines(found.labels_saved_by_budget)
    assert lines[0].startswith("8 per class: Scratch needs ")
    assert lines[2] == (
        "128 per class: Labels saved are not known: scratch would have to be tried with 256 labels per class or more."
    )


def test_pretrainings_are_sampled_as_draws_are() -> None:
    twin = {("two", s, k): [v + 0.04 for v in values] for (i, s, k), values in SCORES.items() if i == "run"}
    found = answered(SCORES | twin, "run", "two")
    assert "(two-stage from 2 pretrainings), scratch 59.5: +13.5 points [" in found.verdict[0]
    assert "for this pretraining" not in found.verdict[0]


def test_scratch_may_have_budgets_of_its_own() -> None:
    found = answered(SCORES | {("scratch", "full-fine-tuning", 32): [0.72, 0.75]})
    assert found.labels_saved is not None
    assert 1 < found.labels_saved["factor"] < 2
    assert "at 16 labels per class" in found.verdict[0]


def test_the_mean_row_is_of_budgets_up_to_64() -> None:
    gains = {4: 0.01, 8: 0.02, 64: 0.04, 128: 0.08}
    some = {("run", "two-stage", k): [0.5 + gain] * 2 for k, gain in gains.items()}
    some |= {("scratch", "full-fine-tuning", k): [0.5] * 2 for k in gains}
    (row,) = [c for c in answered(some).comparisons if c["per_class"] is None]
    assert row["mean"] == pytest.approx(0.03)


def test_answers_are_means_over_the_budgets_that_a_draw_has() -> None:
    some: Answered = with_scores({("a", "s", 8): [0.1, 0.3], ("a", "s", 32): [0.5, 0.6, 0.9]})
    assert PART.balanced_accuracy(some.mean_answers(("a", "s"))).tolist() == pytest.approx([0.3, 0.45])


def test_rows_of_a_ranking_say_how_many_scored_images_were_seen() -> None:
    some = with_scores({("w-sela", "two-stage", 8): [0.58, 0.60], ("scratch", "full-fine-tuning", 8): [0.5, 0.5]})
    frozen = {"sela": {"knn": 0.41, "linear": 0.52}, "scratch": {"knn": 0.3, "linear": 0.4}}
    ranked = [Ranked("sela", 0.59, Interval(0.09, -0.04, 0.22, 2), None)]
    rows = comparison.ranking_rows(ranked, some, {"sela": "w-sela"}, frozen, {"sela": 90.0}, {"w-sela": 1000})
    head, one, base = rows
    assert head[:3] == ["balanced accuracy, %", "minutes", "scored images seen"]
    assert one[:5] == ["sela", "1.5", "1,000 of 1,000", "41.0", "52.0"]
    assert one[5].startswith("59.0 ±")
    assert one[6] == "+9.0 [-4.0, +22.0]"
    assert base[:5] == ["scratch", "", "", "30.0", "40.0"]


def test_where_auto_was_swept_the_verdict_is_about_it_and_pretraining_alone_has_a_line() -> None:
    auto = {("run", "auto", 8): [0.70, 0.72], ("run", "auto", 16): [0.75, 0.77]}
    found = answered(SCORES | auto)
    assert found.verdict[0].startswith(
        "Unlabeled images helped, for this pretraining: 76.0 % balanced accuracy at 16 "
    )
    assert "(auto from run), scratch 59.5: +16.5 points [" in found.verdict[0]
    line = comparison.alone_line(with_scores(SCORES | auto), ["run"], 16)
    assert line is not None
    assert line.startswith("pretraining alone (two-stage from run minus scratch) at 16 per class: +11.5 points [")
    assert line.endswith("], 2 draws, 1,000 images")
    from_scratch = {("scratch", "two-stage", 16): [0.1, 0.2]}
    assert comparison.alone_line(with_scores(SCORES | auto | from_scratch), ["run"], 16) == line
    assert comparison.alone_line(with_scores(SCORES), ["run"], 16) is None, "then the verdict says it"
    against = {("auto", one["against"]["strategy"]) for one in found.comparisons if one["strategy"] == "auto"}
    assert against == {("auto", name) for name in ("full-fine-tuning", "two-stage", "feature-extraction")}


def test_scratch_is_what_is_fully_trained_whatever_else_begins_at_random_weights() -> None:
    both = SCORES | {("scratch", "fixmatch", 8): [0.55, 0.56], ("scratch", "fixmatch", 16): [0.66, 0.68]}
    found = answered(both)
    assert "scratch 59.5" in found.verdict[0]
    rows = [one for one in found.comparisons if (one["init"], one["strategy"]) == ("scratch", "fixmatch")]
    assert {one["against"]["strategy"] for one in rows} == {"full-fine-tuning"}
    names = [line.split("  ")[0] for line in comparison.table_lines(with_scores(both).curves([]))[1:]]
    assert names[-2:] == ["fixmatch from scratch", "scratch"]
