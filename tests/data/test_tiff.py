"""A TIFF means the same under every compression, cut and order: depth, photometric, bands, orientation, by hand."""

import io
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_app.data.images import Unreadable, decode
from ssl_app.data.nodata import filled
from tests.tiffs import Form, assembled, variants, write

COMPRESSIONS = ["none", "lzw", "packbits", "deflate", "lzma"]
ALPHA, PREMULTIPLIED, UNSPECIFIED = 2, 1, 0
SEEN = {  # six pixels a to f, as they lie in the file, and as they are meant to be seen
    1: "abc def", 2: "cba fed", 3: "fed cba", 4: "def abc",
    5: "ad be cf", 6: "da eb fc", 7: "fc eb da", 8: "cf be ad",
}  # fmt: skip
BITS = ((0,), (1,), (1,), (0,), (1,), (0,))
RAMP = ((0,), (1,), (100,), (128,), (254,), (255,))
RGB = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7), (128, 64, 32), (0, 0, 0))
DEEP = ((0, 1, 2), (65535, 65534, 65533), (256, 255, 257), (4095, 4096, 9), (7, 6, 5), (30000, 20000, 10000))
REAL = ((-1.5,), (0.0,), (0.25,), (1e9,), (-3e-9,), (7.0,))
FIVE = tuple((i, 10 + i, 20 + i, 30 + i, 40 + i) for i in range(6))
Pixels = tuple[tuple[float, ...], ...]


class Case(NamedTuple):
    """Six pixels as they are stored, and what they mean."""

    form: Form
    stored: Pixels
    meant: Pixels
    dtype: str


def with_more(pixels: Pixels, *more: float) -> Pixels:
    return tuple((*pixel, *more) for pixel in pixels)


