"""Images for people: whole, at the detail of their files, and as dark and bright as the network sees them."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.images import Unreadable
from ssl_app.data.intensity import FILE_WINDOW, PixelScaling, scaled
from ssl_app.data.nodata import filled
from ssl_app.data.sources.base import Source, in_order
from ssl_app.report import page

T = TypeVar("T")


def picture(source: Source, row: int, pixels: PixelScaling, side: int) -> NDArray[np.uint8]:
    """An image of a source, not its center square: at most `side` pixels long, (H, W, 1 or 3).

    Of other numbers of channels the first is shown. Raises Unreadable.
    """
    image = filled(source.read(row), pixels.nodata)[0]
    image = image if image.shape[-1] == 3 else image[..., :1]
    height, width, channels = image.shape
    scale = side / max(height, width)
    if scale < 1:  # made small before it is scaled: most pixels of a large image then need no arithmetic
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
        image = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)
    image = image.reshape(height, width, channels)
    window = source.windows[row] if pixels.intensity == FILE_WINDOW and source.windows is not None else None
    return page.eight_bits(pixels.scale(image) if window is None else scaled(image, *window))


def each(
    source: Source, rows: Iterable[int], pixels: PixelScaling, side: int, work: Callable[[NDArray[np.uint8]], T]
) -> Iterator[T | Unreadable]:
    """work(picture) of some images, in their order; threads read a little ahead."""

    def done(row: int) -> T | Unreadable:
        try:
            return work(picture(source, row, pixels, side))
        except Unreadable as reason:
            return reason

    return in_order(done, rows)


def in_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """A gray or color picture with one or three channels. (H, W, 1 or 3) -> (H, W, channels)."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    gray: NDArray[np.uint8] = image.mean(axis=-1, keepdims=True).round().astype(np.uint8)
    return gray
