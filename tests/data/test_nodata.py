"""Pixels without a value: filled before images are shrunk, and found where nobody has named them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from ssl_app.data.images import Unreadable
from ssl_app.data.nodata import far_value, filled
from ssl_app.data.packing import Packed, pack
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import DataError

rng = np.random.default_rng(0)
DEEP = rng.integers(900, 1300, (20, 20, 1), dtype=np.uint16)
CORNER = np.add.outer(np.arange(20), np.arange(20))[..., None] < 6
LARGEST = float(np.finfo(np.float32).max)


def bordered(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[:3] = array[:, -3:] = value
    return array


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (bordered(DEEP, 65535), 65535),
        (bordered(DEEP, 0), 0),
        (bordered(DEEP.astype(np.float32), LARGEST), LARGEST),
        (bordered(DEEP.astype(np.float32), -9999), -9999),
        (bordered(DEEP.astype(np.float32) / 2000, -3.4e38), np.float32(-3.4e38)),
        (np.where(rng.random((20, 20, 1)) < 0.05, 65535, DEEP).astype(np.uint16), 65535),
    ],
)
def test_a_value_far_from_all_others_is_found_at_borders_and_scattered(array: np.ndarray, value: float) -> None:
    assert far_value(array) == value


@pytest.mark.parametrize(
    "array",
    [
        DEEP,
        bordered(DEEP, 1300),
        bordered(DEEP.astype(np.float32) * 4, 2800),  # air around a body
        np.full((9, 9, 1), 7, np.uint16),
        (DEEP > 1100).astype(np.uint16),  # two values
        bordered((DEEP // 10).astype(np.uint8), 255),  # of eight bits all are kept
        np.full((9, 9, 1), np.nan, np.float32),
    ],
)
def test_ordinary_values_are_not(array: np.ndarray) -> None:
    assert far_value(array) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_filled_pixels_take_the_mean_of_their_channel(dtype: type) -> None:
    array = np.stack([np.full((4, 4), 10), np.full((4, 4), 200)], -1).astype(dtype)
    array[1, 1, 0], array[2, 2, 0], array[0] = 12, 8, 99
    result, count = filled(array, 99)
    assert count == 8
    assert result.dtype == dtype
    assert (result[0] == [10, 200]).all()
    assert np.array_equal(result[1:], array[1:])
    assert (array[0] == 99).all()  # the caller's own is left alone
    with pytest.raises(Unreadable, match="no pixel has a value other than 99"):
        filled(array[:1], 99)


def test_what_is_not_finite_takes_the_mean_as_well() -> None:
    array = np.array([[1, np.nan], [np.inf, 3]], np.float32)[..., None]
    assert filled(array, None)[0][..., 0].tolist() == [[1, 2], [2, 3]]
    assert filled(array, 3)[0][..., 0].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(Unreadable, match=r"no pixel has a value$"):
        filled(np.full((2, 2, 1), np.nan, np.float32), None)


def packed(data: Path, cache: Path, **pixels: float) -> Packed:
    return pack(open_source(str(data), Columns()), PixelSpec(10, pack_side=10, **pixels), cache)


def test_a_pack_says_what_it_found_and_what_to_type_also_from_the_cache(tmp_path: Path) -> None:
    for number in range(3):
        image = bordered(DEEP, 65535) if number else DEEP
        (tmp_path / "set").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "set" / f"{number}.tif", image[..., 0])
    for _ in range(2):
        found = packed(tmp_path / "set", tmp_path / "cache")
        assert [str(note) for note in found.notes] == [
            "2 images (the first is 1.tif) hold many pixels of 65535, far from all other values; "
            "type nodata 65535 if it means no pixel"
        ]
        assert found.images.max() == 65535
    cured = packed(tmp_path / "set", tmp_path / "cache", nodata=65535)
    assert [str(note) for note in cured.notes] == [
        "2 images (the first is 1.tif) hold pixels that are 65535, not finite, or nodata by their file: they "
        "take the image's mean"
    ]
    assert 900 <= cured.images.min() <= cured.images.max() < 1300


def test_an_image_of_nodata_alone_is_unreadable(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.full((9, 9), 65535, np.uint16))
    with pytest.raises(DataError, match="no pixel has a value other than 65535"):
        packed(tmp_path, tmp_path / "cache", nodata=65535)


@pytest.mark.parametrize(
    ("name", "array", "value"),
    [
        # the lowest of 16 signed bits, as maps of heights have it around them
        ("height.tif", bordered(DEEP.astype(np.int16), -32768)[..., 0], "-32768"),
        # of a simulation, in a stack of slices
        ("stack.npy", np.stack([bordered(DEEP.astype(np.float32), 1e20)[..., 0]] * 3), "1.00000002e+20"),
        # in every band, in the corners alone
        ("color.png", np.where(CORNER, 65535, DEEP).astype(np.uint16).repeat(3, 2), "65535"),
        # of a detector whose dead columns read nothing
        ("dead.tif", np.where(np.arange(20)[None, :] == 7, 0, DEEP[..., 0] + 9000).astype(np.uint16), "0"),
    ],
)  # fmt: skip
def test_nodata_of_other_kinds_of_files_is_found_and_settled(
    name: str, array: np.ndarray, value: str, tmp_path: Path
) -> None:
    path = tmp_path / "set" / name
    path.parent.mkdir()
    if name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith(".png"):
        path.write_bytes(cv2.imencode(".png", array)[1].tobytes())
    else:
        tifffile.imwrite(path, array)
    notes = [str(note) for note in packed(path.parent, tmp_path / "cache").notes]
    assert any(f"many pixels of {value}, far from all other values; type nodata {value}" in note for note in notes)
    cured = packed(path.parent, tmp_path / "cache", nodata=float(value))
    assert 899 <= cured.images.min() <= cured.images.max() <= 11000


def test_one_band_without_a_value_takes_its_own_mean() -> None:
    """Not that of the other bands, which may be of another size; a band of nothing takes that of all."""
    array = np.stack([np.full((6, 6), 1.0), np.full((6, 6), 1000.0), np.full((6, 6), np.inf)], -1).astype(np.float32)
    array[2:4, :, 1] = -np.inf
    image, count = filled(array, None)
    assert count == 12 + 36
    assert (image[..., 1] == 1000).all()
    assert np.isclose(image[..., 2], (36 * 1 + 24 * 1000) / 60).all()
