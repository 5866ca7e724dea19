"""ECE and reliability bins, against a slow reading of their definition."""

import numpy as np
import pytest

from ssl_app.evaluation.calibration import calibration


def slow_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Guo et al. (2017), equation 3, image by image."""
    total = 0.0
    for k in range(bins):
        members = []
        for row, label in zip(probabilities, labels, strict=True):
            sure = max(row)
            inside = k / bins < sure <= (k + 1) / bins or (k == 0 and sure == 0)
            if inside:
                members.append((sure, float(list(row).index(sure) == label)))
        if members:
            sure = sum(one[0] for one in members) / len(members)
            right = sum(one[1] for one in members) / len(members)
            total += len(members) / len(labels) * abs(right - sure)
    return total


@pytest.mark.parametrize(("images", "classes", "bins"), [(1, 2, 15), (7, 3, 10), (400, 4, 15), (400, 12, 5)])
def test_ece_is_that_of_the_paper(images: int, classes: int, bins: int) -> None:
    random = np.random.default_rng(images + classes)
    logits = random.normal(0, 3, (images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = random.integers(0, classes, images)
    found = calibration(probabilities, labels, bins)
    assert found.ece == pytest.approx(slow_ece(probabilities, labels, bins))
    assert sum(one.n for one in found.bins) == found.n == images
    for one in found.bins:
        assert (one.confidence is None) == (one.n == 0)
        assert one.confidence is None or one.low < one.confidence <= one.high + 1e-12


def test_a_classifier_that_is_sure_and_right_has_no_error() -> None:
    found = calibration(np.eye(3), np.arange(3))
    assert found.ece == 0
    assert not found.overconfident
    assert found.bins[-1].n == 3


def test_a_classifier_that_is_sure_and_wrong_has_an_error_of_one() -> None:
    found = calibration(np.eye(3), np.array([1, 2, 0]))
    assert found.ece == 1
    assert found.overconfident


def test_edges_belong_to_the_bin_below() -> None:
    found = calibration(np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]), np.array([1, 0, 0]), bins=5)
    assert [one.n for one in found.bins] == [0, 0, 2, 1, 0]
