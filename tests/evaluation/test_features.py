"""Features monitored without labels: effective rank and standard deviation, on clouds whose answer is known."""

import numpy as np
import pytest

from ssl_app.evaluation.features import effective_rank, feature_std


def cloud(count: int = 4000, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, width))


def test_effective_rank_counts_directions() -> None:
    x = cloud()
    assert effective_rank(x) == pytest.approx(8, rel=0.01)
    x[:, 3:] *= 1e-9
    assert effective_rank(x + 5) == pytest.approx(3, rel=0.01)  # where the cloud lies does not matter
    assert effective_rank(np.outer(np.arange(50.0), np.ones(4))) == pytest.approx(1)
    assert effective_rank(np.full((50, 4), 7.1)) == 1.0


def test_feature_std_is_of_angles() -> None:
    x = cloud()
    assert feature_std(x) == pytest.approx(1, abs=0.01)
    assert feature_std(x * np.arange(1, 4001)[:, None]) == pytest.approx(feature_std(x))  # lengths do not matter
    assert feature_std(x * 0.01 + 1) < 0.02
    assert feature_std(np.full((50, 4), 7.1)) == pytest.approx(0, abs=1e-9)
    assert feature_std(np.zeros((50, 4))) == 0


def test_an_image_without_features_does_not_spoil_them() -> None:
    x = cloud()
    x[5] = 0
    assert np.isfinite(feature_std(x))
    assert np.isfinite(effective_rank(x))


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    x = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values 3 and 1 times the root of 2
    assert effective_rank(x) == pytest.approx(0.75**-0.75 * 0.25**-0.25)


def test_feature_std_is_a_root_and_leaves_images_without_features_out() -> None:
    assert feature_std(np.array([[2.0, 0], [0, 1]])) == pytest.approx(0.5**0.5)
    assert feature_std(np.array([[2.0, 0], [0, 1], [0, 0]])) == pytest.approx((1 / 3) ** 0.5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_features_that_overflowed_have_neither(value: float) -> None:
    x = cloud(50)
    x[3, 2] = value
    assert np.isnan(effective_rank(x))
    assert np.isnan(feature_std(x))
