"""The arrays of an .npz, read from front to back: their headers first, and never more than a few images at a time.

A header is believed only where the zip's own sizes agree, and nothing is unpickled.
"""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import MAX_IMAGE_MB, MEGABYTE
from ssl_app.errors import DataError, Fix

LONGEST_HEADER = 2**16  # bytes
BLOCK = 2**20  # bytes read at a time
MOST_WHOLE = MAX_IMAGE_MB * MEGABYTE  # bytes of an array that is held whole: labels, and what is stored by columns
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
EXPECTED = "plain arrays saved by numpy.savez: images, labels"


@dataclass(frozen=True)
class Stored:
    """One array of the file, of which only the header has been read."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool  # Fortran's order, which cannot be cut along the first axis
    start: int  # bytes of the header

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def size(self) -> int:
        """Bytes of one item along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def whole(self) -> NDArray[Any]:
        """All of it. Raises DataError where it is too large to be held, or damaged."""
        needed = math.prod(self.shape) * self.dtype.itemsize
        if needed > MOST_WHOLE:
            raise DataError(
                f"{self.path} holds {self.member} of {self.shape} in {needed // MEGABYTE} MB, which are read at once",
                expected=f"{MAX_IMAGE_MB} MB or less",
                fix=Fix("save numpy.ascontiguousarray(images)" if self.by_columns else "save less in it"),
            )
        with self.data() as file:
            content = read_all(file, needed, self)
            file.read(1)  # the checksum is compared at the end
        flat = np.frombuffer(content, self.dtype)
        return flat.reshape(self.shape[::-1]).T if self.by_columns else flat.reshape(self.shape)

    def items(self) -> Iterator[NDArray[Any]]:
        """One item after the other along the first axis. Raises DataError where the file is damaged."""
        if self.by_columns:
            yield from self.whole()
            return
        together = max(1, BLOCK // max(1, self.size))
        with self.data() as file:
            for first in range(0, len(self), together):
                count = min(together, len(self) - first)
                content = read_all(file, count * self.size, self)
                yield from np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
            file.read(1)

    def item(self, i: int) -> NDArray[Any]:
        """One item, found by reading all before it: slow. Raises DataError where the file is damaged."""
        if self.by_columns:
            return np.asarray(self.whole()[i])
        with self.data() as file:
            file.seek(self.start + i * self.size)
            return np.frombuffer(read_all(file, self.size, self), self.dtype).reshape(self.shape[1:])

    @contextmanager
    def data(self) -> Iterator[IO[bytes]]:
        """The member's bytes behind its header. Raises DataError for what goes wrong while they are read."""
        with readable(self.path), zipfile.ZipFile(self.path) as archive, archive.open(f"{self.member}.npy") as file:
            file.read(self.start)
            yield file


def read_all(file: IO[bytes], count: int, stored: Stored) -> bytes:
    """That many bytes. Raises DataError where there are fewer."""
    content = file.read(count)
    if len(content) < count:
        raise DataError(f"{stored.path} is damaged: {stored.member} is cut short")
    return content


def read_headers(path: Path) -> dict[str, Stored]:
    """Every array of the file by its name. Raises DataError."""
    with readable(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename.removesuffix(".npy"): read_header(path, archive, info) for info in infos}


def read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Stored:
    """The header of one member. Raises ValueError where it and the zip's sizes do not agree."""
    name = info.filename.removesuffix(".npy")
    if info.compress_type not in COMPRESSIONS:
        raise ValueError(f"{name} is compressed by a method that numpy does not write")
    with archive.open(info) as file:
        magic = file.read(npy.MAGIC_LEN)
        version = npy.read_magic(io.BytesIO(magic))
        parsers = {(1, 0): (2, npy.read_array_header_1_0), (2, 0): (4, npy.read_array_header_2_0)}
        if version not in parsers:
            raise ValueError(f"{name} is in version {version} of the format")
        width, parse = parsers[version]
        length = file.read(width)
        count = int.from_bytes(length, "little")
        if count > LONGEST_HEADER:
            raise ValueError(f"{name} has a header of {count} bytes")
        shape, by_columns, dtype = parse(io.BytesIO(length + file.read(count)))
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.subdtype is not None:
        raise ValueError(f"{name} is of type {dtype}")
    start = npy.MAGIC_LEN + width + count
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or start + promised != info.file_size:
        raise ValueError(f"{name} promises {promised} bytes of {shape}, and holds {info.file_size - start}")
    return Stored(path, name, tuple(shape), dtype, by_columns and len(shape) > 1, start)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError for what zipfile, zlib and numpy raise."""
    try:
        yield
    except (
        zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError, NotImplementedError,
        SyntaxError, TypeError, KeyError, MemoryError, tokenize.TokenError,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif not zipfile.is_zipfile(path):
            reason = "it is no .npz, or cut short"
        raise DataError(f"{path} cannot be read ({reason}); expected {EXPECTED}") from error
