import numpy as np
import pytest
from scipy import stats

from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import (
    Component,
    Interval,
    balanced_accuracy_interval,
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


@pytest.mark.parametrize("right", [(3, 4), (20, 20), (0, 7), (99, 100)])
def test_of_one_class_the_interval_of_recall_is_wilsons(right):
    hits, count = right
    labels, z = np.zeros(count, dtype=int), stats.norm.ppf(0.975)
    predictions = np.r_[np.zeros(hits, int), np.ones(count - hits, int)]
    roots = np.roots([1 + z * z / count, -(2 * hits / count + z * z / count), (hits / count) ** 2])
    interval = balanced_accuracy_interval(labels, predictions, None)
    assert (interval.low, interval.high) == pytest.approx((max(0, min(roots)), min(1, max(roots))), abs=1e-9)
    assert (interval.mean, interval.n) == (hits / count, count)


@pytest.mark.parametrize(
    ("sizes", "recall"), [((6, 6, 6), 0.9), ((6, 6, 6), 0.97), ((20, 20, 20), 0.6), ((100, 100, 1), 0.9)]
)
def test_the_interval_covers_however_few_images_and_errors_there_are(sizes, recall):
    """A percentile bootstrap covers 80 % of 18 images at .9, and 39 % at .97."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), sizes)
    found = [
        balanced_accuracy_interval(labels, np.where(random.random(len(labels)) < recall, labels, -1), None)
        for _ in range(400)
    ]
    assert np.mean([one.low <= recall <= one.high for one in found]) > 0.86
    assert all(one.high - one.low > 0.05 for one in found), "not even where all are right"


@pytest.mark.parametrize(("alike", "least"), [(False, 0.93), (True, 0.88)])
def test_images_of_a_group_count_by_how_alike_they_are(alike, least):
    random = np.random.default_rng(1)
    groups = np.arange(150) // 5
    labels = groups % 2
    covered, widths = [], []
    for _ in range(300):
        right = (random.random(30) < 0.7)[groups] if alike else random.random(150) < 0.7
        found = balanced_accuracy_interval(labels, np.where(right, labels, -1), groups)
        covered.append(found.low <= 0.7 <= found.high)
        widths.append(found.high - found.low)
        assert found.n == 30
    assert np.mean(covered) > least
    alone = balanced_accuracy_interval(labels, np.where(np.arange(150) % 10 < 7, labels, -1), None)
    assert np.mean(widths) > (1.7 if alike else 1.0) * (alone.high - alone.low)


def test_one_group_gives_no_interval():
    assert balanced_accuracy_interval([0, 1], [0, 0], ["p", "p"]) == Interval(0.5, None, None, 1)


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
