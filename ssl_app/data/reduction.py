"""One image reduced to the size of the pack, with what was seen of it at full size: hash, color."""

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.nodata import far_value, filled

MARGIN = 1.15  # of the image size: what a random crop may move in
BANDS = 4  # channels that OpenCV shrinks at a time
CROP, PAD, STRETCH = (
    "crop",
    "pad",
    "stretch",
)  # how an image becomes a square: its center, all of it with bars, or all
MUCH = 0.2  # of an image, cut away: more is remarked on


@dataclass(frozen=True)
class Reduced:
    """One image at the size of the pack, with what was seen at full size."""

    small: NDArray[Any]  # (P, P, C): one channel where the picture is gray
    content: int
    gray: bool  # one channel, or R = G = B
    channels: int  # of the file
    filled: int = 0  # values that were nodata, or not finite
    far: float | None = None  # a value that looks like nodata
    size: tuple[int, int] = (1, 1)  # height and width of the file

    @property
    def cut(self) -> float:
        """The share of the image that its center square leaves out."""
        return 1 - min(self.size) / max(self.size)


def reduce(array: NDArray[Any], side: int, nodata: float | None = None, fit: str = CROP) -> Reduced:
    """(H, W, C) -> a square of side pixels, by `fit`, and the hash of all pixels. Raises Unreadable.

    Pixels of the value `nodata`, and those that are not finite, take the mean of the others before they are shrunk.
    """
    height, width, channels = array.shape
    array, count = filled(array, nodata)
    far = far_value(array)
    gray = channels == 1 or (channels == 3 and same_channels(array))
    if gray and channels == 3:
        array = np.ascontiguousarray(array[..., :1])
    return Reduced(fitted(array, side, fit), content_hash(array), gray, channels, count, far, (height, width))


@dataclass
class Cut:
    """Images of which the center square leaves much out."""

    count: int = 0
    of: int = 0
    worst: str = ""
    share: float = MUCH
    size: tuple[int, int] = (1, 1)

    def add(self, key: str, image: Reduced) -> None:
        """Take note of one more image."""
        self.of += 1
        if image.cut > MUCH:
            self.count += 1
            if image.cut > self.share:
                self.worst, self.share, self.size = key, image.cut, image.size

    def found(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """A sentence, with the settings that keep all of an image; none where little is cut away."""
        if not self.count:
            return []
        lose = "1 image loses" if self.count == 1 else f"{self.count} of {self.of} images lose"
        shape = f"{self.size[1]} x {self.size[0]} pixels, {100 * self.share:.0f} %"
        sentence = f"{lose} more than a fifth to the center square ({self.worst}, {shape})"
        return [(sentence, [("fit", "pad to keep all"), ("fit", "stretch")])]


def same_channels(array: NDArray[Any]) -> bool:
    """Whether R = G = B everywhere; a coarse grid first, because color shows at once."""
    for some in (array[::16, ::16], array):
        if not (np.array_equal(some[..., 0], some[..., 1]) and np.array_equal(some[..., 0], some[..., 2])):
            return False
    return True


def content_hash(array: NDArray[Any]) -> int:
    """64 bits of pixels, shape and type: equal for equal pictures, whatever the file's name and format."""
    state = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=8)
    state.update(np.ascontiguousarray(array).data)
    return int.from_bytes(state.digest(), "little", signed=True)


def fitted(array: NDArray[Any], side: int, fit: str) -> NDArray[Any]:
    """(H, W, C) -> (side, side, C) in the same type: the center square, all of it between bars, or stretched."""
    if fit == STRETCH:
        return resized(array, side, side)
    return padded(array, side) if fit == PAD else squared(array, side)


def squared(array: NDArray[Any], side: int) -> NDArray[Any]:
    """The center square of (H, W, C), resized to (side, side, C) in the same type."""
    height, width, _ = array.shape
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return resized(array[top : top + short, left : left + short], side, side)


def padded(array: NDArray[Any], side: int) -> NDArray[Any]:
    """All of (H, W, C), its long side resized to `side`, between bars of each channel's mean: a gray of its own."""
    height, width, channels = array.shape
    long = max(height, width)
    high, wide = max(1, round(side * height / long)), max(1, round(side * width / long))
    mean = array.mean(axis=(0, 1), dtype=np.float64)
    square = np.empty((side, side, channels), array.dtype)
    square[:] = np.rint(mean) if array.dtype.kind == "u" else mean
    top, left = (side - high) // 2, (side - wide) // 2
    square[top : top + high, left : left + wide] = resized(array, high, wide)
    return square


def resized(array: NDArray[Any], high: int, wide: int) -> NDArray[Any]:
    """(H, W, C) -> (high, wide, C) in the same type."""
    height, width, channels = array.shape
    if (height, width) == (high, wide):
        return np.ascontiguousarray(array)
    enlarged = height < high or width < wide
    how = cv2.INTER_CUBIC if enlarged else cv2.INTER_AREA
    bands = [
        cv2.resize(np.ascontiguousarray(array[..., i : i + BANDS]), (wide, high), interpolation=how)
        for i in range(0, channels, BANDS)
    ]
    small = np.concatenate([band.reshape(high, wide, -1) for band in bands], axis=-1)
    if enlarged and array.dtype == np.float32:  # cubic overshoots; integers saturate by themselves
        small = np.clip(small, array.min(), array.max())
    result: NDArray[Any] = small.reshape(high, wide, channels)
    return result


def pack_side(shape: tuple[int, ...], image_size: int, fit: str = CROP) -> int:
    """P, by the first readable image: 1.15 x the image size, where that needs no enlarging.

    A small image enlarged to 1.15 x and then cropped would lose its border and gain no detail. An image that is kept
    whole has no margin: the network is tested on the center of a pack, and that would cut it.
    """
    if fit != CROP:
        return image_size
    side = round(MARGIN * image_size)
    return side if min(shape[:2]) >= side else image_size