CASES = {
    "8 bit": Case(Form(), RAMP, RAMP, "u1"),
    "8 bit, white is zero": Case(Form(0), RAMP, ((255,), (254,), (155,), (127,), (1,), (0,)), "u1"),
    "8 bit, RGB": Case(Form(2), RGB, RGB, "u1"),
    "8 bit, RGB and alpha": Case(Form(2, extra=(ALPHA,)), with_more(RGB, 7), RGB, "u1"),
    "8 bit, RGB and premultiplied alpha": Case(Form(2, extra=(PREMULTIPLIED,)), with_more(RGB, 7), RGB, "u1"),
    "8 bit, RGB and a band": Case(Form(2, extra=(UNSPECIFIED,)), with_more(RGB, 7), with_more(RGB, 7), "u1"),
    "8 bit, RGB, alpha, a band": Case(Form(2, extra=(ALPHA, 0)), with_more(RGB, 7, 9), with_more(RGB, 9), "u1"),
    "8 bit, gray and alpha": Case(Form(extra=(ALPHA,)), with_more(RAMP, 3), RAMP, "u1"),
    "8 bit, white is zero and alpha": Case(
        Form(0, extra=(ALPHA,)), with_more(RAMP, 3), ((255,), (254,), (155,), (127,), (1,), (0,)), "u1"
    ),
    "8 bit, five bands": Case(Form(extra=(0, 0, 0, 0)), FIVE, FIVE, "u1"),
    "8 bit, palette": Case(
        Form(3, colors=tuple(257 * (255 - i) for i in range(256)) + tuple(257 * i for i in range(256)) + (0,) * 256),
        RAMP, ((255, 0, 0), (254, 1, 0), (155, 100, 0), (127, 128, 0), (1, 254, 0), (0, 255, 0)), "u1",
    ),
    "4 bit, palette of bytes": Case(
        Form(3, 4, colors=(*range(16), *range(100, 116), *range(16, 0, -1))),
        ((0,), (1,), (2,), (3,), (14,), (15,)),
        ((0, 100, 16), (1, 101, 15), (2, 102, 14), (3, 103, 13), (14, 114, 2), (15, 115, 1)), "u1",
    ),
    "8 bit, CMYK": Case(
        Form(5), ((0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 55), (255, 0, 51, 155)),
        ((255, 255, 255), (0, 255, 255), (255, 0, 0), (0, 0, 0), (200, 200, 200), (0, 100, 80)), "u1",
    ),
    "1 bit": Case(Form(bits=1), BITS, ((0,), (255,), (255,), (0,), (255,), (0,)), "u1"),
    "1 bit, white is zero": Case(
        Form(0, 1), BITS, ((255,), (0,), (0,), (255,), (0,), (255,)), "u1"
    ),
    "4 bit": Case(
        Form(bits=4), ((0,), (1,), (5,), (10,), (14,), (15,)), ((0,), (17,), (85,), (170,), (238,), (255,)), "u1"
    ),
    "12 bit, white is zero": Case(
        Form(0, 12), ((0,), (1,), (2,), (4093,), (4094,), (4095,)),
        ((4095,), (4094,), (4093,), (2,), (1,), (0,)), "u2",
    ),
    "16 bit": Case(Form(bits=16), tuple((r,) for r, _, _ in DEEP), tuple((r,) for r, _, _ in DEEP), "u2"),
    "16 bit, white is zero": Case(
        Form(0, 16), tuple((r,) for r, _, _ in DEEP), ((65535,), (0,), (65279,), (61440,), (65528,), (35535,)), "u2"
    ),
    "16 bit, RGB": Case(Form(2, 16), DEEP, DEEP, "u2"),
    "16 bit, RGB and alpha": Case(Form(2, 16, extra=(ALPHA,)), with_more(DEEP, 9), DEEP, "u2"),
    "16 bit, CMYK": Case(
        Form(5, 16),
        ((0, 0, 0, 0), (65535, 0, 0, 0), (0, 65535, 0, 0), (0, 0, 65535, 0), (1, 2, 3, 0), (0, 0, 0, 65535)),
        ((65535,) * 3, (0, 65535, 65535), (65535, 0, 65535), (65535, 65535, 0), (65534, 65533, 65532), (0, 0, 0)),
        "u2",
    ),
    "float": Case(Form(bits=32, kind="f"), REAL, REAL, "f4"),
    "float, white is zero": Case(Form(0, 32, "f"), REAL, REAL, "f4"),
    "float, RGB": Case(Form(2, 32, "f"), tuple(r * 3 for r in REAL), tuple(r * 3 for r in REAL), "f4"),
    "double, three bands": Case(Form(1, 64, "f", extra=(0, 0)), tuple(r * 3 for r in REAL),
                                tuple(r * 3 for r in REAL), "f4"),
    "signed": Case(Form(bits=16, kind="i"), ((-1024,), (0,), (1,), (2,), (3,), (4,)),
                   ((-1024,), (0,), (1,), (2,), (3,), (4,)), "f4"),
    "signed, white is zero": Case(Form(0, 16, "i"), ((-9,), (0,), (1,), (2,), (3,), (4,)),
                                  ((-9,), (0,), (1,), (2,), (3,), (4,)), "f4"),
}  # fmt: skip


def grid(pixels: Pixels, places: str) -> np.ndarray:
    """The pixels a to f where the letters stand: rows between blanks. -> (H, W, S)."""
    return np.array([[pixels["abcdef".index(letter)] for letter in row] for row in places.split()])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", CASES)
def test_a_picture_means_the_same_however_it_is_stored(name: str, compression: str) -> None:
    case = CASES[name]
    stored = grid(case.stored, SEEN[1])
    for number, form in enumerate(variants(replace(case.form, compression=compression), stored.shape[2])):
        for orientation in SEEN if number == 0 else (1, 6):
            array = decode(write(stored, replace(form, orientation=orientation)), "a.tif")
            assert array.dtype == np.dtype(case.dtype)
            assert np.array_equal(array, grid(case.meant, SEEN[orientation]).astype(case.dtype)), form


