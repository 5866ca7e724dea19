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


@dataclass(frozen=True)
class Reduced:
    """One image at the size of the pack, with what was seen at full size."""

    small: NDArray[Any]  # (P, P, C): one channel where the picture is gray
    content: int
    gray: bool  # one channel, or R = G = B
    channels: int  # of the file
    filled: int = 0  # values that were nodata, or not finite
    far: float | None = None  # a value that looks like nodata


def reduce(array: NDArray[Any], side: int, nodata: float | None = None) -> Reduced:
    """(H, W, C) -> the center square at side pixels, and the hash of all pixels. Raises Unreadable.

    Pixels of the value `nodata`, and those that are not finite, take the mean of the others before they are shrunk.
    """
    channels = array.shape[2]
    array, count = filled(array, nodata)
    far = far_value(array)
    gray = channels == 1 or (channels == 3 and same_channels(array))
    if gray and channels == 3:
        array = np.ascontiguousarray(array[..., :1])
    return Reduced(squared(array, side), content_hash(array), gray, channels, count, far)


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


def squared(array: NDArray[Any], side: int) -> NDArray[Any]:
    """The center square of (H, W, C), resized to (side, side, C) in the same type."""
    height, width, channels = array.shape
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = array[top : top + short, left : left + short]
    if short == side:
        return np.ascontiguousarray(square)
    how = cv2.INTER_AREA if short > side else cv2.INTER_CUBIC
    bands = [
        cv2.resize(np.ascontiguousarray(square[..., i : i + BANDS]), (side, side), interpolation=how)
        for i in range(0, channels, BANDS)
    ]
    small = np.concatenate([band.reshape(side, side, -1) for band in bands], axis=-1)
    if short < side and array.dtype == np.float32:  # cubic overshoots; integers saturate by themselves
        small = np.clip(small, square.min(), square.max())
    result: NDArray[Any] = small.reshape(side, side, channels)
    return result


def pack_side(shape: tuple[int, ...], image_size: int) -> int:
    """P, by the first readable image: 1.15 x the image size, where that needs no enlarging.

    A small image enlarged to 1.15 x and then cropped would lose its border and gain no detail.
    """
    side = round(MARGIN * image_size)
    return side if min(shape[:2]) >= side else image_size
