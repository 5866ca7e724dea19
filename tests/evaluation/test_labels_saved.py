import numpy as np
import pytest

from ssl_app.evaluation.intervals import Interval, paired_t
from ssl_app.evaluation.labels_saved import LabelsSaved, labels_saved

BUDGETS = [8, 16, 32, 64]
CURVE = np.array([0.5, 0.6, 0.7, 0.8])  # a tenth for each doubling
SCRATCH = np.stack([CURVE - 0.01, CURVE, CURVE + 0.01])


def saved(ours, budgets=BUDGETS, scratch=SCRATCH, per_class=16, low=None, high=None):
    ours = np.asarray(ours)
    mean = float(ours.mean() - scratch[:, budgets.index(per_class)].mean())
    interval = Interval(mean, mean - 0.05 if low is None else low, mean + 0.05 if high is None else high, 3)
    return labels_saved(budgets, scratch, ours, per_class, interval)


def test_the_factor_is_exact_on_a_straight_curve():
    result = saved([0.69, 0.70, 0.71], low=0.05, high=0.15)
    assert result.factor == pytest.approx(2.0)
    assert (result.low, result.high) == pytest.approx((2**0.5, 2**1.5))
    assert (result.bound, result.per_class, result.reason) == (None, 16, None)


def test_it_takes_the_interval_of_the_draws():
    ours = SCRATCH[:, 1] + np.array([0.09, 0.10, 0.11])
    result = labels_saved(BUDGETS, SCRATCH, ours, 16, paired_t(ours - SCRATCH[:, 1]))
    assert result.low < 2 < result.high
    assert result.factor == pytest.approx(2.0)


def test_beyond_the_last_budget_it_is_at_least():
    result = saved([0.9, 0.9, 0.9], low=0.15, high=0.4)
    assert (result.factor, result.bound, result.high) == (4.0, "at least", None)
    assert result.low == pytest.approx(2**1.5)


def test_below_the_first_budget_it_is_at_most():
    result = saved([0.4, 0.4, 0.4], low=-0.3, high=-0.05)
    assert (result.factor, result.bound, result.low) == (0.5, "at most", None)
    assert result.high == pytest.approx(2**-0.5)


def test_nothing_is_told_where_the_interval_holds_zero_or_there_is_none():
    none = LabelsSaved(None, None, None, None, 16, "the interval of the difference holds zero")
    assert saved([0.61, 0.61, 0.61], low=-0.01, high=0.03) == none
    alone = labels_saved(BUDGETS, CURVE, [0.7], 16, paired_t([0.1]))
    assert (alone.factor, alone.reason) == (None, "one draw gives no interval")
    single = saved([0.7] * 3, budgets=[16], scratch=SCRATCH[:, 1:2], low=0.05, high=0.15)
    assert (single.factor, single.reason) == (None, "one budget gives no curve")


def test_a_curve_that_dips_is_made_monotone():
    dipping = np.tile([0.5, 0.62, 0.58, 0.8], (3, 1))  # its middle becomes .60, .60
    result = saved([0.6] * 3, scratch=dipping, per_class=8, low=0.05, high=0.2)
    assert result.factor == pytest.approx(2.0)  # the fewest labels on the flat stretch
    assert saved([0.7] * 3, scratch=dipping, per_class=8).factor == pytest.approx(32 * 2**0.5 / 8)
