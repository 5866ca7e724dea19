"""Pixels without a measurement: filled with their image's mean, and found where they would crush the contrast.

A value that stands for "nothing here" (65535, -9999, 3.4e38) lies farther from all other values than these lie apart.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import Unreadable
from ssl_app.errors import Notice, Set

SHARE = 0.001  # of an image's pixels: fewer do not move the percentiles that set the scale
MOST_SAMPLED = 1_000_000  # values that are looked at in one image


def filled(array: NDArray[Any], nodata: float | None) -> tuple[NDArray[Any], int]:
    """(H, W, C) with the mean of a channel where a value is nodata, masked or not finite; and how many of these are.

    Raises Unreadable where nothing else is left.
    """
    real = array.dtype.kind == "f"
    masked = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.asarray(array)
    missing = ~np.isfinite(array) if real else None
    if masked is not None:
        missing = masked if missing is None else missing | masked
    if nodata is not None:
        same = array == (np.float32(nodata) if real else nodata)
        missing = same if missing is None else missing | same
    count = 0 if missing is None else int(missing.sum())
    if missing is None or count == 0:
        return array, 0
    if count == array.size:
        raise Unreadable("no pixel has a value" + ("" if nodata is None else f" other than {nodata:.9g}"))
    whole = array.mean(where=~missing, dtype=np.float64)
    result = array.copy()
    for channel in range(array.shape[2]):
        gone = missing[..., channel]
        mean = whole if gone.all() else array[..., channel].mean(where=~gone, dtype=np.float64)
        result[..., channel][gone] = mean if real else np.rint(mean)
    return result, count


def far_value(array: NDArray[Any]) -> float | None:
    """The lowest or highest value, if frequent and farther from all others than they are apart; 8 bits have none."""
    if array.dtype == np.uint8:
        return None
    values = array.ravel()[:: max(1, array.size // MOST_SAMPLED)]
    values = values[np.isfinite(values)].astype(np.float64)
    if len(values) == 0:
        return None
    low, high = values.min(), values.max()
    for value, others in ((high, values[values < high]), (low, values[values > low])):
        frequent = len(values) - len(others) >= SHARE * len(values)
        if frequent and len(others) and abs(value - others).min() > max(np.ptp(others), 1):
            return float(value)
    return None


@dataclass
class Survey:
    """What was found in a set: images with pixels filled, and values that look like nodata."""

    filled: list[str] = field(default_factory=list)  # keys of images
    far: dict[str, list[str]] = field(default_factory=dict)  # value -> keys of images

    def add(self, key: str, filled: int, far: float | None) -> None:
        """Take note of one image."""
        if filled:
            self.filled.append(key)
        if far is not None:
            self.far.setdefault(f"{far:.9g}", []).append(key)

    def to_json(self, nodata: float | None) -> list[tuple[str, str | None]]:
        """(sentence, value to type) of each finding, for the cache's index."""
        found: list[tuple[str, str | None]] = []
        if self.filled:
            found.append((f"{images(self.filled)} pixels that {nothing(nodata)}: they take the image's mean", None))
        if self.far:
            value, keys = max(self.far.items(), key=lambda item: len(item[1]))
            found.append((f"{images(keys)} many pixels of {value}, far from all other values", value))
        return found


def notices(found: list[tuple[str, str | None]]) -> tuple[Notice, ...]:
    """The findings as notices, with the setting that settles them."""
    return tuple(
        Notice(sentence, fixes=() if value is None else (Set("nodata", f"{value} if it means no pixel"),))
        for sentence, value in found
    )


def nothing(nodata: float | None) -> str:
    """What pixels are that hold nothing. What a TIFF calls nodata is nan or masked when it has been read."""
    value = "" if nodata is None else f"are {nodata:.9g}, "
    return f"{value}{'' if value else 'are '}not finite, or nodata by their file"


def images(keys: list[str]) -> str:
    """`3 images (the first is a.tif) hold`."""
    return f"1 image ({keys[0]}) holds" if len(keys) == 1 else f"{len(keys)} images (the first is {keys[0]}) hold"
