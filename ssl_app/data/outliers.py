"""A range that a few pixels set: hot ones, text that is burnt into the images, a cable or a frame.

The range is that of 99.8 % of the pixels, so that a single hot pixel does not set it. A hundredth of them that takes
more than half of it does, where it is apart from the rest or of one value. A natural tail (stars, cells on a dark
ground) is neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.errors import Notice, Set

FEW = 0.01  # of the pixels
MUCH, APART, ONE_VALUE = 0.5, 0.25, 0.5  # of the range that they take; of it that is empty; of them that are alike
MOST_SAMPLED = 1_000_000  # real numbers, which are sorted


@dataclass(frozen=True)
class Outliers:
    """The few pixels at one end, and what is left without them."""

    share: float  # of the pixels
    low: float  # of the others
    high: float
    value: float | None  # that most of them have


def histogram(images: NDArray[Any], at: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values that occur in the images at `at`, ascending, and how often: (m,), (m,); of reals in a sample."""
    if images.dtype.kind == "u":
        counts = np.zeros(np.iinfo(images.dtype).max + 1, np.int64)
        for i in at:
            counts += np.bincount(images[i].ravel(), minlength=len(counts))
        present = np.flatnonzero(counts)
        return present.astype(np.float64), counts[present]
    values, found = np.unique(sampled(images, at, MOST_SAMPLED), return_counts=True)
    return values.astype(np.float64), found.astype(np.int64)


def sampled(images: NDArray[Any], at: NDArray[np.int64], most: int) -> NDArray[Any]:
    """About so many numbers of the images at `at` (N, P, P, C), at most twice as many: whole pixels, evenly."""
    step = max(1, len(at) * images[0].size // most)
    return np.concatenate([images[i].reshape(-1, images.shape[-1])[::step].ravel() for i in at])


def outliers(values: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float) -> Outliers | None:
    """The few pixels that set the range from low to high, at its upper or lower end; None where there are none."""
    above = _at_the_upper_end(values, counts, low, high)
    if above is not None:
        edge, share, value = above
        return Outliers(share, low, edge, value)
    below = _at_the_upper_end(-values[::-1], counts[::-1], -high, -low)
    if below is not None:
        edge, share, value = below
        return Outliers(share, -edge, high, None if value is None else -value)
    return None


def _at_the_upper_end(
    values: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float
) -> tuple[float, float, float | None] | None:
    """(largest value of the others, share of the few, value of most of them), or None."""
    total = counts.sum()
    last = int(np.searchsorted(np.cumsum(counts), (1 - FEW) * total))
    edge, beyond, often = values[last], values[last + 1 :], counts[last + 1 :]
    if not len(beyond) or high - edge <= MUCH * (high - low):
        return None
    alike = beyond[often.argmax()] if often.max() > ONE_VALUE * often.sum() else None
    steps = np.diff([edge, *beyond])
    widest = int(steps.argmax())
    if steps[widest] > APART * (high - low):  # the others end before the gap
        edge, often = values[last + widest], often[widest:]
    elif alike is None:
        return None
    return float(edge), float(often.sum() / total), None if alike is None else float(alike)


def notice(found: Outliers, low: float, high: float) -> Notice:
    """What was found, and the settings that settle it."""
    one = found.low == found.high
    window = () if one else (Set("intensity", f"window:{found.low:.6g},{found.high:.6g} if they mean nothing"),)
    nodata = () if found.value is None else (Set("nodata", f"{found.value:.9g} if that means no pixel"),)
    most = "" if found.value is None else f", most of them of {found.value:.9g},"
    return Notice(
        f"{100 * found.share:.2g} % of the pixels{most} set the range from {low:.6g} to {high:.6g}: "
        f"all others lie between {found.low:.6g} and {found.high:.6g}",
        fixes=(*window, *nodata),
    )
