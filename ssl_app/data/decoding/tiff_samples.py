"""The samples of a TIFF page as they are stored: segments unfolded, predictors undone, bits unpacked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding import tiff_codecs
from ssl_app.data.decoding.limits import Unreadable
from ssl_app.data.decoding.tiff_layout import JPEG, JPEG_TABLES, T4_OPTIONS, T6_OPTIONS, YCBCR, Layout

PREDICTED = (tiff_codecs.LZW, tiff_codecs.LZMA, 50000, *tiff_codecs.DEFLATE)  # by others the tag is not heeded
HORIZONTAL, FLOATING = 2, 3
BLOCK = 2**20  # samples unpacked at a time: they take sixteen times their room


def stored_samples(content: bytes, page: Any, layout: Layout) -> NDArray[Any]:
    """(H, W, S) of a page; YCbCr under JPEG comes as RGB. Raises Unreadable where a segment is cut or damaged.

    A segment of no bytes at no place is one that was never written (GDAL's sparse files): zeros.
    """
    array = np.zeros((layout.height, layout.width, layout.samples), layout.dtype)
    rows, columns = layout.segment
    places = [
        (plane, top, left)
        for plane in range(layout.planes)
        for top in range(0, layout.height, rows)
        for left in range(0, layout.width, columns)
    ]
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < len(places) or len(counts) < len(places):
        raise Unreadable("the file is damaged (segments are missing)")
    for (plane, top, left), offset, count in zip(places, offsets, counts, strict=False):
        if offset == 0 and count == 0:
            continue
        data = content[offset : offset + count]
        if len(data) < count or not data:
            raise Unreadable(tiff_codecs.CUT)
        high = rows if layout.tiled else min(rows, layout.height - top)
        block = segment_samples(data, page, layout, high)
        target = array[top : top + rows, left : left + columns]
        if layout.planar:
            target = target[..., plane : plane + 1]
        if block.shape[2] != target.shape[2] or block.shape[0] < target.shape[0] or block.shape[1] < target.shape[1]:
            raise Unreadable(tiff_codecs.DAMAGED)
        target[...] = block[: target.shape[0], : target.shape[1]]
    return array


def segment_samples(data: bytes, page: Any, layout: Layout, rows: int) -> NDArray[Any]:
    """(rows, columns, s) of one segment, with the samples that lie together in it."""
    columns = layout.segment[1]
    if layout.compression == JPEG:
        color = 1 if layout.photometric == YCBCR else 0
        tables = page.jpegtables or page.keyframe.tags.valueof(JPEG_TABLES) or b""
        return tiff_codecs.unfold_jpeg(data, tables, color, layout.segment)
    if layout.reversed_bits:
        data = data.translate(tiff_codecs.REVERSED)
    if layout.photometric == YCBCR and not layout.planar:
        return shared_colors(data, layout, rows)
    row_bytes = -(-columns * layout.together * layout.bits // 8)
    options = T6_OPTIONS if layout.compression == 4 else T4_OPTIONS
    found = tiff_codecs.unfold(
        data, layout.compression, rows, row_bytes, int(page.keyframe.tags.valueof(options, default=0))
    )
    stored = np.frombuffer(found, np.uint8).reshape(rows, row_bytes)
    samples = np.empty((rows, columns * layout.together), layout.dtype)
    step = max(1, BLOCK // samples.shape[1])  # a predictor takes four times the room of what it is undone on
    for top in range(0, rows, step):
        some = stored[top : top + step]
        samples[top : top + step] = predicted(some, layout, len(some))
    return samples.reshape(rows, columns, layout.together)


def predicted(stored: NDArray[np.uint8], layout: Layout, rows: int) -> NDArray[Any]:
    """(rows, bytes) -> (rows, samples) in the page's type, unpredicted (TIFF 6.0, section 14; TechNote 3)."""
    predictor = layout.predictor if layout.compression in PREDICTED else 1
    columns, together, size = layout.segment[1], layout.together, layout.dtype.itemsize
    if predictor not in (1, HORIZONTAL, FLOATING):
        raise Unreadable(f"TIFF with the predictor {predictor}; expected 1, 2 or 3")
    if predictor != 1 and (layout.bits < 8 or layout.bits % 8 or (predictor == FLOATING) > (layout.kind == "f")):
        raise Unreadable(f"TIFF with the predictor {predictor} of {layout.bits} bits")
    if predictor == FLOATING:
        summed = stored.reshape(rows, columns * size, together).cumsum(axis=1, dtype=np.uint8)
        planes = summed.reshape(rows, size, columns * together)  # the highest bytes of a row come first
        big = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">{layout.kind}{size}")
        return big.reshape(rows, columns * together).astype(layout.dtype)
    if layout.bits % 8:
        return unpacked_bits(stored, layout.bits, columns * together).astype(layout.dtype, copy=False)
    whole = stored.view(f"{layout.order}u{size}").astype(f"u{size}", copy=False)
    if predictor == HORIZONTAL:
        whole = whole.reshape(rows, columns, together).cumsum(axis=1, dtype=whole.dtype).reshape(rows, -1)
    return whole.view(layout.dtype)


