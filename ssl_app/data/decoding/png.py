"""PNG: checked for damage by us, because the decoders fill in what is missing; 16 bits by OpenCV, the rest by Pillow.

Gamma, sRGB and color profiles are not applied: the values are those that were written. A transparent color (tRNS)
is alpha, and dropped like it.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_app.data.decoding.limits import Limit, Unreadable
from ssl_app.data.decoding.orientation import TAG, turned
from ssl_app.data.decoding.pillow import decode_pillow

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type (PNG, 3rd edition, section 11.2.1)
GRAY = (0, 4)
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
BLOCK = 2**20  # bytes inflated at a time


def decode_png(content: bytes, limit: Limit) -> NDArray[Any]:
    """(H, W) or (H, W, 3) in 8 or 16 bits. Raises Unreadable, for a chunk whose checksum is wrong too."""
    chunks = list(checked_chunks(content))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise Unreadable("the file is damaged")
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if kind not in SAMPLES:
        raise Unreadable("the file is damaged")
    limit.admit((height, width, max(SAMPLES[kind], 3 if kind == 3 else 1)), 2 if bits == 16 else 1)
    refuse_other_length(chunks, (height, width), SAMPLES[kind] * bits, bool(interlaced))
    if bits != 16:
        return decode_pillow(content, limit)
    array: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.shape[:2] != (height, width):
        raise Unreadable("the file is damaged")
    if array.ndim == 3:  # OpenCV spreads gray and alpha over four channels
        array = array[..., 0] if kind in GRAY else array[..., 2::-1]  # BGR(A) -> RGB
    return turned(array, orientation(content, chunks))


def checked_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, body) of every chunk up to IEND. Raises Unreadable where one that matters is cut or has changed."""
    at, view = len(SIGNATURE), memoryview(content)
    while at < len(content):
        size = int.from_bytes(view[at : at + 4], "big")
        kind, body = bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + size]
        sum_at = at + 8 + size
        if len(body) < size or len(content) < sum_at + 4:
            raise Unreadable("the file is cut short")
        critical = not kind[0] & 32  # a capital letter: the pixels need it
        if critical and zlib.crc32(view[at + 4 : sum_at]) != int.from_bytes(view[sum_at : sum_at + 4], "big"):
            raise Unreadable("the file is damaged (a checksum is wrong)")
        yield kind, body
        if kind == b"IEND":
            return
        at = sum_at + 4


def refuse_other_length(
    chunks: list[tuple[bytes, memoryview]], shape: tuple[int, int], pixel: int, interlaced: bool
) -> None:
    """Raise Unreadable where the data unfold to fewer bytes than pixels of `pixel` bits need, or far more."""
    height, width = shape
    expected = 0
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-max(0, height - top) // down), -(-max(0, width - left) // right)
        expected += rows * (-(-columns * pixel // 8) + 1) if columns else 0  # a byte a row names its filter
    inflater, found = zlib.decompressobj(), 0
    for kind, body in chunks:
        rest: bytes | memoryview = body if kind == b"IDAT" else b""
        while rest and found <= expected + BLOCK:
            found += len(inflater.decompress(rest, BLOCK))
            rest = inflater.unconsumed_tail
    while found <= expected + BLOCK and (more := inflater.decompress(inflater.unconsumed_tail, BLOCK)):
        found += len(more)
    if found < expected:
        raise Unreadable("the file is cut short")
    if found > expected + BLOCK:  # a decoder would unfold all of it, to find out that it is too much
        raise Unreadable("the file unfolds to more than its header says")


def orientation(content: bytes, chunks: list[tuple[bytes, memoryview]]) -> object:
    """The EXIF orientation, read by Pillow only where something in the file can hold one: it decodes once more."""
    marks = [kind + bytes(body[:20]) for kind, body in chunks if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt")]
    if not any(mark[:4] == b"eXIf" or b"xmp" in mark or b"Raw profile" in mark for mark in marks):
        return 1
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.load()
        return image.getexif().get(TAG, 1)
