"""Views: of any number of channels, in the range of the image, the seed's own, and with no fill color."""

from typing import get_args

import numpy as np
import pytest

from ssl_app.data.transforms import Augment, Preset, center

PRESETS = get_args(Preset)


def image_of(channels: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(0).random((side, side, channels), np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("preset", PRESETS)
def test_views_keep_size_channels_and_range_and_are_the_seeds_own(preset: Preset, channels: int) -> None:
    image = image_of(channels)
    kept = image.copy()
    augment = Augment(preset, 16, 20, True)
    views = [augment(image, seed) for seed in range(30)]
    assert {view.shape for view in views} == {(16, 16, channels)}
    assert {view.dtype for view in views} == {np.dtype(np.float32)}
    assert min(view.min() for view in views) >= 0
    assert max(view.max() for view in views) <= 1
    assert all(np.array_equal(view, augment(image, seed)) for seed, view in enumerate(views))
    different = len({view.tobytes() for view in views})
    assert different == 1 if preset == "none" else different > 12
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_is_filled_in(preset: Preset) -> None:
    image = np.full((16, 16, 1), 0.6, np.float32)  # no room to shift in: what lies outside is a reflection
    views = np.stack([Augment(preset, 16, 16, False)(image, seed) for seed in range(30)])
    assert np.ptp(views, axis=(1, 2, 3)).max() < 1e-6


def test_strong_takes_colors_away_at_times_and_light_never() -> None:
    gray = {
        preset: [np.ptp(Augment(preset, 16, 20, True)(image_of(3), seed), axis=2).max() < 1e-6 for seed in range(60)]
        for preset in ("light", "strong")
    }
    assert not any(gray["light"])
    assert 3 < sum(gray["strong"]) < 30  # a fifth


def test_the_center_is_cut_without_a_shift() -> None:
    image = image_of(2)[None]
    assert np.array_equal(center(image, 16), image[:, 2:18, 2:18])
    assert np.array_equal(Augment("none", 16, 20, True)(image[0], 3), image[0, 2:18, 2:18])
