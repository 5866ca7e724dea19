"""TIFF: tifffile reads the tags and finds the pages; the pixels are ours, by the same rules under every compression.

Pages of one kind are the bands of one picture. In such a stack a palette is a table for display, and its indices are
the values.
"""

import io
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import Limit, Unreadable
from ssl_app.data.decoding.orientation import TAG, turned
from ssl_app.data.decoding.pillow import decode_pillow
from ssl_app.data.decoding.tiff_codecs import CUT, OLD_JPEG
from ssl_app.data.decoding.tiff_color import colored
from ssl_app.data.decoding.tiff_layout import BLACK_IS_ZERO, PALETTE, RGB, Layout, layout_of
from ssl_app.data.decoding.tiff_samples import stored_samples

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_STREAM, JPEG_LENGTH = 513, 514
GDAL_NODATA = 42113  # a number as text: the value of pixels that hold nothing

# it logs, on stderr, what is wrong with a file; we raise a reason, or do without that tag
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def decode_tiff(content: bytes, limit: Limit) -> NDArray[Any]:
    """(H, W, C) in the file's own type, turned; integers that hold nothing are masked (`numpy.ma`), reals are nan.

    Raises Unreadable, and TooLarge by the tags alone.
    """
    with tifffile.TiffFile(io.BytesIO(content), _multifile=False) as file:  # OME-XML may name any file to open
        page = file.pages[0].aspage()
        if int(page.compression) == OLD_JPEG:
            array, as_stored = old_jpeg(content, page, limit), False
        else:
            layout = layout_of(page, limit)
            as_stored = layout.photometric in (BLACK_IS_ZERO, RGB) and not (layout.kind == "u" and layout.bits < 8)
            series = file.series[0]
            count = count_pages(series, page)
            if count == 1:
                array = colored(stored_samples(content, page, layout), page, layout)
            else:
                array = stacked(content, series, layout, count, limit)
        if as_stored or array.dtype.kind == "f":
            array = without_nodata(array, page)
        return turned(array, page.tags.valueof(TAG, default=1))


def without_nodata(array: NDArray[Any], page: Any) -> NDArray[Any]:
    """Real values with nan, and integers masked, where the file says that a value holds nothing."""
    try:
        value = float(str(page.tags.valueof(GDAL_NODATA, default="nan")).strip("\0 "))
    except ValueError:
        return array
    if not np.isfinite(value):
        return array
    if array.dtype.kind != "f":
        missing = array == value  # never, of a value that this type cannot hold
        return np.ma.MaskedArray(array, missing) if missing.any() else array
    with np.errstate(over="ignore"):
        missing = array == array.dtype.type(value)
    return np.where(missing, array.dtype.type("nan"), array) if missing.any() else array


def count_pages(series: Any, page: Any) -> int:
    """How many pages of one sample make the picture, or 1 with any. Raises Unreadable where it is none."""
    beside = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YX" and size > 1]
    if len(beside) > 1 or "Y" not in series.axes or "X" not in series.axes:
        raise Unreadable(f"TIFF with axes {series.axes} of {series.shape}; expected one picture, or pages as bands")
    return int(math.prod(series.shape) // max(1, math.prod(page.shape)))


def stacked(content: bytes, series: Any, layout: Layout, count: int, limit: Limit) -> NDArray[Any]:
    """(H, W, count): the pages of a series as bands, also where only the first of them has tags (ImageJ)."""
    height, width = layout.height, layout.width
    limit.admit((height, width, count), layout.dtype.itemsize)
    if series.dataoffset is not None and not layout.reversed_bits:
        dtype = layout.dtype.newbyteorder(layout.order)
        stop = series.dataoffset + height * width * count * dtype.itemsize
        if stop > len(content):
            raise Unreadable(CUT)
        pages = np.frombuffer(content[series.dataoffset : stop], dtype).reshape(count, height, width)
        array = np.ascontiguousarray(np.moveaxis(pages, 0, -1), layout.dtype)
    else:
        found = list(series)
        if len(found) != count or any(page is None for page in found):
            raise Unreadable(CUT)
        array = np.empty((height, width, count), layout.dtype)
        for at, page in enumerate(found):
            array[..., at] = stored_samples(content, page, layout)[..., 0]
    photometric = BLACK_IS_ZERO if layout.photometric == PALETTE else layout.photometric
    return colored(array, series.keyframe, replace(layout, samples=count, photometric=photometric, alpha=()))


def old_jpeg(content: bytes, page: Any, limit: Limit) -> NDArray[Any]:
    """The JPEG stream that a page of the old style points to (TIFF 6.0, section 22)."""
    start, size = (int(page.tags.valueof(tag, default=0)) for tag in (JPEG_STREAM, JPEG_LENGTH))
    stream = content[start : start + size] if size else content[start:]
    if not start or stream[:2] != b"\xff\xd8":
        raise Unreadable("TIFF of old-style JPEG in pieces is not read; save it with Deflate or LZW")
    return decode_pillow(stream, limit)
