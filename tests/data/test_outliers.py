"""A range that a few pixels set is found; natural tails are not taken for one."""

from collections.abc import Callable

import numpy as np
import pytest

from ssl_app.data.intensity import measure

rng = np.random.default_rng(0)


def tissue(dtype: type = np.uint16, high: int = 1000) -> np.ndarray:
    """Images whose values lie between 100 and `high`. (20, 40, 40, 1)."""
    return rng.integers(100, high, (20, 40, 40, 1)).astype(dtype)


def burnt_in() -> np.ndarray:
    """Text of the largest value in a corner of every ultrasound."""
    images = tissue(np.uint8, 110)
    images[:, :2, :7] = 255
    return images


def hot() -> np.ndarray:
    """Hot pixels, each of another value, in five of the images."""
    images = tissue()
    images[:5, ::9, ::9, 0] = rng.integers(50_000, 65_000, (5, 5, 5))
    return images


def dead() -> np.ndarray:
    """Few pixels far below all others, in real numbers."""
    images = tissue(np.float32)
    images[:, 0, :8] = -9999
    return images


def cable() -> np.ndarray:
    """Metal in CT: few, and higher than anything else."""
    images = tissue(np.float32)
    images[:, 20, 20:32, 0] = 30_000 + rng.normal(0, 10, (20, 12))
    return images


def one_hot() -> np.ndarray:
    """One pixel among images of one value."""
    images = np.full((20, 40, 40, 1), 7, np.uint16)
    images[3, 4, 5] = 60_000
    return images


@pytest.mark.parametrize(
    ("make", "window", "nodata"),
    [
        (burnt_in, "window:100,109", "nodata 255"),
        (hot, "window:100,999", None),
        (dead, "window:100,999", "nodata -9999"),
        (cable, "window:100,999", None),
        (one_hot, "between 7 and 7", "nodata 60000"),
    ],
)
def test_a_range_of_a_few_is_said_with_its_cure(
    make: Callable[[], np.ndarray], window: str, nodata: str | None, messages: list[str]
) -> None:
    images = make()
    measure(images, np.arange(len(images)), "range", 0)
    assert len(messages) == 1
    assert "% of the pixels" in messages[0]
    assert window in messages[0]
    assert ("nodata" in messages[0]) == (nodata is not None)
    assert nodata is None or nodata in messages[0]


def natural() -> list[np.ndarray]:
    """Dark grounds with bright tails, flat and even sets, two peaks."""
    shape = (20, 40, 40, 1)
    stars = rng.exponential(40, shape).clip(0, 60_000).astype(np.uint16)
    digits = np.where(rng.random(shape) < 0.7, 0, rng.integers(0, 255, shape)).astype(np.uint8)
    cells = np.zeros(shape, np.float32)
    cells[:, 10:20, 10:20] = rng.random((20, 10, 10, 1))
    return [stars, digits, cells, np.full(shape, 9, np.uint8), tissue(), rng.normal(0, 1, shape).astype(np.float32)]


@pytest.mark.parametrize("images", natural())
def test_a_natural_range_is_not_remarked_on(images: np.ndarray, messages: list[str]) -> None:
    measure(images, np.arange(len(images)), "range", 0)
    assert messages == []


@pytest.mark.parametrize("intensity", ["dtype", "per-image", "window:0,999"])
def test_a_range_that_was_chosen_is_not_remarked_on(intensity: str, messages: list[str]) -> None:
    measure(burnt_in(), np.arange(20), intensity, 0)
    assert messages == []
