"""PNG by hand: every color type means the same in 8 and 16 bits, and no damage passes."""

import struct
import zlib

import numpy as np
import pytest

from ssl_app.data.images import Unreadable, decode

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
GAMMA, SRGB = (b"gAMA", struct.pack(">I", 10000)), (b"sRGB", b"\0")
TURNED = (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")  # a quarter, clockwise
XMP = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x='adobe:ns:meta/' tiff:Orientation=\"6\"/>")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: np.ndarray, kind: int, bits: int, *before: tuple[bytes, bytes], after: tuple[bytes, bytes] | None = None
) -> bytes:
    """(H, W, S) samples -> a PNG without filters, with further chunks before and after the pixels."""
    height, width, _ = samples.shape
    rows = samples.astype(">u2" if bits == 16 else "u1").reshape(height, -1)
    packed = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]) if bits < 8 else row for row in rows]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", data), *([after] if after else []), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def samples(count: int, bits: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, (3, 4, count))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("kind", "count", "kept"), [(GRAY, 1, 1), (RGB, 3, 3), (GRAY_ALPHA, 2, 1), (RGB_ALPHA, 4, 3)]
)
def test_alpha_is_dropped_and_gamma_is_not_applied(kind: int, count: int, kept: int, bits: int) -> None:
    stored = samples(count, bits)
    array = decode(png(stored, kind, bits, GAMMA, SRGB), "a.png")
    assert array.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(array, stored[..., :kept])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("kind", "count"), [(GRAY, 1), (RGB, 3)])
def test_a_transparent_color_stays_what_it_is(kind: int, count: int, bits: int) -> None:
    stored = samples(count, bits)
    transparent = (b"tRNS", struct.pack(f">{count}H", *stored[0, 0].tolist()))
    assert np.array_equal(decode(png(stored, kind, bits, transparent), "a.png"), stored)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_becomes_rgb_whatever_its_transparency(bits: int) -> None:
    stored = samples(1, bits)
    colors = np.random.default_rng(1).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    chunks = (b"PLTE", colors.tobytes()), (b"tRNS", bytes(2**bits))
    assert np.array_equal(decode(png(stored, PALETTE, bits, *chunks), "a.png"), colors[stored[..., 0]])


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
def test_few_bits_of_gray_are_spread_over_a_byte(bits: int, step: int) -> None:
    stored = samples(1, bits)
    assert np.array_equal(decode(png(stored, GRAY, bits), "a.png"), stored * step)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("where", [TURNED, XMP])
@pytest.mark.parametrize("late", [False, True])
def test_a_turn_is_applied_in_both_depths_wherever_it_stands(
    bits: int, where: tuple[bytes, bytes], late: bool
) -> None:
    stored = samples(3, bits)
    content = png(stored, RGB, bits, after=where) if late else png(stored, RGB, bits, where)
    assert np.array_equal(decode(content, "a.png"), np.rot90(stored, -1))


@pytest.mark.parametrize("bits", [8, 16])
def test_damage_is_noticed_in_both_depths(bits: int) -> None:
    stored = samples(3, bits)
    whole = png(stored, RGB, bits)
    changed = bytearray(whole)
    changed[whole.index(b"IDAT") + 20] ^= 1
    with pytest.raises(Unreadable, match=r"the file is damaged \(a checksum is wrong\)"):
        decode(bytes(changed), "a.png")
    with pytest.raises(Unreadable, match="the file is cut short"):
        decode(whole[:-30], "a.png")
    fewer = png(stored[:-1], RGB, bits)  # every checksum is right, and a row is missing
    height = whole.index(b"IHDR") + 8
    header = chunk(b"IHDR", fewer[height - 4 : height] + whole[height : height + 4] + fewer[height + 4 : height + 9])
    with pytest.raises(Unreadable):
        decode(fewer[:8] + header + fewer[8 + len(header) :], "a.png")