def unpacked_bits(stored: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """(rows, bytes) -> (rows, count) unsigned samples of 1 to 15 bits; the highest bit is first."""
    array = np.empty((len(stored), count), np.uint8 if bits <= 8 else np.uint16)
    step = max(1, BLOCK // count)
    for top in range(0, len(stored), step):
        rows = stored[top : top + step]
        array[top : top + step] = np.unpackbits(rows, axis=1, count=count) if bits == 1 else eights(rows, bits, count)
    return array


def eights(rows: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """(rows, bytes) -> (rows, count): eight samples lie in as many bytes as a sample has bits."""
    groups = -(-count // 8)
    whole = np.zeros((len(rows), groups * bits), np.uint8)
    whole[:, : rows.shape[1]] = rows[:, : groups * bits]
    stored = whole.reshape(len(rows), groups, bits)
    samples = np.empty((len(rows), groups, 8), np.uint8 if bits <= 8 else np.uint16)
    for k in range(8):
        first, skipped = divmod(k * bits, 8)
        end = -(-(skipped + bits) // 8)  # bytes that the sample lies in, 3 at most
        wide: Any = np.uint16 if end <= 2 else np.uint32
        value: NDArray[Any] = stored[..., first].astype(wide)
        for byte in range(1, end):
            value <<= 8
            value |= stored[..., first + byte]
        value >>= 8 * end - skipped - bits
        value &= 2**bits - 1
        samples[..., k] = value
    return samples.reshape(len(rows), -1)[:, :count]


def shared_colors(data: bytes, layout: Layout, rows: int) -> NDArray[np.uint8]:
    """(rows, columns, 3) Y, Cb and Cr, where several pixels share their colors (TIFF 6.0, section 21)."""
    if layout.samples != 3 or (layout.predictor != 1 and layout.subsampling != (1, 1)):
        raise Unreadable("TIFF of YCbCr with further samples, or predicted, is not read; save it as RGB")
    across, down = layout.subsampling
    columns = layout.segment[1]
    units, high = -(-columns // across), -(-rows // down)
    together = across * down + 2
    found = tiff_codecs.unfold(data, layout.compression, high, units * together)
    stored = np.frombuffer(found, np.uint8).reshape(high, units, together)
    if layout.predictor == HORIZONTAL and layout.compression in PREDICTED:
        stored = stored.cumsum(axis=1, dtype=np.uint8)
    blocks = stored[..., :-2].reshape(high, units, down, across).transpose(0, 2, 1, 3)
    light = blocks.reshape(high * down, units * across, 1)
    colors = stored[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.concatenate([light, colors], axis=2)[:rows, :columns]
