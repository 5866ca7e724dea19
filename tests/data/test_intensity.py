"""Values to [0, 1]: one pair for a set, the type's range, or every image by itself."""

import json

import numpy as np
import pytest

from ssl_app.data.intensity import PixelScaling, checked, measure
from ssl_app.data.outliers import histogram
from ssl_app.errors import DataError, SettingsError
from tests import toys

rng = np.random.default_rng(0)


def test_range_is_the_percentiles_of_the_indices_alone() -> None:
    images = rng.integers(100, 200, (40, 16, 16, 1), dtype=np.uint16)
    images[30:] = 60_000
    pixels = measure(images, np.arange(30), "range", 0)
    low, high = np.quantile(images[:30], [0.001, 0.999])
    assert abs(pixels.low - low) <= 1
    assert abs(pixels.high - high) <= 1
    scaled = pixels.scale(images)
    assert scaled.dtype == np.float32
    assert scaled[30:].max() == 1.0  # clipped
    assert pixels.mean == pytest.approx((scaled[:30].mean(),), abs=1e-5)
    assert pixels.std == pytest.approx((scaled[:30].std(),), abs=1e-5)


def test_counting_and_sorting_agree() -> None:
    images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    counted = measure(images, np.arange(20), "range", 0)
    ordered = measure(images.astype(np.float32), np.arange(20), "range", 0)
    assert abs(counted.low - ordered.low) <= 1
    assert abs(counted.high - ordered.high) <= 1
    assert counted.mean == pytest.approx(ordered.mean, abs=0.01)
    assert len(counted.mean) == 3


