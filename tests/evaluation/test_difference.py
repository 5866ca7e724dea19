"""Differences and the test images: against by-hand sums, and against test parts drawn again and again."""

import numpy as np
import pytest

from ssl_app.evaluation.difference import Difference, ScoredPart, images_component, reuse_of
from ssl_app.evaluation.intervals import Component, paired_t
from ssl_app.evaluation.metrics import classification


def test_balanced_accuracy_is_that_of_the_metrics() -> None:
    generator = np.random.default_rng(0)
    labels, found = generator.integers(0, 3, 50), generator.random((50, 3))
    right = found.argmax(1) == labels
    expected = classification(found, labels, ["a", "b", "c"])["balanced_accuracy"]
    assert ScoredPart(labels).balanced_accuracy(right) == pytest.approx(expected)


def test_the_influence_of_an_image_is_what_leaving_it_out_changes() -> None:
    generator = np.random.default_rng(0)
    labels, right = np.repeat([0, 1], [40, 60]), generator.random(100) < 0.7
    influence = ScoredPart(labels).influence(right)
    whole = ScoredPart(labels).balanced_accuracy(right)
    for image in (0, 39, 40, 99):
        rest = np.arange(100) != image
        without = ScoredPart(labels[rest]).balanced_accuracy(right[rest])
        assert whole - without == pytest.approx(
            influence[image] * 40 / 39 if image < 40 else influence[image] * 60 / 59
        )
    assert influence.sum() == pytest.approx(0)


def test_images_of_one_group_move_together() -> None:
    labels = np.repeat([0, 1], 6)
    right = np.tile([1.0, 1.0, 0.0, 0.0], 3)
    groups = np.arange(12) // 2
    apart, together = ScoredPart(labels).influence(right), ScoredPart(labels, groups).influence(right)
    np.testing.assert_allclose(together, apart.reshape(6, 2).sum(1))
    assert images_component(together).variance > images_component(apart).variance


def test_the_variance_is_that_of_other_test_parts() -> None:
    generator = np.random.default_rng(0)

    def drawn() -> tuple[np.ndarray, ScoredPart]:
        groups = np.repeat(np.arange(100), 3)
        easy = generator.standard_normal(100)[groups] + generator.standard_normal(300)
        return (easy + 0.5 > 0).astype(float) - (easy + generator.standard_normal(300) > 0), ScoredPart(
            np.repeat([0, 1], 150), groups
        )

    found = [
        (part.balanced_accuracy(right), images_component(part.influence(right)))
        for right, part in (drawn() for _ in range(600))
    ]
    assert np.mean([component.variance for _, component in found]) == pytest.approx(
        np.var([score for score, _ in found]), rel=0.15
    )
    assert found[0][1].degrees == 99


def test_what_differs_from_draw_to_draw_is_not_counted_again() -> None:
    noise = np.random.default_rng(0).standard_normal((4, 2000))
    noise -= noise.mean(1, keepdims=True)
    assert images_component(noise).variance < 0.1 * images_component(noise.mean(0)).variance


def test_without_images_it_is_students_t_and_equal_draws_stay_open_with_them() -> None:
    table = np.array([[0.1, 0.2, 0.4]])
    plain = Difference(table, Component(0.0, 1.0)).interval
    expected = paired_t(table[0])
    assert (plain.low, plain.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    equal = Difference(np.full((1, 2), 0.02), Component(0.01**2, 339.0)).interval
    assert equal.high is not None
    assert equal.high - equal.mean == pytest.approx(0.01 * 1.967, rel=1e-3)


def test_more_draws_narrow_it_down_to_what_the_test_part_can_show() -> None:
    one = Difference(np.array([[0.01, 0.05, 0.03]]), Component(0.01**2, 339.0))
    assert one.interval.high is not None
    assert one.shown_by(1, 3) == pytest.approx(1.43 * (one.interval.high - one.mean))
    widths = [one.shown_by(1, draws) for draws in (3, 6, 12, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(one.resolution, rel=0.02)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_class_of_few_test_images_shows_nothing(images: int) -> None:
    labels = np.repeat([0, 1], [200, images])
    ours, scratch = np.ones((1, 5, len(labels))), np.ones((5, len(labels)))
    scratch[:, 200] = 0  # one image of the rare class decides
    found = Difference.between(ours, scratch, ScoredPart(labels)).interval
    assert found.mean == pytest.approx(0.5 / images)
    assert found.holds_zero, "one image is no evidence"


def test_what_is_added_for_few_images_is_little_for_many() -> None:
    random = np.random.default_rng(0)
    for each, most in ((20, 1.12), (400, 1.01)):
        part = ScoredPart(np.repeat([0, 1], each))
        apart = np.repeat(random.integers(-1, 2, (1, 1, 2 * each)), 3, axis=1).astype(np.float64)
        whole = Difference.between(apart, np.zeros((1, 1)), part).images.variance
        assert 1 < whole / images_component(part.influence(apart)).variance < most


@pytest.mark.parametrize("labeled", [(520, 520), (1000, 60), (1000, 40)])
def test_draws_of_a_rare_class_share_more_of_their_luck(labeled: tuple[int, int]) -> None:
    """A draw's recall of a class is the mean of its labels' worths; the interval is to hold for other labels."""
    generator, drawn, draws = np.random.default_rng(0), 32, 10
    test = ScoredPart(np.repeat([0, 1], 50))
    reuse = reuse_of([drawn, drawn], labeled)
    held = []
    for _ in range(300):
        worths = [generator.normal(0, 0.3, count) for count in labeled]
        luck = [[generator.choice(of, drawn, replace=False).mean() for of in worths] for _ in range(draws)]
        right = np.repeat(0.1 + np.array(luck), 50, axis=1)[None]  # (1, D, N)
        found = Difference.between(right, np.zeros((1, draws, 100)), test, reuse).interval
        held.append(found.low <= 0.1 <= found.high)
    assert 0.9 <= np.mean(held) <= 0.99  # .76 and .64 of the last two where all classes are counted together


def test_what_draws_share_is_counted_by_class() -> None:
    assert reuse_of([10, 10], [40, 40]) == pytest.approx(0.25 / 0.75)
    assert reuse_of([10, 10], [1000, 20]) == pytest.approx(0.255 / 0.745), "the mean of a hundredth and a half"
    rare = (0.02 / 20 + 0.9 / 5) / (1 / 20 + 1 / 5)
    assert reuse_of([20, 5], [1000, 5]) == pytest.approx(rare / (1 - rare)), "all of a class: as good as the same"
    assert reuse_of([16, 16, 0], [20, 20, 0], folds=5) == pytest.approx(5 * 0.8 / 0.2)
