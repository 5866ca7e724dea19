"""The map of features in the plane."""

import numpy as np
import pytest

from ssl_app.evaluation.projection import principal, tsne


def three_groups(each: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    centers = random.normal(size=(3, 20)) * 5
    labels = np.repeat(np.arange(3), each)
    return centers[labels] + random.normal(size=(3 * each, 20)) * 0.3, labels


def test_principal_components_are_those_of_features_of_length_one() -> None:
    features, _ = three_groups()
    found = principal(features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    for axis in (0, 1):
        expected = left[:, axis] * values[axis]
        sign = np.sign(expected @ found.points[:, axis])
        assert found.points[:, axis] == pytest.approx(sign * expected, abs=1e-6)
        share = values[axis] ** 2 / (values**2).sum()
        assert found.axes[axis] == f"component {axis + 1}: {share:.0%} of the variance"


def test_tsne_keeps_groups_apart_and_the_seed_decides() -> None:
    features, labels = three_groups()
    found, again = tsne(features, seed=1), tsne(features, seed=1)
    assert np.array_equal(found.points, again.points)
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).all()
    assert found.how == "t-SNE, perplexity 12, seed 1"


def test_equal_features_are_one_point_and_no_error() -> None:
    assert np.allclose(principal(np.ones((6, 4))).points, 0)
    assert tsne(np.random.default_rng(0).normal(size=(5, 3)), seed=0).points.shape == (5, 2)
