"""Pixel values to [0, 1]: one low and high for a set, measured once and used by every later verb.

How is the setting `intensity`: `range` measures the two, `window:LOW,HIGH` names them, `dtype` is what the type can
hold, `per-image` is each image's own range, and `file-window` the window that a file itself asks for (DICOM), which
is applied when the images are packed.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data import outliers
from ssl_app.errors import DataError, Fix, Run, Set, SettingsError

logger = logging.getLogger(__name__)

KINDS = ("range", "window:LOW,HIGH", "dtype", "per-image", "file-window")
WINDOW, FILE_WINDOW = "window:", "file-window"
QUANTILES = (0.001, 0.999)  # not the extremes: one hot pixel would darken the set
MOST_IMAGES = 2000
MOST_VALUES = 20_000_000  # of float pixels, which are sorted rather than counted
LEAST_STD = 0.01  # a constant channel has none
NEAR = 0.1  # deviations, by which the inputs of two pretrainings may differ that one classifier is made of


@dataclass(frozen=True)
class PixelScaling:
    """How a set's values become [0, 1], and their mean and spread there, by channel."""

    intensity: str
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = ""  # of the images measured
    nodata: float | None = None  # value of pixels that hold nothing
    units: str = ""  # of their values, where these mean the same in every type
    fit: str = "crop"  # how an image became a square before, kept beside its scale for every later verb

    def refuse_other_depth(self, dtype: np.dtype[Any], name: str, units: str = "") -> None:
        """Raise DataError where low and high are of another depth: 8 bits on a scale of 16 are black.

        Of values with units, such as Hounsfield's, the type says nothing; of integers it says all.
        """
        if self.fits(dtype, units):
            return
        instead = "per-image" if units or self.units else "dtype"
        raise DataError(
            f"{name} holds {dtype.name} images{in_units(units)}, the network was trained on "
            f"{self.dtype}{in_units(self.units)} scaled from {self.low:g} to {self.high:g}",
            fix=(Fix("give images of that depth"), Run("pretrain", (("intensity", instead),))),
        )

    def fits(self, dtype: np.dtype[Any], units: str = "") -> bool:
        """Whether low and high mean the same for images of a type, and with these units."""
        alike = dtype.name == self.dtype and (dtype.kind == "u" or units == self.units)
        return not self.of_one_depth or not self.dtype or alike or (units != "" and units == self.units)

    @property
    def of_one_depth(self) -> bool:
        """Whether low and high are values of the images, and not of their type or their own."""
        return self.intensity == "range" or self.intensity.startswith(WINDOW)

    def scale(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """uint8, uint16 or float32 (..., C) -> float32 in [0, 1]; per-image looks at the last three axes."""
        if self.intensity == "per-image":
            return scaled_each(array)
        low, high = (self.low, self.high) if self.of_one_depth else dtype_range(array.dtype)
        return scaled(array, low, high)

    def near(self, other: "PixelScaling") -> bool:
        """Whether both give a network much the same input: within NEAR of a deviation, from low to high."""
        if (self.intensity, self.fit, len(self.mean)) != (other.intensity, other.fit, len(other.mean)):
            return False
        inputs = [one.normalized(np.array([[self.low], [self.high]])) for one in (self, other)]
        return bool(np.abs(inputs[0] - inputs[1]).max() <= NEAR)

    def normalized(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a network is given for values of a set with one low and high. (n, 1) -> (n, C)."""
        unit = (values - self.low) / (self.high - self.low)
        found: NDArray[np.float64] = (unit - np.array(self.mean)) / np.array(self.std)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        held = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.fit == "crop":  # of checkpoints and sweeps from before there were others
            del held["fit"]
        return held

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "PixelScaling":
        """The inverse of to_json."""
        return cls(**held | {"mean": tuple(held["mean"]), "std": tuple(held["std"])})


def in_units(units: str) -> str:
    """A clause for what has units."""
    return f" in {units} units" if units else ""


def checked(intensity: str) -> str:
    """The setting, in one spelling. Raises SettingsError for a window that is none."""
    if not intensity.startswith(WINDOW):
        return intensity
    low, high = window(intensity)
    return f"{WINDOW}{low:g},{high:g}"


def window(intensity: str) -> tuple[float, float]:
    """Low and high of `window:LOW,HIGH`. Raises SettingsError."""
    try:
        low, high = (float(value) for value in intensity.removeprefix(WINDOW).split(","))
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(intensity)
    except ValueError as error:
        raise SettingsError(
            f"the intensity is '{intensity}'", expected="two numbers, the lower one first, such as window:-160,240"
        ) from error
    return low, high


def measure(
    images: NDArray[Any],
    indices: Sequence[int] | NDArray[Any],
    intensity: str,
    seed: int,
    nodata: float | None = None,
    units: str = "",
    fit: str = "crop",
) -> PixelScaling:
    """Low, high, mean and std of the images (N, P, P, C) at indices, from a sample of 2,000 at most.

    A range that a few pixels set is remarked on in the log.

    Raises DataError for the range of a type where floats have units, and SettingsError for a window that is none.
    """
    at = np.unique(np.asarray(indices, dtype=np.int64))
    assert len(at), "no image to measure"
    if intensity == "dtype" and units and images.dtype.kind == "f":
        raise DataError(
            f"values in {units} units have no range of their type",
            fix=(Set("intensity", "range"), Set("intensity", "window:LOW,HIGH")),
        )
    if len(at) > MOST_IMAGES:
        at = np.sort(np.random.default_rng(seed).choice(at, MOST_IMAGES, replace=False))
    low, high = 0.0, 1.0
    if intensity == "range":
        low, high = limits(images, at)
        few = outliers.outliers(*outliers.histogram(images, at), low, high)
        if few is not None:
            logger.info(outliers.notice(few, low, high).prefixed("note: "))
    elif intensity.startswith(WINDOW):
        low, high = window(intensity)
    elif intensity == "dtype":
        low, high = dtype_range(images.dtype)
    unmeasured = PixelScaling(intensity, low, high, (), ())
    channels = images.shape[-1]
    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for some in np.array_split(at, -(-len(at) // 64)):
        values = unmeasured.scale(images[some]).reshape(-1, channels).astype(np.float64)
        count += len(values)
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), LEAST_STD**2))
    moments = tuple(map(float, mean)), tuple(map(float, std))
    return PixelScaling(intensity, low, high, *moments, images.dtype.name, nodata, units, fit)


def limits(images: NDArray[Any], at: NDArray[np.int64]) -> tuple[float, float]:
    """The 0.1 and 99.9 percentile over the images at `at`; the extremes where those two are one value."""
    if images.dtype.kind == "u":
        counts = np.zeros(np.iinfo(images.dtype).max + 1, np.int64)
        for i in at:
            counts += np.bincount(images[i].ravel(), minlength=len(counts))
        low, high = counted_quantiles(counts)
        present = np.flatnonzero(counts)
        extremes = float(present[0]), float(present[-1])
    else:
        values = outliers.sampled(images, at, MOST_VALUES)
        low, high = (float(value) for value in np.quantile(values, QUANTILES))
        extremes = float(values.min()), float(values.max())
    return apart(*((low, high) if low < high else extremes))


def counted_quantiles(counts: NDArray[np.int64]) -> tuple[float, float]:
    """The values at both quantiles, where counts[v] pixels have the value v."""
    below = np.cumsum(counts)
    low, high = np.searchsorted(below, [max(QUANTILES[0] * below[-1], 1), QUANTILES[1] * below[-1]])
    return float(low), float(high)


def apart(low: float, high: float) -> tuple[float, float]:
    """Low and high, or low and one more where all pixels are equal: nothing is divided by zero."""
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def dtype_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """What the type can hold; floats are taken for [0, 1]."""
    return (0.0, float(np.iinfo(dtype).max)) if dtype.kind == "u" else (0.0, 1.0)


def scaled(array: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """(array - low) / (high - low), clipped to [0, 1]."""
    values = array.astype(np.float32)
    values -= np.float32(low)
    values /= np.float32(high - low)
    return np.clip(values, 0, 1, out=values)


def scaled_each(array: NDArray[Any]) -> NDArray[np.float32]:
    """Every image (the last three axes: H, W, C) by its own 0.1 and 99.9 percentile."""
    images = array.reshape(-1, *array.shape[-3:])
    each = [scaled(image, *limits(image[None], np.zeros(1, np.int64))) for image in images]
    return np.stack(each).reshape(array.shape) if each else array.astype(np.float32)
