"""Labels saved: the factors at which the paired test cannot tell scratch with more labels from us."""

import numpy as np
import pytest

from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component
from ssl_app.evaluation.labels_saved import LabelsSaved, labels_saved

BUDGETS = [8, 16, 32, 64]
CURVE = np.array([0.5, 0.6, 0.7, 0.8])  # a tenth for each doubling
SCRATCH = np.stack([CURVE - 0.01, CURVE, CURVE + 0.01])  # (D, M)
NOISE = np.array([-0.005, 0.001, 0.004])
NONE = Component(0.0, 1.0)


def saved(
    ours: np.ndarray,
    per_class: int = 16,
    scratch: np.ndarray = SCRATCH,
    images: Component = NONE,
    budgets: list[int] = BUDGETS,
) -> LabelsSaved:
    found = Difference(np.zeros((1, 1)), images)
    return labels_saved(budgets, scratch, ours, [found] * len(budgets), per_class)


def ours_at(score: float) -> np.ndarray:
    """Three draws that follow scratch's, and a little noise."""
    return score + SCRATCH[:, 1] - CURVE[1] + NOISE


def test_the_factor_is_exact_on_a_straight_curve_and_its_ends_are_the_paired_tests() -> None:
    result = saved(ours_at(0.70))
    interval = Difference((ours_at(0.70) - SCRATCH[:, 1])[None], NONE).interval
    assert interval.low is not None
    assert interval.high is not None
    assert result.factor == pytest.approx(2.0, rel=0.03)
    assert result.low == pytest.approx(2 ** (10 * interval.low), rel=0.03)
    assert result.high == pytest.approx(2 ** (10 * interval.high), rel=0.03)
    assert (result.bound, result.per_class, result.reason) == (None, 16, None)


def test_the_test_images_widen_it() -> None:
    narrow, wide = saved(ours_at(0.70)), saved(ours_at(0.70), images=Component(0.02**2, 300))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low


def test_beyond_the_last_budget_it_is_at_least() -> None:
    result = saved(ours_at(0.9))
    assert (result.factor, result.bound, result.high) == (4.0, "at least", None)
    assert result.low == 4.0, "scratch with every label is not as good"


def test_below_the_first_budget_it_is_at_most() -> None:
    result = saved(ours_at(0.4))
    assert (result.factor, result.bound, result.low) == (0.5, "at most", None)
    assert result.high == 0.5


@pytest.mark.parametrize("score", [0.585, 0.595, 0.6, 0.605, 0.615, 0.63])
def test_it_holds_1_exactly_where_the_interval_of_the_difference_holds_zero(score: float) -> None:
    result = saved(ours_at(score))
    difference = Difference((ours_at(score) - SCRATCH[:, 1])[None], NONE).interval
    low, high = result.low or 0.0, result.high or np.inf
    assert (low <= 1 <= high) == difference.holds_zero


def test_several_pretrainings_are_sampled_too() -> None:
    one = saved(ours_at(0.7))
    several = saved(np.stack([ours_at(0.66), ours_at(0.7), ours_at(0.74)]))
    assert one.high is not None
    assert several.high is None or several.high > one.high


def test_it_is_not_told_from_one_draw_or_one_budget() -> None:
    alone = saved(np.array([0.7]), scratch=SCRATCH[:1])
    assert (alone.factor, alone.reason) == (None, "one draw gives no interval")
    single = saved(ours_at(0.7), budgets=[16], scratch=SCRATCH[:, 1:2])
    assert (single.factor, single.reason) == (None, "one budget gives no curve")


def test_a_curve_that_dips_is_level_first_where_it_is_reached_first() -> None:
    dipping = np.tile([0.5, 0.62, 0.58, 0.8], (3, 1)) + NOISE[:, None]
    result = saved(0.6 + NOISE + np.array([0.001, 0.0, -0.001]), per_class=8, scratch=dipping)
    assert result.factor == pytest.approx(2 ** (0.1 / 0.12), rel=0.03)
