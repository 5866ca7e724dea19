"""TIFF files of several pages (OME-TIFF and ImageJ's too): each page an image, an axis C the bands; one such file.

`stack.tif#3` is the fourth picture of the file: pages in their order, those of several channels taken together. In a
folder of pictures, and where a manifest lists them, TIFF files are read by the same rule.
"""

import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ssl_app.data.files import Files
from ssl_app.data.images import Unreadable, decode
from ssl_app.data.members import ONE, Look, Read
from ssl_app.data.sources.base import Columns

# it logs, on stderr, what is wrong with a file; we have a reason for each image
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

ENDINGS = (".tif", ".tiff")
DESCRIPTION, SEGMENTS = 270, {273: 279, 324: 325}  # offsets of strips and tiles, and the tags with their lengths
MOST_CODE = 1024  # tags above are not about pixels: EXIF, XMP, a microscope's own
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class Tiff(Files):
    """Pages, each of them decoded as a file of one picture is."""

    kind = "TIFF"
    among_pictures = True

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """By the ending."""
        return name.lower().endswith(ENDINGS)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is one file of several pictures; a folder is one of pictures, whatever their kinds."""
        path = Path(data)
        if not (cls.recognizes(data, b"") and path.is_file()):
            return False
        try:
            return cls.look(path, Columns()).images != ONE
        except Exception:  # damaged: as a source it says of what kind
            return True

    @classmethod
    def look(cls, path: Path, columns: Columns) -> Look:
        """As many images as there are pages, or places of all axes but C."""
        if one_page_alone(path):
            return Look()
        with tifffile.TiffFile(path) as file:
            found = pictures(file)
        return Look(tuple(map(str, range(len(found))))) if len(found) > 1 else Look()

    @classmethod
    @contextmanager
    def opened(cls, path: Path, columns: Columns, max_image_mb: int) -> Iterator[Read]:
        """The file, of which one picture is read at a time."""
        with tifffile.TiffFile(path) as file:
            found = pictures(file)

            def read(name: str) -> NDArray[Any]:
                picture = found[int(name)]
                bands = [picture.band(file, page, path.name, max_image_mb) for page in picture.pages]
                return bands[0] if len(bands) == 1 else joined(bands)

            yield read


def joined(bands: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(H, W, C) of single bands; what is masked stays masked."""
    masked = any(isinstance(band, np.ma.MaskedArray) for band in bands)
    found: NDArray[Any] = (np.ma.concatenate if masked else np.concatenate)(bands, axis=-1)
    return found


@dataclass(frozen=True)
class Picture:
    """One picture of a file: a page, or one for each channel."""

    series: Any  # tifffile's
    pages: tuple[int, ...]

    def band(self, file: Any, page: int, name: str, max_image_mb: int) -> NDArray[Any]:
        """A page, (H, W, C). Raises Unreadable."""
        if len(self.series.pages) == 1 and page:  # ImageJ: one page with tags, the others' pixels behind its own
            first = self.series.keyframe
            dtype = first.dtype.newbyteorder(file.byteorder)
            file.filehandle.seek(self.series.dataoffset + page * first.size * dtype.itemsize)
            content = file.filehandle.read(first.size * dtype.itemsize)
            if len(content) < first.size * dtype.itemsize:
                raise Unreadable("the file is cut short")
            array = np.frombuffer(content, dtype).reshape(first.shape)
            return array if array.ndim == 3 else array[..., None]
        found = self.series.pages[page]
        if found is None:
            raise Unreadable("the page is missing")
        return decode(PageFile(file).of(found.aspage()), name, max_image_mb)


def pictures(file: Any) -> list[Picture]:
    """All pictures of a file in their order, without reduced copies. Raises whatever tifffile does."""
    found = []
    for series in file.series:
        page = series.keyframe
        if page.is_reduced:  # a thumbnail
            continue
        outer = series.axes[: len(series.axes) - len(page.axes)]
        sizes = series.shape[: len(outer)]
        order = np.arange(int(np.prod(sizes, dtype=int))).reshape(sizes)
        channels = [axis for axis, letter in enumerate(outer) if letter == "C"]
        order = np.moveaxis(order, channels, range(-len(channels), 0))
        bands = int(np.prod([sizes[axis] for axis in channels], dtype=int))
        found += [Picture(series, tuple(map(int, pages))) for pages in order.reshape(-1, bands)]
    return found


