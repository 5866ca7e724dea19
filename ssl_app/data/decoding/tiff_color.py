"""What the samples of a TIFF page mean, as gray or RGB with further bands: the photometric interpretation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import Unreadable
from ssl_app.data.decoding.tiff_layout import CMYK, COLOR_MAP, JPEG, PALETTE, WHITE_IS_ZERO, YCBCR, Layout

BAND = 2**22  # pixels converted at a time
WEIGHTS, REFERENCE = 529, 532  # tags: luma coefficients, and black and white of Y, Cb and Cr


def colored(array: NDArray[Any], page: Any, layout: Layout) -> NDArray[Any]:
    """(H, W, S) stored samples -> (H, W, C): white is largest, colors are RGB, alpha is gone, further bands follow.

    Integers of fewer than eight bits are spread over 0 to 255, as PNG and PNM mean them. Associated alpha is dropped
    as well: the colors stay as they are stored.
    """
    if layout.alpha:
        array = np.delete(array, layout.alpha, axis=2)
    if layout.photometric == PALETTE:
        return beside(from_palette(array[..., 0], page, layout), array[..., 1:])
    if layout.photometric == WHITE_IS_ZERO and layout.kind == "u":  # real and signed samples have no white
        np.subtract(array.dtype.type(layout.top), array, out=array)
    if layout.kind == "u" and layout.bits < 8:
        spread = np.rint(np.arange(layout.top + 1) * (255 / layout.top)).astype(np.uint8)
        array = spread[array]
    if layout.photometric == CMYK:
        return beside(in_bands(array[..., :4], lambda ink: from_cmyk(ink, layout)), array[..., 4:])
    if layout.photometric == YCBCR and layout.compression != JPEG:
        return beside(in_bands(array[..., :3], lambda some: from_ycbcr(some, page)), array[..., 3:])
    return array


def beside(colors: NDArray[Any], bands: NDArray[Any]) -> NDArray[Any]:
    """Colors and the further bands of the same pixels, (H, W, C)."""
    return np.concatenate([colors, bands.astype(colors.dtype)], axis=2) if bands.shape[2] else colors


def in_bands(array: NDArray[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """(H, W, S) -> (H, W, 3) by convert, some rows at a time: its real numbers take four times the room."""
    result = np.empty((*array.shape[:2], 3), array.dtype)
    step = max(1, BAND // array.shape[1])
    for top in range(0, len(array), step):
        result[top : top + step] = convert(array[top : top + step])
    return result


def from_palette(indices: NDArray[Any], page: Any, layout: Layout) -> NDArray[np.uint8]:
    """(H, W) -> (H, W, 3): the high byte of every color, or the low one where a writer has filled no other."""
    colors: NDArray[Any] = np.asarray(page.keyframe.tags.valueof(COLOR_MAP, default=()), np.uint16).ravel()
    if layout.kind != "u" or layout.bits > 16 or len(colors) != 3 * 2**layout.bits:
        raise Unreadable("the file is damaged (its palette does not fit)")
    colors = colors if colors.max() < 256 else colors >> 8
    table: NDArray[np.uint8] = colors.astype(np.uint8).reshape(3, -1).T
    found: NDArray[np.uint8] = table[indices]
    return found


def from_cmyk(ink: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """(H, W, 4) -> (H, W, 3): what the three inks and then black leave of the paper's white, as Pillow does."""
    if layout.kind != "u" or layout.bits > 16:
        raise Unreadable(f"TIFF of CMYK in {layout.bits} bits of kind {layout.kind}; save it as RGB")
    if ink.dtype == np.uint8:  # in whole numbers: light x black / 255, rounded, one color at a time
        black, colors = (~ink[..., 3]).astype(np.uint16), np.empty((*ink.shape[:2], 3), np.uint8)
        for color in range(3):
            product = (~ink[..., color]).astype(np.uint16)
            product *= black
            product += 128
            product += product >> 8
            np.right_shift(product, 8, out=colors[..., color], casting="unsafe")
        return colors
    top = np.float32(max(layout.top, 255))
    light = top - ink.astype(np.float32)
    return np.rint(light[..., :3] * (light[..., 3:] / top)).astype(ink.dtype)


def from_ycbcr(array: NDArray[Any], page: Any) -> NDArray[np.uint8]:
    """(H, W, 3) -> RGB by the page's coefficients, or those of CCIR 601 (TIFF 6.0, section 21)."""
    tags = page.keyframe.tags
    red, green, blue = fractions(tags.valueof(WEIGHTS), (0.299, 0.587, 0.114))
    reference = fractions(tags.valueof(REFERENCE), (0, 255, 128, 255, 128, 255))
    low, high = np.array(reference[::2], np.float32), np.array(reference[1::2], np.float32)
    if not (green > 0 and (high > low).all()):
        raise Unreadable("the file is damaged (its color coefficients make no sense)")
    spread = np.array([255, 127, 127], np.float32) / (high - low)
    y, cb, cr = np.moveaxis((array.astype(np.float32) - low) * spread, -1, 0)
    r = y + cr * np.float32(2 - 2 * red)
    b = y + cb * np.float32(2 - 2 * blue)
    g = (y - np.float32(red) * r - np.float32(blue) * b) / np.float32(green)
    rgb: NDArray[np.uint8] = np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)
    return rgb


def fractions(found: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    """The fractions of a tag as numbers; those of a default where there is none, or one of another length."""
    values = np.asarray(found if found is not None else (), np.float64).reshape(-1)
    if len(values) != 2 * len(default) or not values[1::2].all():
        return default
    return tuple((values[::2] / values[1::2]).tolist())
