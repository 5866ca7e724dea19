from dataclasses import replace

import pytest

from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.evaluation.verdict import Evidence, SeenInPretraining, nearest_budget, sentence

SAVED = LabelsSaved(2.1, 1.4, 3.04, None, 32, None)
EVIDENCE = Evidence(
    pretraining="rotnet-3",
    per_class=32,
    ours=0.872,
    scratch=0.841,
    difference=Interval(0.031, 0.012, 0.05, 5),
    draws=5,
    pretrainings=1,
    saved=SAVED,
    overlap=None,
)


def test_it_helped():
    assert sentence(EVIDENCE) == (
        "Pretraining helped here: two-stage from rotnet-3 reaches 0.872 balanced accuracy at 32 labels per class,"
        " scratch 0.841: +3.1 points [+1.2, +5.0] over 5 draws, one pretraining, one test set;"
        " scratch needs 2.1 times the labels for this score [1.4, 3.0]."
    )


def test_it_did_not_help_where_the_interval_holds_zero():
    null = LabelsSaved(None, None, None, None, 32, "the interval of the difference holds zero")
    evidence = replace(EVIDENCE, difference=Interval(0.031, -0.004, 0.066, 5), saved=null)
    assert sentence(evidence) == (
        "Pretraining did not help here: two-stage from rotnet-3 reaches 0.872 balanced accuracy at 32 labels per"
        " class, scratch 0.841: +3.1 points [-0.4, +6.6] over 5 draws, one pretraining, one test set;"
        " labels saved cannot be told, because the interval of the difference holds zero."
    )


def test_it_hurt_where_the_interval_lies_below_zero():
    saved = LabelsSaved(0.5, None, 0.8, "at most", 32, None)
    evidence = replace(EVIDENCE, ours=0.8, difference=Interval(-0.041, -0.06, -0.02, 5), saved=saved)
    assert sentence(evidence) == (
        "Pretraining hurt here: two-stage from rotnet-3 reaches 0.800 balanced accuracy at 32 labels per class,"
        " scratch 0.841: -4.1 points [-6.0, -2.0] over 5 draws, one pretraining, one test set;"
        " scratch needs at most 0.5 times the labels for this score [below the budgets, 0.8]."
    )


def test_one_draw_decides_nothing():
    null = LabelsSaved(None, None, None, None, 1, "one draw gives no interval")
    evidence = replace(EVIDENCE, per_class=1, difference=Interval(0.031, None, None, 1), draws=1, saved=null)
    assert sentence(evidence) == (
        "Undecided, one draw gives no interval (take five draws): two-stage from rotnet-3 reaches 0.872 balanced"
        " accuracy at 1 label per class, scratch 0.841: +3.1 points over one draw, one pretraining, one test set;"
        " labels saved cannot be told, because one draw gives no interval."
    )


def test_several_pretrainings_a_bound_and_a_leak_are_told():
    saved = LabelsSaved(4.0, 2.5, None, "at least", 32, None)
    evidence = replace(EVIDENCE, pretrainings=3, saved=saved, overlap=SeenInPretraining(1012, 5216))
    assert sentence(evidence).endswith(
        " over 5 draws, 3 pretrainings, one test set; scratch needs at least 4.0 times the labels for this score"
        " [2.5, beyond the budgets]; 1,012 of 5,216 test images (or their groups) were seen in pretraining,"
        " which may flatter it."
    )
    assert "seen" not in sentence(replace(EVIDENCE, overlap=SeenInPretraining(0, 5216)))


@pytest.mark.parametrize(
    ("budgets", "chosen"),
    [([1, 2, 4, 8, 16, 32, 64], 32), ([1, 4, 16], 16), ([100, 8], 100), ([64, 16], 16), ([5], 5)],
)
def test_the_budget_is_32_or_the_nearest(budgets, chosen):
    assert nearest_budget(budgets) == chosen


def test_no_difference_at_all_is_no_help():
    evidence = replace(EVIDENCE, difference=Interval(0.0, 0.0, 0.0, 2))
    assert sentence(evidence).startswith("Pretraining did not help here")