NOISE = np.random.default_rng(0).integers(0, 256, (64, 48, 1), dtype=np.uint8)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_long_segments_are_read_and_one_that_is_cut_is_not(compression: str) -> None:
    form = Form(compression=compression, rows=16)
    whole = write(NOISE, form)
    assert np.array_equal(decode(whole, "a.tif"), NOISE)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        counts, third = file.pages[0].tags[279], file.pages[0].databytecounts[2]
    at = counts.valueoffset + 2 * 4  # of the third of four strips
    short = whole[:at] + (third // 2).to_bytes(4, "little") + whole[at + 4 :]
    with pytest.raises(Unreadable):
        decode(short, "a.tif")
    with pytest.raises(Unreadable):
        decode(whole[: len(whole) // 2], "a.tif")


@pytest.mark.parametrize("compression", ["deflate", "lzma"])
def test_a_changed_byte_in_the_middle_of_a_strip_is_noticed(compression: str) -> None:
    whole = bytearray(write(NOISE, Form(compression=compression, rows=16)))
    whole[len(whole) // 2] ^= 8
    with pytest.raises(Unreadable):
        decode(bytes(whole), "a.tif")


def test_a_strip_that_was_never_written_is_zeros() -> None:
    with tifffile.TiffFile(io.BytesIO(write(NOISE, Form(rows=16)))) as file:
        places = [file.pages[0].tags[tag].valueoffset for tag in (273, 279)]
    content = bytearray(write(NOISE, Form(rows=16)))
    for place in places:
        content[place + 4 : place + 8] = bytes(4)
    array = decode(bytes(content), "a.tif")
    assert not array[16:32].any()
    assert np.array_equal(array[32:], NOISE[32:])


@pytest.mark.parametrize(("photometric", "white"), [(0, 0), (1, 255)])
def test_fax_follows_the_rule_of_white(photometric: int, white: int) -> None:
    ones = NOISE > 128
    array = decode(write(ones, Form(photometric, 1, compression="fax", rows=64)), "a.tif")
    assert np.array_equal(array, np.where(ones, white, 255 - white))


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpeg_in_tiff_is_read_by_the_colors_of_the_page(mode: str) -> None:
    ramp = np.add.outer(np.arange(64), 2 * np.arange(48)).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, 200 - ramp, ramp // 2], -1)).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression="jpeg", quality=98)
    meant = np.asarray(picture if mode == "L" else picture.convert("RGB")).reshape(64, 48, -1)
    assert np.abs(decode(buffer.getvalue(), "a.tif").astype(int) - meant).max() < 12


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_colors_shared_by_several_pixels_are_spread(subsampling: tuple[int, int], compression: str) -> None:
    across, down = subsampling
    high, wide = -(-6 // down), -(-8 // across)
    units = np.zeros((high, wide, across * down + 2), np.uint8)
    units[..., :-2] = 100  # light
    units[..., -2:] = 128, 228  # no blue beside the gray, much red
    stored = units.reshape(high, -1, 1)  # a row of units, as if of gray bytes
    content = write(stored, Form(compression=compression, rows=high))
    tags = {256: (8,), 257: (6,), 258: (8,) * 3, 262: (6,), 277: (3,), 278: (6,), 339: (1,) * 3, 530: subsampling}
    array = decode(with_tags(content, tags), "a.tif")
    assert array.shape == (6, 8, 3)
    assert (array == [100 + round(1.402 * 100), 100 - round(0.714 * 100), 100]).all()


def with_tags(content: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """The same data under other tags."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        start, size = page.dataoffsets[0], page.databytecounts[0]
        held = {tag.code: ("I" if tag.dtype == 4 else "H", np.ravel(tag.value).astype(int)) for tag in page.tags}
    held |= {tag: ("H", values) for tag, values in tags.items()}
    assert start == 8
    return assembled(content[8 : 8 + size], held, "<")


def test_pages_are_bands_and_keep_the_rules() -> None:
    bands = np.random.default_rng(1).integers(0, 4096, (5, 9, 7), dtype=np.uint16)
    meant = np.moveaxis(bands, 0, -1)
    for options in (
        {},
        {"imagej": True},
        {"ome": True},
        {"compression": "zlib"},
        {"metadata": None},
        {"byteorder": ">"},
    ):
        assert np.array_equal(decode(by_tifffile(bands, **options), "a.tif"), meant), options
    for options in ({}, {"compression": "zlib"}):
        white = by_tifffile(bands, photometric="miniswhite", **options)
        assert np.array_equal(decode(white, "a.tif"), 65535 - meant), options
    with pytest.raises(Unreadable, match=r"TIFF with axes \w+ of \(2, 5, 7, 3\); expected one picture"):
        decode(by_tifffile(np.zeros((2, 5, 7, 3), np.uint8), photometric="rgb"), "a.tif")


def by_tifffile(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({262: (8,), 277: (3,), 258: (8, 8, 8)}, "TIFF of CIELab is not read; save it as gray or RGB"),
        ({259: (34712,)}, "TIFF under the compression JPEG 2000 is not read; save it with Deflate or LZW"),
        ({259: (77,)}, "TIFF under the compression number 77 is not read; save it with Deflate or LZW"),
        ({258: (8, 16), 277: (2,)}, "TIFF with samples of (8, 16) bits; expected one number for all"),
        ({339: (6,), 258: (64,)}, "TIFF with samples of 64 bits in format 6"),
        ({262: (2,)}, "the file is damaged (its tags contradict each other)"),
        ({278: (1,)}, "the file is damaged (segments are missing)"),
    ],
)
def test_what_is_not_understood_says_why(tags: dict[int, tuple[int, ...]], reason: str) -> None:
    with pytest.raises(Unreadable) as raised:
        decode(with_tags(write(NOISE, Form(rows=64)), tags), "a.tif")
    assert str(raised.value) == reason


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [("float32", -9999.0, "-9999"), ("float64", -1.5, "-1.5 \0"), ("float32", np.float32(-3.4e38), "-3.4e+38")],
)
def test_real_values_that_the_file_calls_nodata_hold_nothing(dtype: str, value: float, text: str) -> None:
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    pixels[1, 2] = value
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, extratags=[(42113, "s", 0, text, True)])
    found = decode(file.getvalue(), "a.tif")
    assert np.isnan(found[1, 2, 0])
    assert np.isnan(found).sum() == 1


@pytest.mark.parametrize(
    ("dtype", "text"), [("uint8", "0"), ("uint16", "7"), ("int16", "-9999"), ("int32", "-9999"), ("uint32", "0")]
)
@pytest.mark.parametrize("bands", [1, 4])
def test_integers_that_the_file_calls_nodata_hold_nothing(dtype: str, text: str, bands: int) -> None:
    pixels = np.arange(1, 1 + 12 * bands).astype(dtype).reshape(3, 4, bands)
    pixels[pixels == int(text)] += 1
    pixels[1, 2] = int(text)
    file = io.BytesIO()
    layout = {"planarconfig": "contig", "extrasamples": [0] * (bands - 1)} if bands > 1 else {}
    tags = [(42113, "s", 0, text, True)]
    held = pixels if bands > 1 else pixels[..., 0]
    tifffile.imwrite(file, held, photometric="minisblack", **layout, extratags=tags)
    found, count = filled(decode(file.getvalue(), "a.tif"), None)
    rest = np.delete(pixels.reshape(12, bands), 6, axis=0)
    assert count == bands
    assert found.dtype == {"uint8": "u1", "int16": "f4"}.get(dtype, "u2")  # a hole makes no integer a real number
    assert np.abs(found[1, 2] - rest.mean(axis=0, dtype=np.float64)).max() <= 0.5
    assert np.array_equal(np.delete(found.reshape(12, bands), 6, axis=0), rest)


def test_the_holes_of_a_picture_turn_with_it() -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, extratags=[(42113, "s", 0, "0", True), (274, "H", 1, 3, True)])  # by half a turn
    assert np.argwhere(np.ma.getmaskarray(decode(file.getvalue(), "a.tif"))).tolist() == [[2, 3, 0]]


def test_a_picture_of_several_pages_keeps_its_holes(tmp_path: Path) -> None:
    pages = np.arange(1, 25, dtype=np.uint16).reshape(2, 3, 4)
    pages[1, 0, 0] = 0
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", extratags=[(42113, "s", 0, "0", True)])
    found = decode(tmp_path / "a.tif", "a.tif")
    assert found.shape == (3, 4, 2)
    assert np.argwhere(np.ma.getmaskarray(found)).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(("photometric", "held"), [(0, False), (1, True), (3, False)])
def test_an_index_of_a_palette_or_a_value_turned_over_is_no_hole(photometric: int, held: bool) -> None:
    pixels = np.array([[[0], [100], [155]]], dtype=np.uint8)
    form = Form(photometric, colors=tuple(257 * i for i in range(256)) * 3 if photometric == 3 else ())
    found = decode(with_tags(write(pixels, form), {42113: (100,)}), "a.tif")
    assert isinstance(found, np.ma.MaskedArray) == held


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("uint16", "99"),
        ("uint8", "-9999"),
        ("uint16", "none"),
        ("float32", "none"),
        ("float32", "nan"),
        ("float32", "1e999"),
    ],
)
def test_a_value_that_none_of_the_pixels_can_have_changes_nothing(dtype: str, text: str) -> None:
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, extratags=[(42113, "s", 0, text, True)])
    assert np.array_equal(decode(file.getvalue(), "a.tif")[..., 0], pixels)