def one_page_alone(path: Path) -> bool:
    """Whether it is a plain file of one page, by its first directory alone: most are, and tifffile takes longer."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or struct.unpack(f"{order}H", head[2:4])[0] != 42:
            return False
        file.seek(struct.unpack(f"{order}I", head[4:8])[0])
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = file.read(12 * count)
        following = file.read(4)
    codes = [struct.unpack_from(f"{order}H", entries, 12 * i)[0] for i in range(count)]
    return following == bytes(4) and DESCRIPTION not in codes


class PageFile:
    """A page as a TIFF file of its own, with the tags that its pixels need, for the decoder of pictures."""

    def __init__(self, file: Any) -> None:
        """Begin one like `file`: its byte order, and its size of offsets."""
        self.handle, self.order, self.big = file.filehandle, file.byteorder, file.is_bigtiff
        self.pointer, self.width = ("Q", 8) if self.big else ("I", 4)
        self.out = bytearray(16 if self.big else 8)

    def pack(self, form: str, *values: int) -> bytes:
        """Numbers in the file's byte order."""
        return struct.pack(self.order + form, *values)

    def placed(self, content: bytes) -> bytes:
        """A tag's value as its entry holds it: itself, or where it is put."""
        if len(content) <= self.width:
            return content.ljust(self.width, b"\0")
        self.out += bytes(len(self.out) % 2)
        self.out += content
        return self.pack(self.pointer, len(self.out) - len(content))

    def entries(self, page: Any) -> Iterator[tuple[int, int, int, bytes]]:
        """(code, type, count, value) of the tags about pixels, their data copied. Raises Unreadable."""
        self.handle.seek(page.offset)
        (count,) = struct.unpack(self.order + ("Q" if self.big else "H"), self.handle.read(8 if self.big else 2))
        size = 4 + 2 * self.width
        raw = self.handle.read(size * count)
        for at in range(0, len(raw), size):
            code, kind, number = struct.unpack_from(f"{self.order}HH{self.pointer}", raw, at)
            if code in SEGMENTS:
                starts, lengths = self.segments(page)
                for tag, values in ((code, starts), (SEGMENTS[code], lengths)):
                    packed = self.pack(f"{len(values)}{self.pointer}", *values)
                    yield tag, 16 if self.big else 4, len(values), self.placed(packed)
            elif code < MOST_CODE and code != DESCRIPTION and kind in SIZES and code not in SEGMENTS.values():
                value = raw[at + size - self.width : at + size]
                if SIZES[kind] * number > self.width:
                    self.handle.seek(struct.unpack(self.order + self.pointer, value)[0])
                    value = self.placed(self.handle.read(SIZES[kind] * number))
                yield code, kind, number, value

    def segments(self, page: Any) -> tuple[list[int], list[int]]:
        """Where strips or tiles lie in this file, and their lengths, after copying them. Raises Unreadable."""
        if sum(page.databytecounts) > self.handle.size:
            raise Unreadable("the file is cut short")
        starts = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            self.handle.seek(offset)
            starts.append(len(self.out))
            self.out += self.handle.read(length)
        return starts, list(page.databytecounts)

    def of(self, page: Any) -> bytes:
        """The whole file of a page of the other one."""
        entries = sorted(self.entries(page))
        self.out += bytes(len(self.out) % 2)
        mark = b"II" if self.order == "<" else b"MM"
        head = (43, 8, 0, len(self.out)) if self.big else (42, len(self.out))
        self.out[: 16 if self.big else 8] = mark + self.pack("HHHQ" if self.big else "HI", *head)
        self.out += self.pack("Q" if self.big else "H", len(entries))
        for code, kind, number, value in entries:
            self.out += self.pack(f"HH{self.pointer}", code, kind, number) + value
        return bytes(self.out + bytes(self.width))
