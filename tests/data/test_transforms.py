"""Views: of any number of channels, in the range of the image, the seed's own, and with no fill color."""

import numpy as np
import pytest

from ssl_app.data.transforms import (
    PRESETS,
    Augmentation,
    Frame,
    Mixed,
    MixedImages,
    center,
    light,
    none,
    preset,
    strong,
)


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
    views = np.stack([preset(name, Frame(16, 16), mirror=False)(image, seed, 0) for seed in range(30)])
    assert np.ptp(views, axis=(1, 2, 3)).max() < 1e-6


def test_strong_takes_colors_away_at_times_and_light_never() -> None:
    def grays(name: str) -> list[bool]:
        views = (preset(name, Frame(16, 20, 3))(image_of(3), seed, 0) for seed in range(60))
        return [bool(np.ptp(view, axis=2).max() < 1e-6) for view in views]

    gray = {name: grays(name) for name in ("light", "strong")}
    assert not any(gray["light"])
    assert 3 < sum(gray["strong"]) < 30  # a fifth


def test_the_center_is_cut_without_a_shift() -> None:
    image = image_of(2)[None]
    assert np.array_equal(center(image, 16), image[:, 2:18, 2:18])
    assert np.array_equal(none(Frame(16, 20))(image[0], 3), image[0, 2:18, 2:18])


def test_each_view_may_have_an_augmentation_of_its_own() -> None:
    frame = Frame(16, 20, mirrors=False)
    mixed: Augmentation = Mixed(none(frame), light(frame))
    image = image_of(1)
    assert np.array_equal(mixed(image, 3, 0), none(frame)(image, 3))
    assert np.array_equal(mixed(image, 3, 1), light(frame)(image, 3, 1))
    assert np.array_equal(mixed(image, 3, 2), light(frame)(image, 3, 2)), "further views take the last"


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"none"}))
def test_views_of_an_image_differ_though_they_share_its_seed(name: str) -> None:
    augmentation, image = preset(name, Frame(16, 20)), image_of(1)
    same = [np.array_equal(augmentation(image, seed, 0), augmentation(image, seed, 1)) for seed in range(40)]
    assert sum(same) < 10  # a shift may be the same by chance


def test_an_augmentation_drawn_for_an_image_is_that_of_all_its_views() -> None:
    frame, image = Frame(16, 20), image_of(1)
    mixed = MixedImages(none(frame), strong(frame))
    centered = [
        [np.array_equal(mixed(image, seed, view), none(frame)(image, 0)) for view in range(3)] for seed in range(90)
    ]
    assert all(len(set(views)) == 1 for views in centered)
    assert 25 < sum(views[0] for views in centered) < 65


def test_images_without_an_up_are_flipped_vertically() -> None:
    image = image_of(1, 16)
    for flips in (False, True):
        views = [
            preset("light", Frame(16, 16, vertical_flip=flips), mirror=False)(image, seed, 0) for seed in range(300)
        ]
        found = sum(np.abs(view - image[::-1]).mean() < 1e-6 for view in views)
        assert (found > 0) == flips


def test_what_the_images_say_of_mirrors_can_be_overruled() -> None:
    image = image_of(1, 16)
    mirrored = image[:, ::-1]
    views = [preset("light", Frame(16, 16, mirrors=False), mirror=True)(image, seed, 0) for seed in range(60)]
    plain = [preset("light", Frame(16, 16, mirrors=True), mirror=False)(image, seed, 0) for seed in range(60)]

    def nearer(view: np.ndarray) -> bool:
        return bool(np.abs(view - mirrored).mean() < np.abs(view - image).mean())

    assert any(nearer(view) for view in views)
    assert not any(np.array_equal(view, mirrored) for view in plain)
