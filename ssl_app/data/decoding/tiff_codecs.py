"""The compressions of TIFF: the bytes of one strip or tile unfolded, and never more of them than its tags promise.

LZW, PackBits, fax and Zstandard are undone by Pillow's libtiff, which is there already (imagecodecs is 79 MB more).
It is used as a codec only: the bytes of one segment are put into a TIFF of gray bytes, so that it applies no rule of
its own to white, alpha, bands, predictors or turns. Those are ours, and the same under every compression.
"""

import io
import lzma
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_app.data.decoding.limits import Unreadable

NONE, LZW, OLD_JPEG, PACKBITS, LZMA = 1, 5, 6, 32773, 34925
DEFLATE = (8, 32946, 50013)
FAX = (2, 3, 4, 32771)
BY_LIBTIFF = (LZW, PACKBITS, 50000, *FAX)
NAMES = {OLD_JPEG: "old JPEG", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
         34887: "LERC", 34933: "PNG", 34934: "JPEG XR", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
         34676: "SGILog", 34677: "SGILog", 32809: "ThunderScan", 32766: "NeXT"}  # fmt: skip
LZMA_MEMORY = 2**28  # bytes of a dictionary
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CUT, DAMAGED = "the file is cut short", "the file is damaged"


def unfold(data: bytes, compression: int, rows: int, row_bytes: int, options: int = 0) -> bytes:
    """rows x row_bytes bytes of a segment; those beyond are not unfolded. Raises Unreadable where there are fewer.

    `options` is the tag of a fax's encoding (T4Options or T6Options).
    """
    expected = rows * row_bytes
    if compression == NONE:
        found = data[:expected]
    elif compression in DEFLATE:
        inflater = zlib.decompressobj()
        found = inflater.decompress(data, expected)
        inflater.decompress(inflater.unconsumed_tail, 1)  # past the last byte lies the checksum
    elif compression == LZMA:
        found = lzma.LZMADecompressor(memlimit=LZMA_MEMORY).decompress(data, expected)
    elif compression in BY_LIBTIFF:
        found = by_libtiff(data, compression, rows, row_bytes, options)
    else:
        name = NAMES.get(compression, f"number {compression}")
        raise Unreadable(f"TIFF under the compression {name} is not read; save it with Deflate or LZW")
    if len(found) < expected:
        raise Unreadable(CUT)
    return found


def by_libtiff(data: bytes, compression: int, rows: int, row_bytes: int, options: int) -> bytes:
    """The segment as the only strip of a gray TIFF: of bytes, or of bits where the code counts them (fax)."""
    fax = compression in FAX
    bits = 1 if fax else 8
    tags = [(256, 4, row_bytes * 8 // bits), (257, 4, rows), (258, 3, bits), (259, 3, compression), (262, 3, 1)]
    start = 8 + 2 + 12 * (10 if fax else 9) + 4
    tags += [(273, 4, start), (277, 3, 1), (278, 4, rows), (279, 4, len(data))]
    if fax:
        tags.append((293 if compression == 4 else 292, 4, options))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with Image.open(io.BytesIO(header + data), formats=("TIFF",)) as image:
        image.load()
        return image.tobytes()


def unfold_jpeg(data: bytes, tables: bytes, color: int | None, most: tuple[int, int]) -> NDArray[Any]:
    """A segment that is a JPEG, with the tables of its page: (H, W, C) uint8, at most the rows and columns of `most`.

    `color` is what the page says of three samples: 1 for YCbCr, which becomes RGB, 0 for RGB; the file's own marks
    (JFIF, Adobe) are taken out, because a decoder would believe them first.
    """
    shape, body = markers(data)
    if shape is None or shape[0] > most[0] or shape[1] > most[1]:
        raise Unreadable(DAMAGED)
    if shape[2] not in (1, 3, 4):
        raise Unreadable(f"TIFF of JPEG with {shape[2]} samples is not read; save it with Deflate or LZW")
    mark = b"" if shape[2] == 1 else b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([color or 0])
    stream = b"\xff\xd8" + mark + markers(tables)[1] + body
    with Image.open(io.BytesIO(stream), formats=("JPEG",)) as image:
        if image.size != (shape[1], shape[0]):
            raise Unreadable(DAMAGED)
        image.load()
        array = np.asarray(image)
    if image.mode == "CMYK":  # Pillow turns ink over where it finds Adobe's mark
        array = 255 - array
    return array.reshape(shape)


def markers(stream: bytes) -> tuple[tuple[int, int, int] | None, bytes]:
    """(H, W, C) by the frame header of a JPEG stream if it has one, and the stream without SOI, APPn and comments."""
    shape: tuple[int, int, int] | None = None
    kept: list[bytes] = []
    at = 2
    if stream and stream[:2] != b"\xff\xd8":
        raise Unreadable(DAMAGED)
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            raise Unreadable(DAMAGED)
        kind = stream[at + 1]
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind == 0xDA:  # from the scan on, everything
            return shape, b"".join([*kept, stream[at:]])
        size = int.from_bytes(stream[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            precision, height, width, samples = struct.unpack(">BHHB", stream[at + 4 : at + 10].ljust(6, b"\0"))
            if precision != 8:
                raise Unreadable(f"TIFF of JPEG with {precision} bits is not read; save it with Deflate or LZW")
            shape = height, width, samples
        if not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            kept.append(stream[at : at + 2 + size])
        at += 2 + size
    return shape, b"".join(kept)
