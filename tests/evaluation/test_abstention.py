"""What abstention promises: coverage and accuracy at a threshold, and an interval that holds."""

import numpy as np
import pytest
from scipy import stats

from ssl_app.evaluation.abstention import curve, exact

PROBABILITIES = np.array([[0.95, 0.05], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
LABELS = np.array([0, 1, 1, 1])


def test_a_threshold_keeps_what_is_as_sure() -> None:
    found = {one.threshold: one for one in curve(PROBABILITIES, LABELS)}
    assert len(found) == 100
    counts = {threshold: (found[threshold].kept, found[threshold].accuracy) for threshold in (0.0, 0.58, 0.8, 0.96)}
    assert counts == {0.0: (4, 0.75), 0.58: (3, 2 / 3), 0.8: (2, 1.0), 0.96: (0, None)}
    assert (found[0.8].blank, found[0.96].blank) == (0.5, 1.0)
    assert (found[0.96].low, found[0.96].high) == (None, None)


def test_two_images_that_are_right_are_no_proof() -> None:
    kept = curve(PROBABILITIES, LABELS)[80]
    assert (kept.low, kept.high) == (pytest.approx(0.025**0.5), 1.0)


def test_images_of_a_group_count_once() -> None:
    alone, grouped = curve(PROBABILITIES, LABELS)[0], curve(PROBABILITIES, LABELS, ["p", "p", "q", "q"])[0]
    assert (grouped.low, grouped.high) == exact(0.75, 2)
    assert grouped.low < alone.low < alone.high < grouped.high


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (7, 20), (199, 200)])
def test_the_interval_is_clopper_and_pearsons(right: int, n: int) -> None:
    wanted = stats.binomtest(right, n).proportion_ci(0.95, "exact")
    assert exact(right / n, n) == (pytest.approx(wanted.low), pytest.approx(wanted.high))


def test_calibrated_probabilities_keep_the_promise() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(0.5, 1, 4000)
    right = random.uniform(size=4000) < p
    for one in curve(np.stack([p, 1 - p], 1), np.where(right, 0, 1))[50::7]:
        assert one.high is not None
        assert one.high >= one.threshold, "at least as often right as the threshold says"
        assert one.blank == pytest.approx(2 * (one.threshold - 0.5), abs=0.04)
