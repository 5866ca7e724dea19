"""Stages of an ablation: which are compared with which, and that differences are those of the scores."""

import pytest

from ssl_app.evaluation.ablation import difference, stages
from tests.answers import with_scores

BASE = {("scratch", "full-fine-tuning", 8): (0.50, 0.52, 0.51)}
ALL = BASE | {
    ("p", "feature-extraction", 8): (0.60, 0.61, 0.62),
    ("p", "label-propagation", 8): (0.66, 0.66, 0.67),
    ("p", "two-stage", 8): (0.70, 0.71, 0.73),
    ("p", "auto", 8): (0.75, 0.77, 0.76),
}


def test_a_stage_is_compared_with_the_one_that_it_adds_to() -> None:
    found = stages(with_scores(ALL), ["p"], 8)
    assert [(one.strategy, one.over) for one in found] == [
        ("full-fine-tuning", None),
        ("feature-extraction", "scratch"),
        ("label-propagation", "feature-extraction"),
        ("two-stage", "feature-extraction"),
        ("auto", "two-stage"),
    ]
    gains = [one.gain.mean for one in found if one.gain is not None]
    assert gains == pytest.approx([0.10, 0.16 / 3, 0.31 / 3, 0.14 / 3])
    assert [one.score.mean for one in found[:2]] == pytest.approx([0.51, 0.61])


def test_a_stage_that_is_missing_is_left_out() -> None:
    few = {key: scores for key, scores in ALL.items() if key[1] not in ("feature-extraction", "label-propagation")}
    found = stages(with_scores(few), ["p"], 8)
    assert [(one.strategy, one.over) for one in found[1:]] == [("two-stage", "scratch"), ("auto", "two-stage")]
    assert stages(with_scores(few), ["p"], 16) == []


def test_pretrainings_are_paired_with_themselves() -> None:
    both = ALL | {
        ("q", *key[1:]): tuple(score + 0.1 for score in scores) for key, scores in ALL.items() if key[0] == "p"
    }
    tested = with_scores(both)
    found = difference(tested, [("p", "auto"), ("q", "auto")], [("p", "two-stage"), ("q", "two-stage")], 8)
    assert found is not None
    assert found.mean == pytest.approx(0.14 / 3)
    assert [one.strategy for one in stages(tested, ["p", "q"], 8)][-1] == "auto"


def test_draws_that_only_one_has_do_not_count() -> None:
    tested = with_scores(BASE | {("p", "two-stage", 8): (0.7, 0.72)})
    found = difference(tested, [("p", "two-stage")], [("scratch", "full-fine-tuning")], 8)
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.2), 2)
