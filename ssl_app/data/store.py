"""The one .npy that a pack writes from front to back, and the form that its images share."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.lib.format import dtype_to_descr, open_memmap, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from ssl_app.data.reduction import Reduced
from ssl_app.errors import DataError, Fix, Set

BLOCK = 2**20  # bytes of zeros written at a time where a system cannot allocate
STRICT, SCALED, WINDOWED = "strict", "scaled", "windowed"  # one depth; mixed ones in [0, 1]; each by its own window
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def allocate(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[Any]]":
    """A new .npy of zeros, mapped into memory to be written, with all its blocks allocated.

    Raises OSError where the disk has no room for it. In a file without its blocks the map would find that out at
    its first write to a page that cannot be kept, and the process would end (SIGBUS).
    """
    array = open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
            return array
        except AttributeError:  # macOS has none
            pass
        except OSError as error:  # nor have some file systems
            if error.errno not in UNSUPPORTED:
                raise
        file.seek(array.offset)
        for start in range(0, array.nbytes, BLOCK):
            file.write(bytes(min(BLOCK, array.nbytes - start)))
    return array


class Store:
    """The images of a pack as they come: one .npy, allocated for all of them and written from front to back.

    It begins narrow (one channel, the first depth) and is rewritten where the first color, or the first
    other depth, turns up: which of them a set holds is known at its end only, and so is how many can be read.
    """

    def __init__(self, path: Path, small: NDArray[Any], most: int) -> None:
        """Allocate the file for `most` images like `small`, (P, P, C). Raises OSError."""
        self.path = path
        self.most = most
        self.begin(small)

    def begin(self, small: NDArray[Any]) -> None:
        """Allocate an empty file."""
        self.count, self.shape, self.dtype = 0, small.shape, small.dtype
        self.start = allocate(self.path, small.dtype, (self.most, *small.shape)).offset
        # not through the map: its page faults take four times as long, 7 to 18 % of a pack's CPU time
        self.file: BinaryIO = self.path.open("r+b")
        self.file.seek(self.start)

    def add(self, small: NDArray[Any]) -> None:
        """Append one image of the store's shape and type."""
        assert small.shape == self.shape
        assert small.dtype == self.dtype
        self.file.write(np.ascontiguousarray(small).data)
        self.count += 1

    def widen(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Rewrite what is there, image by image, by change: more channels, or another type."""
        self.close()
        narrow = self.path.with_suffix(".narrow")
        os.replace(self.path, narrow)
        self.begin(change(np.zeros(self.shape, self.dtype)))
        for image in open_memmap(narrow, mode="r"):
            self.add(change(image))
        narrow.unlink()

    def close(self) -> None:
        """Cut off the room of images that did not come, and put the count of those that did into the header."""
        self.file.truncate()
        self.file.seek(0)
        described = {"descr": dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.count, *self.shape)}
        write_array_header_1_0(self.file, described)
        assert self.file.tell() == self.start  # numpy leaves room there for the first number of a shape to grow
        self.file.close()


@dataclass
class Form:
    """Channels and depth of the pack, decided image by image."""

    requested: int | None
    depth: str
    first: str = ""  # key of the first image
    native: int = 0  # its channels
    dtype: np.dtype[Any] | None = None  # its depth
    mixed: bool = False
    single: str | None = None  # the first file of one channel
    color: str | None = None  # the first image of real color

    def admit(self, key: str, image: Reduced) -> None:
        """Take note of one more image."""
        if self.dtype is None:
            self.first, self.native, self.dtype = key, image.channels, image.small.dtype
        if image.small.dtype != self.dtype:
            if self.depth != SCALED:
                raise DataError(
                    f"{key} is {image.small.dtype} and {self.first} is {self.dtype}",
                    expected="one bit depth",
                    fix=Set("intensity", "dtype to bring both to [0, 1]"),
                )
            self.mixed = True
        if image.channels == 1:
            self.single = self.single or key
        elif not image.gray:
            self.color = self.color or key
        self.admit_channels(key, image.channels)

    def admit_channels(self, key: str, channels: int) -> None:
        """Refuse a number of channels that does not go with those before, or with the one requested for."""
        if self.requested is not None:
            if channels != self.requested and not (channels in (1, 3) and self.requested in (1, 3)):
                raise DataError(
                    f"{key} has {channels} channels, {self.requested} are requested", fix=Set("channels", channels)
                )
        elif channels != self.native and not (channels in (1, 3) and self.native in (1, 3)):
            raise DataError(
                f"{key} has {channels} channels and {self.first} has {self.native}",
                expected="one number of channels",
                fix=Fix("list those that belong together in a manifest"),
            )
        elif self.native in (1, 3) and self.single and self.color:
            raise DataError(
                f"{self.color} has color and {self.single} has one channel",
                fix=(Set("channels", "3 (gray is repeated)"), Set("channels", "1 (color becomes gray)")),
            )

    def fit(self, small: NDArray[Any]) -> NDArray[Any]:
        """(P, P, c) in a file's form -> (P, P, C) in the form of the pack so far."""
        channels = self.requested or (self.native if self.native not in (1, 3) else 3 if self.color else 1)
        if small.shape[2] != channels:
            small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else small.repeat(3, 2)
        if self.mixed and small.dtype.kind == "u":
            small = small.astype(np.float32) / np.float32(np.iinfo(small.dtype).max)
        return small
