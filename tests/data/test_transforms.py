"""Views: of any number of channels, in the range of the image, the seed's own, and with no fill color."""

import numpy as np
import pytest

from ssl_app.data.transforms import PRESETS, Frame, Mixed, center, preset


def image_of(channels: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(0).random((side, side, channels), np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("name", PRESETS)
def test_views_keep_size_channels_and_range_and_are_the_seeds_own(name: str, channels: int) -> None:
    image = image_of(channels)
    kept = image.copy()
    augmentation = preset(name, Frame(16, 20, channels))
    views = [augmentation(image, seed, 0) for seed in range(30)]
    assert {view.shape for view in views} == {(16, 16, channels)}
    assert {view.dtype for view in views} == {np.dtype(np.float32)}
    assert min(view.min() for view in views) >= 0
    assert max(view.max() for view in views) <= 1
    assert all(np.array_equal(view, augmentation(image, seed, 0)) for seed, view in enumerate(views))
    different = len({view.tobytes() for view in views})
    assert different == 1 if name == "none" else different > 12
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_is_filled_in(name: str) -> None:
    image = np.full((16, 16, 1), 0.6, np.float32)  # no room to shift in: what lies outside is a reflection
    augmentation = preset(name, Frame(16, 16, mirrors=False))
    views = np.stack([augmentation(image, seed, 0) for seed in range(30)])
    assert np.ptp(views, axis=(1, 2, 3)).max() < 1e-6


def test_strong_takes_colors_away_at_times_and_light_never() -> None:
    def grays(name: str) -> int:
        augmentation = preset(name, Frame(16, 20, channels=3))
        return sum(np.ptp(augmentation(image_of(3), seed, 0), axis=2).max() < 1e-6 for seed in range(60))

    assert grays("light") == 0
    assert 3 < grays("strong") < 30  # a fifth


def test_the_center_is_cut_without_a_shift() -> None:
    image = image_of(2)[None]
    assert np.array_equal(center(image, 16), image[:, 2:18, 2:18])
    assert np.array_equal(preset("none", Frame(16, 20, channels=2))(image[0], 3, 0), image[0, 2:18, 2:18])


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"none"}))
def test_images_whose_mirror_image_is_another_thing_are_not_flipped(name: str) -> None:
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[None, :, None].repeat(20, axis=0)  # brighter to the right

    def flipped(mirrors: bool, mirror: bool | None = None) -> int:
        augmentation = preset(name, Frame(16, 20, mirrors=mirrors), mirror)
        views = [augmentation(ramp, seed, 0) for seed in range(30)]
        return sum(view[:, 0].mean() > view[:, -1].mean() for view in views)

    assert flipped(False) == 0
    assert 5 < flipped(True) < 25
    assert flipped(True, mirror=False) == 0, "what the user says counts more"


def test_each_view_may_have_an_augmentation_of_its_own() -> None:
    mixed = Mixed(*(lambda image, seed, view, level=level: image * level for level in (1, 2)))
    image = image_of(1)
    for view, level in ((0, 1), (1, 2), (2, 2)):
        assert np.array_equal(mixed(image, 0, view), image * level)
