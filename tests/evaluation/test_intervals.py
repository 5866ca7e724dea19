import numpy as np
import pytest
from scipy import stats

from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import (
    Component,
    Interval,
    bootstrap_balanced_accuracy,
    bootstrap_means,
    common_half_width,
    jackknife,
    paired_t,
)


def of_table(table) -> Interval:
    """Over pretrainings and draws, on one test part."""
    return Difference(np.atleast_2d(np.asarray(table, dtype=np.float64)), Component(0.0, 1.0)).interval


def test_paired_t_is_students():
    differences = [0.02, 0.05, 0.01, 0.04, 0.03]
    interval = paired_t(differences)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.03, low, high))
    assert interval.n == 5
    assert interval.holds_zero is False


def test_one_difference_gives_no_interval_and_equal_ones_a_point():
    assert paired_t([0.03]) == Interval(0.03, None, None, 1)
    assert paired_t([0.03]).holds_zero is None
    assert paired_t([0.25, 0.25, 0.25]) == Interval(0.25, 0.25, 0.25, 3)


def test_one_pretraining_is_paired_t_and_one_draw_gives_no_interval():
    own, expected = of_table([[0.1, 0.2, 0.4]]), paired_t([0.1, 0.2, 0.4])
    assert (own.low, own.high, own.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 3)
    assert of_table([[0.1], [0.3]]) == Interval(pytest.approx(0.2), None, None, 2)
    assert of_table(np.full((2, 3), 0.25)) == Interval(0.25, 0.25, 0.25, 6)


def test_pretrainings_that_differ_widen_the_interval():
    draws = np.array([0.00, 0.02, 0.01, 0.03, 0.02])
    alike = of_table([draws, draws + 0.001, draws - 0.001])
    apart = of_table([draws, draws + 0.05, draws - 0.05])
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 3 * (alike.high - alike.low)
    assert alike.high - alike.low == pytest.approx(paired_t(draws).high - paired_t(draws).low, rel=0.1)


@pytest.mark.parametrize("spread", [(1, 0, 0.3), (0, 1, 0.3), (0, 0, 1), (1, 1, 1), (1, 0.3, 0.3)])
@pytest.mark.parametrize(("pretrainings", "least"), [(2, 0.89), (3, 0.915)])
def test_nested_t_covers(pretrainings, least, spread):
    random = np.random.default_rng(0)
    of_pretraining, of_draw, of_rest = spread
    hits = 0
    for _ in range(600):
        table = (
            random.normal(0, of_pretraining, (pretrainings, 1))
            + random.normal(0, of_draw, (1, 5))
            + random.normal(0, of_rest, (pretrainings, 5))
        )
        interval = of_table(table)
        hits += interval.low <= 0 <= interval.high
    assert hits / 600 >= least


def test_the_bootstrap_is_the_plain_one():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    predictions = np.where(random.random(120) < 0.7, labels, 0)
    groups = random.integers(0, 30, 120)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    scores = []
    for _ in range(2000):
        rows = np.concatenate([members[k] for k in random.integers(0, len(members), len(members))])
        scores.append(np.mean([(predictions[rows] == k)[labels[rows] == k].mean() for k in range(3)]))
    interval = bootstrap_balanced_accuracy(labels, predictions, groups, seed=0)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.01)
    assert interval.n == len(members)
    assert interval == bootstrap_balanced_accuracy(labels, predictions, [f"g{g}" for g in groups], seed=0)


def test_patients_with_many_images_widen_the_bootstrap():
    labels = np.repeat(np.arange(2), 50)
    right = np.repeat(np.random.default_rng(0).random(20) < 0.6, 5)
    predictions = np.where(right, labels, 1 - labels)
    by_image = bootstrap_balanced_accuracy(labels, predictions, None, seed=0)
    by_patient = bootstrap_balanced_accuracy(labels, predictions, np.arange(100) // 5, seed=0)
    assert by_patient.high - by_patient.low > 1.5 * (by_image.high - by_image.low)
    assert by_patient.mean == by_image.mean


def test_one_group_gives_no_interval():
    assert bootstrap_balanced_accuracy([0, 1], [0, 0], ["p", "p"], seed=0) == Interval(0.5, None, None, 1)


def test_over_two_arms_tukeys_interval_is_students():
    a, b = np.array([0.6, 0.7, 0.65, 0.8]), np.array([0.5, 0.62, 0.6, 0.61])
    own = paired_t(a - b)
    assert common_half_width([a, b]) == pytest.approx(own.high - own.mean, rel=1e-6)


def test_nested_t_is_satterthwaites():
    rows, columns, rest = np.array([[3.0], [-3.0]]), np.array([-3.0, 0.0, 3.0]), np.array([[1.0, -1, 0], [-1, 1, 0]])
    table = rows + columns + rest
    degrees = 70**2 / (54**2 / 1 + 18**2 / 2 + 2**2 / 2)  # mean squares 54, 18 and 2; 54 + 18 - 2 of 6 numbers
    half = stats.t.ppf(0.975, degrees) * (70 / 6) ** 0.5
    interval = of_table(table)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0, -half, half))


def test_a_class_that_a_resample_lacks_does_not_count():
    labels = np.array([0] * 9 + [1])
    assert bootstrap_balanced_accuracy(labels, labels, None, seed=0) == Interval(1.0, 1.0, 1.0, 10)


def test_the_bootstrap_of_means_draws_whole_groups():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), random.integers(1, 6, 25))
    values = random.normal(size=(25, 2))[groups] + 0.1 * random.normal(size=(len(groups), 2))
    members = [np.flatnonzero(groups == g) for g in range(25)]
    means = []
    for _ in range(2000):
        rows = np.concatenate([members[k] for k in random.integers(0, 25, 25)])
        means.append(values[rows].mean(0))
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    for column, interval in enumerate(bootstrap_means(values, groups, seed=0)):
        assert interval.mean == pytest.approx(values[:, column].mean())
        assert (interval.low, interval.high) == pytest.approx(tuple(expected[:, column]), abs=0.05)
        assert interval.n == 25
    assert bootstrap_means(values, np.zeros(len(values)), seed=0)[0] == Interval(values[:, 0].mean(), None, None, 1)


def test_the_jackknife_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=20)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    (found,) = jackknife(lambda kept: [values[kept].mean()], np.arange(20), seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_the_jackknife_leaves_out_whole_groups():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 5)
    (by_image,) = jackknife(lambda kept: [values[kept].mean()], np.arange(200), seed=0)
    (by_group,) = jackknife(lambda kept: [values[kept].mean()], np.repeat(np.arange(40), 5), seed=0)
    assert by_group.n == 40
    assert by_group.high - by_group.low > 1.6 * (by_image.high - by_image.low)
    assert jackknife(lambda kept: [1.0], np.zeros(9), seed=0) == [Interval(1.0, None, None, 1)]
