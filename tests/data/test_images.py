"""Files to arrays: every depth survives, every named rule holds, what is broken says why."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_app.data.images import Unreadable, decode, unread_kind

rng = np.random.default_rng(0)
DEEP = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
RGB = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RGB[..., 0].copy()


def pillow(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def by_opencv(ending: str, array: np.ndarray) -> bytes:
    return cv2.imencode(ending, array)[1].tobytes()


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_sixteen_bits_survive(ending: str) -> None:
    array = decode(by_opencv(ending, DEEP), "a" + ending)
    assert array.dtype == np.uint16
    assert np.array_equal(array[..., 0], DEEP)


def test_sixteen_bit_color_is_rgb_and_its_alpha_is_dropped() -> None:
    color = rng.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    assert np.array_equal(decode(by_opencv(".png", color), "a.png"), color[..., 2::-1])
    assert np.array_equal(decode(by_opencv(".png", color[..., :3]), "a.png"), color[..., 2::-1])


def test_eight_bit_forms_have_a_rule() -> None:
    image = Image.fromarray(RGB)
    palette = image.convert("P")
    bits = Image.fromarray(GRAY > 128)
    alpha = Image.fromarray(GRAY)
    assert np.array_equal(decode(pillow(image), "a.png"), RGB)
    assert np.array_equal(decode(pillow(image.convert("RGBA")), "a.png"), RGB)
    assert np.array_equal(decode(pillow(palette), "a.png"), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decode(pillow(palette, "GIF"), "a.gif"), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decode(pillow(bits), "a.png")[..., 0], np.where(GRAY > 128, 255, 0))
    assert np.array_equal(decode(pillow(Image.merge("LA", (alpha, alpha))), "a.png")[..., 0], GRAY)
    cmyk = decode(pillow(image.resize((64, 64)).convert("CMYK"), "JPEG", quality=95), "a.jpg")
    assert cmyk.shape == (64, 64, 3)
    assert np.abs(cmyk.astype(int) - np.asarray(image.resize((64, 64)))).mean() < 12


def test_tiff_forms_have_a_rule() -> None:
    bands = rng.integers(0, 4096, (5, 6, 7), dtype=np.uint16)
    real = rng.normal(size=(5, 7)).astype(np.float32)
    assert np.array_equal(decode(tiff(bands, photometric="minisblack"), "a.tif"), np.moveaxis(bands, 0, -1))
    assert np.array_equal(decode(tiff(RGB, photometric="rgb"), "a.tif"), RGB)
    assert np.array_equal(
        decode(tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"), "a.tif"), RGB
    )
    four = np.concatenate([RGB, RGB[..., :1]], -1)
    assert decode(tiff(four, photometric="rgb", extrasamples=["unassalpha"]), "a.tif").shape == (5, 7, 3)
    assert np.array_equal(decode(tiff(four, photometric="rgb", extrasamples=["unspecified"]), "a.tif"), four)
    assert np.array_equal(decode(tiff(real), "a.tif")[..., 0], real)
    assert np.array_equal(decode(tiff(real.astype(np.float64)), "a.tif")[..., 0], real)
    assert np.array_equal(decode(tiff(GRAY, photometric="miniswhite"), "a.tif")[..., 0], 255 - GRAY)
    assert np.array_equal(
        decode(tiff(GRAY > 99, photometric="minisblack"), "a.tif")[..., 0], np.where(GRAY > 99, 255, 0)
    )
    palette = Image.fromarray(RGB).convert("P")
    assert np.array_equal(decode(pillow(palette, "TIFF"), "a.tif"), np.asarray(palette.convert("RGB")))
    assert decode(pillow(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "a.tif").shape == (5, 7, 3)


def test_integers_that_fit_become_uint16_and_others_float32() -> None:
    assert decode(tiff(DEEP.astype(np.int32)), "a.tif").dtype == np.uint16
    assert decode(tiff(DEEP.astype(np.int32) - 70_000), "a.tif").dtype == np.float32
    assert decode(tiff(np.ones((3, 3), np.int16)), "a.tif").dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_stays_so_and_what_is_too_large_for_single_precision_does_not(dtype: type) -> None:
    array = np.array([[1.0, np.nan], [np.inf, -2.0]], dtype)
    assert np.array_equal(decode(tiff(array), "a.tif")[..., 0], array.astype(np.float32), equal_nan=True)
    assert decode(tiff(np.array([[1e300, 1]])), "a.tif").max() == np.finfo(np.float32).max


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_applied_once_whatever_the_format(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(GRAY)
    exif = Image.Exif()
    exif[274] = orientation
    data = pillow(image, "PNG", exif=exif)
    meant = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, "a.png")[..., 0], meant)
    tag = [(274, "H", 1, orientation, True)]
    assert np.array_equal(decode(tiff(GRAY, extratags=tag), "a.tif")[..., 0], meant)
    palette = pillow(image.convert("P"), "TIFF", tiffinfo={274: orientation})
    assert np.array_equal(decode(palette, "a.tif")[..., 0], meant)
    turned = decode(pillow(image, "JPEG", exif=exif), "a.jpg")
    assert turned.shape[:2] == meant.shape


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.png", "the file is empty"),
        (b"no picture", "a.png", "not an image of a known format"),
        (b"\0" * 128 + b"DICM", "a", "DICOM is not read yet"),
        (b"abc", "a.nii.gz", "NIfTI is not read yet"),
        (Path("/nowhere/a.png"), "a.png", "the file is missing"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes | Path, name: str, reason: str) -> None:
    with pytest.raises(Unreadable) as raised:
        decode(content, name)
    assert str(raised.value) == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_unreadable_not_half_gray(kind: str) -> None:
    whole = pillow(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(Unreadable):
        decode(whole[: len(whole) // 2], "a." + kind.lower())


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_truncated_deep_file_is_unreadable(ending: str) -> None:
    whole = by_opencv(ending, rng.integers(0, 65536, (64, 64), dtype=np.uint16))
    with pytest.raises(Unreadable):
        decode(whole[: len(whole) // 2], "a" + ending)


def test_dicom_is_known_by_its_mark_and_by_its_name() -> None:
    assert unread_kind("x.DCM", b"") == "DICOM"
    assert unread_kind("x", b"\0" * 128 + b"DICM") == "DICOM"
    assert unread_kind("x.png", b"") is None


WEB_PAGE = "a web page, as a server answers in place of a file; download the file itself"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid 0\n", "a pointer of Git LFS; run git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "a HEIC picture; convert it to PNG or TIFF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(99), "an AVIF picture; convert it to PNG or TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 picture; convert it to PNG or TIFF"),
        (b"\xef\xbb\xbf<!doctype HTML>", WEB_PAGE),
        (b"%PDF-1.7" + bytes(99), "a PDF document; write its pages as PNG"),
    ],
)  # fmt: skip
def test_what_lies_in_the_place_of_a_picture_is_named(content: bytes, reason: str) -> None:
    """Files of telephones that were renamed, repositories without their large files, answers of servers."""
    with pytest.raises(Unreadable) as raised:
        decode(content, "scan.jpg")
    assert str(raised.value) == f"it is {reason}"


def test_cmyk_means_the_same_in_jpeg_and_in_tiff() -> None:
    """Adobe's JPEG holds what is left of the paper's white, a TIFF the ink."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 0], ink[8:, :, 3] = 255, 128  # cyan above, half black below
    image = Image.fromarray(ink, "CMYK")
    found = [decode(pillow(image, "JPEG", quality=100), "a.jpg"), decode(pillow(image, "TIFF"), "a.tif")]
    for array in found:
        assert np.abs(array[4, 8].astype(int) - [0, 255, 255]).max() <= 3
        assert np.abs(array[12, 8].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_colors_under_full_transparency_are_as_stored(kind: str) -> None:
    rgba = np.concatenate([RGB, np.zeros((5, 7, 1), np.uint8)], -1)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(pillow(Image.fromarray(rgba), kind, **options), f"a.{kind}"), RGB)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_a_moving_picture_the_first_is_taken(kind: str) -> None:
    frames = [Image.fromarray(np.full((6, 6), value, np.uint8)) for value in (10, 200, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = pillow(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decode(content, "a").astype(int) - 10).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(pillow(Image.fromarray(RGB), "JPEG", quality=95), "a.jpg")
    assert np.array_equal(decode(pillow(Image.fromarray(RGB), "JPEG", quality=95, exif=exif), "a.jpg"), plain)
