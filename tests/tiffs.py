"""A small TIFF writer for tests: every layout that the reader knows, written from the specification (TIFF 6.0)."""

import io
import lzma
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
import tifffile
from PIL import Image

CODES = {"none": 1, "fax": 4, "lzw": 5, "jpeg": 7, "deflate": 8, "packbits": 32773, "lzma": 34925, "zstd": 50000}


@dataclass(frozen=True)
class Form:
    """How samples are written; the defaults are those of a plain gray file."""

    photometric: int = 1
    bits: int = 8
    kind: str = "u"
    compression: str = "none"
    orientation: int = 1
    predictor: int = 1
    order: str = "<"
    planar: bool = False
    tile: tuple[int, int] | None = None
    rows: int = 1  # a strip
    reversed_bits: bool = False
    extra: tuple[int, ...] = ()
    colors: tuple[int, ...] = ()


def write(stored: np.ndarray, form: Form) -> bytes:
    """(H, W, S) samples, as they are to lie in the file -> a TIFF."""
    height, width, samples = stored.shape
    high, wide = form.tile or (form.rows, width)
    planes = [stored[..., s : s + 1] for s in range(samples)] if form.planar else [stored]
    segments = []
    for plane in planes:
        for top in range(0, height, high):
            for left in range(0, width, wide):
                block = plane[top : top + high, left : left + wide]
                if form.tile:  # padded at the right and below
                    block = np.pad(block, ((0, high - block.shape[0]), (0, wide - block.shape[1]), (0, 0)))
                segments.append(compressed(block, form))
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)), 257: ("I", (height,)), 258: ("H", (form.bits,) * samples),
        259: ("H", (CODES[form.compression],)), 262: ("H", (form.photometric,)), 274: ("H", (form.orientation,)),
        277: ("H", (samples,)), 284: ("H", (2 if form.planar else 1,)), 317: ("H", (form.predictor,)),
        339: ("H", ({"u": 1, "i": 2, "f": 3}[form.kind],) * samples),
    }  # fmt: skip
    offsets, counts = (324, 325) if form.tile else (273, 279)
    if form.tile:
        tags |= {322: ("I", (wide,)), 323: ("I", (high,))}
    else:
        tags[278] = ("I", (form.rows,))
    if form.reversed_bits:
        tags[266] = ("H", (2,))
    if form.extra:
        tags[338] = ("H", form.extra)
    if form.colors:
        tags[320] = ("H", form.colors)
    starts = np.cumsum([8, *map(len, segments)]).tolist()
    tags |= {offsets: ("I", tuple(starts[:-1])), counts: ("I", tuple(map(len, segments)))}
    return assembled(b"".join(segments), tags, form.order)


def assembled(data: bytes, tags: dict[int, tuple[str, tuple[int, ...]]], order: str) -> bytes:
    """Header, data, one directory, and the values that do not fit into it."""
    start = 8 + len(data) + len(data) % 2
    body, beyond = [], b""
    free = start + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack(f"{order}I", free + len(beyond)), beyond + packed
        code = {"H": 3, "I": 4}[kind]
        body.append(struct.pack(f"{order}HHI", tag, code, len(values)) + packed.ljust(4, b"\0"))
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, start) + data + bytes(len(data) % 2)
    return head + struct.pack(f"{order}H", len(tags)) + b"".join(body) + bytes(4) + beyond


def compressed(block: np.ndarray, form: Form) -> bytes:
    """One strip or tile as it lies in the file."""
    if form.compression == "fax":
        return fax(block[..., 0] > 0)
    raw = packed_samples(block, form)
    if form.compression == "packbits":
        raw = b"".join(bytes([len(raw[i : i + 128]) - 1]) + raw[i : i + 128] for i in range(0, len(raw), 128))
    elif form.compression != "none":
        filters = [{"id": lzma.FILTER_LZMA2}]
        code = {"lzw": lzw, "deflate": zlib.compress, "lzma": lambda data: lzma.compress(data, filters=filters)}
        raw = code[form.compression](raw)
    return raw.translate(bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))) if form.reversed_bits else raw


def packed_samples(block: np.ndarray, form: Form) -> bytes:
    """(h, w, s) samples as bytes, predicted where the form says so; rows of odd bits are padded."""
    high, wide, together = block.shape
    if form.bits % 8:
        rows = block.reshape(high, -1)
        return b"".join(
            np.packbits([int(b) for v in row for b in f"{int(v):0{form.bits}b}"]).tobytes() for row in rows
        )
    size = form.bits // 8
    values = block.astype(f"{form.kind}{size}")
    if form.predictor == 3:
        big = values.astype(f">f{size}").reshape(high, wide * together).view(np.uint8)
        planes = big.reshape(high, wide * together, size).transpose(0, 2, 1).reshape(high, wide * size, together)
        return np.diff(planes, axis=1, prepend=np.uint8(0)).tobytes()
    values = values.view(f"u{size}")
    if form.predictor == 2:
        values = np.diff(values, axis=1, prepend=values.dtype.type(0))
    return values.astype(f"{form.order}u{size}").tobytes()


def lzw(data: bytes) -> bytes:
    """LZW with the highest bit first and widths that grow one code early (TIFF 6.0, section 13)."""
    codes: list[tuple[int, int]] = [(256, 9)]
    table = {bytes([i]): i for i in range(256)}
    free, word = 258, b""
    for i in range(len(data)):
        longer = word + data[i : i + 1]
        if longer in table:
            word = longer
            continue
        codes.append((table[word], (free).bit_length() if free >= 511 else 9))
        table[longer] = free
        free, word = free + 1, data[i : i + 1]
        if free == 4094:
            codes.append((256, 12))
            table, free = {bytes([i]): i for i in range(256)}, 258
    width = max(9, (free + 1).bit_length())
    codes += [(table[word], width), (257, max(9, (free + 2).bit_length()))]
    bits = "".join(f"{code:0{width}b}" for code, width in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def fax(ones: np.ndarray) -> bytes:
    """(h, w) bits by Pillow's libtiff, in CCITT's group 4."""
    buffer = io.BytesIO()
    Image.fromarray(ones).save(buffer, "TIFF", compression="group4", strip_size=2**20)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        page = file.pages[0]
        return buffer.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]


def variants(form: Form, samples: int) -> list[Form]:
    """The same picture in every way to cut and order it."""
    found = [form, replace(form, rows=9), replace(form, order=">"), replace(form, tile=(16, 16))]
    found.append(replace(form, reversed_bits=True, rows=2))
    if samples > 1:
        found += [replace(form, planar=True), replace(form, planar=True, tile=(16, 16), order=">")]
    if form.compression in ("lzw", "deflate", "lzma") and form.bits % 8 == 0:
        found += [replace(form, predictor=2), replace(form, predictor=2, order=">", rows=9)]
        if form.kind == "f":
            found += [replace(form, predictor=3), replace(form, predictor=3, order=">", tile=(16, 16))]
        if samples > 1:
            found.append(replace(form, predictor=2, planar=True))
    return found
