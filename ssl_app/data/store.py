"""The one .npy that a pack writes from front to back, and the form that its images share."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
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
FEW = 0.05  # of a set: so few images in color become gray with the others, so few gray ones are repeated
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

    def rewrite(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Rewrite what is there, image by image, by change: another number of channels, or another type."""
        self.close()
        before = self.path.with_suffix(".before")
        os.replace(self.path, before)
        self.begin(change(np.zeros(self.shape, self.dtype)))
        for image in open_memmap(before, mode="r"):
            self.add(change(image))
        before.unlink()

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
    """Channels and depth of the pack, decided image by image; what does not go together is refused at the end."""

    requested: int | None
    depth: str
    first: str = ""  # key of the first image
    native: int = 0  # its channels
    dtype: np.dtype[Any] | None = None  # its depth
    mixed: bool = False
    count: int = 0  # images so far
    singles: list[str] = field(default_factory=list)  # keys of files of one channel
    colors: list[str] = field(default_factory=list)  # of images of real color
    deeper: list[tuple[str, np.dtype[Any]]] = field(default_factory=list)  # of another depth, where one is wanted
    unlike: list[tuple[str, int]] = field(default_factory=list)  # with another number of channels
    gray_at_last: bool = False  # whether the few images of color become gray

    @property
    def apart(self) -> bool:
        """Whether it is sure already that the images cannot be one set."""
        return bool(self.deeper or self.unlike)

    def admit(self, key: str, image: Reduced) -> None:
        """Take note of one more image."""
        self.count += 1
        if self.dtype is None:
            self.first, self.native, self.dtype = key, image.channels, image.small.dtype
        if image.small.dtype != self.dtype:
            if self.depth == SCALED:
                self.mixed = True
            else:
                self.deeper.append((key, image.small.dtype))
        if image.channels == 1:
            self.singles.append(key)
        elif not image.gray:
            self.colors.append(key)
        wanted = self.native if self.requested is None else self.requested
        if image.channels != wanted and not (image.channels in (1, 3) and wanted in (1, 3)):
            self.unlike.append((key, image.channels))

    def settle(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """At the end: decide between gray and color. -> sentences, each with settings that decide otherwise."""
        colors, gray = len(self.colors), self.count - len(self.colors)
        if self.requested == 1 and colors:
            are = f"{colors} of {self.count} images {'is' if colors == 1 else 'are'}"
            return [(f"{are} in color, and made gray: one channel is wanted", [])]
        if self.requested == 3 and gray and self.native in (1, 3):
            are = f"{gray} of {self.count} images {'is' if gray == 1 else 'are'}"
            return [(f"{are} gray, and repeated: three channels are wanted", [])]
        if self.requested is not None or self.native not in (1, 3) or not colors:
            return []
        have = f"1 of {self.count} images has" if colors == 1 else f"{colors} of {self.count} images have"
        if gray and colors <= FEW * self.count:
            self.gray_at_last = True
            sentence = f"{have} color ({self.colors[0]}{' the first' * (colors > 1)}), made gray as the others"
            return [(sentence, [("channels", "3 to keep their color")])]
        if not gray or (not self.singles and colors > gray):
            return []
        if len(self.singles) <= FEW * self.count or not self.singles:
            return [(f"{have} color, the others are gray and repeated", [("channels", "1 to make all gray")])]
        return []

    def refusals(self) -> list[DataError]:
        """What cannot be one set, each with its cures. After `settle`."""
        found = []
        if self.deeper:
            key, dtype = self.deeper[0]
            more = f" ({len(self.deeper)} of {self.count} images are not)" if len(self.deeper) > 1 else ""
            found.append(
                DataError(
                    f"{key} is {dtype} and {self.first} is {self.dtype}{more}",
                    expected="one bit depth",
                    fix=Set("intensity", "dtype to bring both to [0, 1]"),
                )
            )
        if self.unlike:
            found.append(self._unlike())
        several = self.requested is None and self.native in (1, 3) and self.colors and self.singles
        if several and not self.gray_at_last and len(self.singles) > FEW * self.count:
            counts = f" ({len(self.colors)} and {len(self.singles)} of {self.count} images)" if self.count > 2 else ""
            found.append(
                DataError(
                    f"{self.colors[0]} has color and {self.singles[0]} has one channel{counts}",
                    fix=(Set("channels", "3 (gray is repeated)"), Set("channels", "1 (color becomes gray)")),
                )
            )
        return found

    def _unlike(self) -> DataError:
        key, channels = self.unlike[0]
        more = f" ({len(self.unlike)} of {self.count} images)" if len(self.unlike) > 1 else ""
        if self.requested is not None:
            wanted = f"{self.requested} are requested"
            return DataError(f"{key} has {channels} channels, {wanted}{more}", fix=Set("channels", channels))
        return DataError(
            f"{key} has {channels} channels and {self.first} has {self.native}{more}",
            expected="one number of channels",
            fix=Fix("list those that belong together in a manifest"),
        )

    def fit(self, small: NDArray[Any]) -> NDArray[Any]:
        """(P, P, c) in a file's form -> (P, P, C) in the form of the pack so far."""
        colored = bool(self.colors) and not self.gray_at_last
        channels = self.requested or (self.native if self.native not in (1, 3) else 3 if colored else 1)
        if small.shape[2] != channels:
            small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else small.repeat(3, 2)
        if self.mixed and small.dtype.kind == "u":
            small = small.astype(np.float32) / np.float32(np.iinfo(small.dtype).max)
        return small
