"""The one .npy that a pack writes from front to back, and the form that its images share."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.reduction import Reduced
from ssl_app.errors import DataError


class Store:
    """The images of a pack as they come: one .npy, written from front to back.

    Begun narrow (one channel, the first depth) and rewritten where the first color, or the first
    other depth, turns up: which of them a set holds is known at its end only.
    """

    def __init__(self, path: Path, small: NDArray[Any]) -> None:
        self.path = path
        self.begin(path, small)

    def begin(self, path: Path, small: NDArray[Any]) -> None:
        """Open a file with a header; numpy leaves room in it for the number of images to grow."""
        self.count, self.shape, self.dtype = 0, small.shape, small.dtype
        self.file: BinaryIO = path.open("wb")
        self.header()
        self.start = self.file.tell()

    def header(self) -> None:
        """Write shape and type at the start."""
        self.file.seek(0)
        described = np.lib.format.dtype_to_descr(self.dtype)
        shape = (self.count, *self.shape)
        np.lib.format.write_array_header_1_0(self.file, {"descr": described, "fortran_order": False, "shape": shape})

    def add(self, small: NDArray[Any]) -> None:
        """Append one image of the store's shape and type."""
        assert small.shape == self.shape
        assert small.dtype == self.dtype
        self.file.write(np.ascontiguousarray(small).data)
        self.count += 1

    def widen(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Rewrite what is there, image by image, by change: more channels, or another type."""
        self.close()
        old = np.load(self.path, mmap_mode="r")
        wider = self.path.with_suffix(".wider")
        self.begin(wider, change(np.zeros(self.shape, self.dtype)))
        for image in old:
            self.add(change(image))
        os.replace(wider, self.path)

    def close(self) -> None:
        """Put the final count in the header and everything on the disk."""
        self.header()
        assert self.file.tell() == self.start
        sync(self.file)
        self.file.close()


@dataclass
class Form:
    """Channels and depth of the pack, decided image by image."""

    asked: int | None
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
            if self.depth == "strict":
                raise DataError(
                    f"{key} is {image.small.dtype} and {self.first} is {self.dtype}; expected one bit depth: "
                    f"type --intensity dtype to bring both to [0, 1]"
                )
            self.mixed = True
        if image.channels == 1:
            self.single = self.single or key
        elif not image.gray:
            self.color = self.color or key
        self.admit_channels(key, image.channels)

    def admit_channels(self, key: str, channels: int) -> None:
        """Refuse a number of channels that does not go with those before, or with the one asked for."""
        if self.asked is not None:
            if channels != self.asked and not (channels in (1, 3) and self.asked in (1, 3)):
                raise DataError(
                    f"{key} has {channels} channels, --channels asks for {self.asked}; type --channels {channels}"
                )
        elif channels != self.native and not (channels in (1, 3) and self.native in (1, 3)):
            raise DataError(
                f"{key} has {channels} channels and {self.first} has {self.native}; expected one number of "
                f"channels: list those that belong together in a manifest"
            )
        elif self.native in (1, 3) and self.single and self.color:
            raise DataError(
                f"{self.color} has color and {self.single} has one channel; "
                f"type --channels 3 (gray is repeated) or --channels 1 (color becomes gray)"
            )

    def fit(self, small: NDArray[Any]) -> NDArray[Any]:
        """(P, P, c) in a file's form -> (P, P, C) in the form of the pack so far."""
        channels = self.asked or (self.native if self.native not in (1, 3) else 3 if self.color else 1)
        if small.shape[2] != channels:
            small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else small.repeat(3, 2)
        if self.mixed and small.dtype.kind == "u":
            small = small.astype(np.float32) / np.float32(np.iinfo(small.dtype).max)
        return small


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with temporary.open("wb") as file:
        file.write(content)
        sync(file)
    os.replace(temporary, path)


def sync(file: BinaryIO) -> None:
    """Everything written is on the disk, not only on its way."""
    file.flush()
    os.fsync(file.fileno())