@pytest.mark.parametrize("most", [1000, 2000, 3000, 4000, 10**9])
def test_of_many_pixels_every_channel_is_sampled_alike(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_app.data.intensity.MOST_VALUES", most)
    monkeypatch.setattr("ssl_app.data.outliers.MOST_SAMPLED", most)
    images = rng.random((20, 20, 20, 3), np.float32) * np.float32([1, 10, 100])
    pixels = measure(images, np.arange(20), "range", 0)
    assert 97 < pixels.high <= 100
    values, counts = histogram(images, np.arange(20))
    assert 0.6 < counts[values < 10].sum() / counts.sum() < 0.75  # two channels, and a tenth of the third
    assert min(most, images.size) <= counts.sum() <= 2 * most


def test_one_hot_pixel_does_not_darken_the_set() -> None:
    images = rng.integers(0, 100, (10, 20, 20, 1), dtype=np.uint16)
    images[0, 0, 0] = 65_535
    assert measure(images, np.arange(10), "range", 0).high < 100


def test_a_nearly_black_set_keeps_its_light() -> None:
    images = np.zeros((10, 100, 100, 1), np.uint8)
    images[0, 0, 0] = 200
    assert measure(images, np.arange(10), "range", 0).high == 200


@pytest.mark.parametrize("intensity", ["range", "dtype", "per-image"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_images_divide_by_nothing(intensity: str, dtype: type) -> None:
    images = np.ones((3, 4, 4, 2), dtype)
    pixels = measure(images, np.arange(3), intensity, 0)
    assert np.isfinite(pixels.scale(images)).all()
    assert min(pixels.std) >= 0.01


def test_dtype_follows_the_array_at_hand() -> None:
    pixels = measure(np.full((1, 2, 2, 1), 255, np.uint8), np.arange(1), "dtype", 0)
    assert pixels.mean == (1.0,)
    assert pixels.scale(np.full((2, 2, 1), 65_535, np.uint16)).max() == 1.0
    assert pixels.scale(np.full((2, 2, 1), 0.5, np.float32)).max() == 0.5


def test_per_image_scales_each_alone_in_a_batch_of_any_shape() -> None:
    images = rng.integers(0, 50, (4, 8, 8, 1), dtype=np.uint8)
    images[2] += 200
    pixels = measure(images, np.arange(4), "per-image", 0)
    scaled = pixels.scale(images)
    assert (scaled.reshape(4, -1).max(1) == 1).all()
    assert (scaled.reshape(4, -1).min(1) == 0).all()
    assert np.array_equal(pixels.scale(images[2]), scaled[2])


def test_a_sample_is_seeded() -> None:
    images = rng.integers(0, 256, (2500, 2, 2, 1), dtype=np.uint8)
    assert measure(images, np.arange(2500), "range", 1) == measure(images, np.arange(2500), "range", 1)


def test_json_and_back() -> None:
    pixels = PixelScaling("range", 1.0, 2.5, (0.1, 0.2), (0.3, 0.4))
    assert PixelScaling.from_json(json.loads(json.dumps(pixels.to_json()))) == pixels


def test_another_depth_than_was_measured_is_refused() -> None:
    images = np.full((3, 4, 4, 1), 40000, np.uint16)
    images[0] = 0
    pixels = measure(images, [0, 1, 2], "range", 0)
    pixels.refuse_other_depth(np.dtype(np.uint16), "same.csv")
    with pytest.raises(DataError) as raised:
        pixels.refuse_other_depth(np.dtype(np.uint8), "new.csv")
    assert str(raised.value) == (
        "new.csv holds uint8 images, the network was trained on uint16 scaled from 0 to 40000; "
        "give images of that depth, or type ssl-app pretrain --intensity dtype"
    )
    measure(images, [0, 1, 2], "dtype", 0).refuse_other_depth(np.dtype(np.uint8), "new.csv")
    old = pixels.to_json()
    del old["dtype"]  # as checkpoints were written before
    PixelScaling.from_json(old).refuse_other_depth(np.dtype(np.uint8), "new.csv")


def test_a_window_is_taken_as_it_is_typed() -> None:
    images = rng.integers(-1000, 2000, (4, 8, 8, 1)).astype(np.float32)
    pixels = measure(images, np.arange(4), checked("window:-160.0,240"), 0)
    assert (pixels.intensity, pixels.low, pixels.high) == ("window:-160,240", -160, 240)
    assert np.allclose(pixels.scale(images), np.clip((images + 160) / 400, 0, 1), atol=1e-6)
    assert PixelScaling.from_json(json.loads(json.dumps(pixels.to_json()))) == pixels


@pytest.mark.parametrize("typed", [f"window:{text}" for text in ("", "1", "1,1", "2,1", "a,b", "0,inf", "1,2,3")])
def test_a_window_needs_two_numbers_in_order(typed: str) -> None:
    with pytest.raises(SettingsError) as raised:
        checked(typed)
    assert str(raised.value) == (
        f"the intensity is '{typed}'; expected two numbers, the lower one first, such as window:-160,240"
    )


def test_values_with_units_mean_the_same_in_every_type() -> None:
    images = rng.integers(0, 4096, (3, 8, 8, 1)).astype(np.float32)
    for intensity in ("range", "window:0,100"):
        pixels = measure(images, np.arange(3), intensity, 0, units="modality")
        pixels.refuse_other_depth(np.dtype(np.uint16), "mr", "modality")
        with pytest.raises(DataError) as raised:
            pixels.refuse_other_depth(np.dtype(np.float32), "float.csv")
        assert "holds float32 images, the network was trained on float32 in modality units" in str(raised.value)
    with pytest.raises(DataError, match="values in modality units have no range of their type; type intensity range"):
        measure(images, np.arange(3), "dtype", 0, units="modality")
    whole = measure(images.astype(np.uint16), np.arange(3), "range", 0, units="modality")
    whole.refuse_other_depth(np.dtype(np.uint16), "png")  # the same integers, exported


def test_twelve_bits_keep_their_levels_up_to_the_network() -> None:
    images = np.arange(4096, dtype=np.uint16).reshape(1, 64, 64, 1)
    rows = toys.rows(images, pixels=measure(images, [0], "range", 0))
    batch = next(toys.loader_of(rows, 1, "none").ordered())
    assert len(np.unique(batch.images.numpy())) > 4000
