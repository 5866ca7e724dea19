"""Transforms of albumentations, executed for a batch without albumentations: OPERATIONS holds those that can be.

albumentations describes an augmentation. On small images its own code (Compose, seeding, checks, wrappers) takes
nearly all of the time of a call. So here the parameters of all images are drawn at once, and pixels are changed by
direct calls of OpenCV and numpy, image by image: that stays in the cache, and is as fast as operations on a whole
batch of 128, on one of 32 faster. What an image is given depends on its seed alone, to the bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d
from numpy.typing import NDArray

from ssl_app.data.boxes import Axis, box, followed
from ssl_app.data.seeding import Seeds, mix_each

Image = NDArray[np.float32]  # (H, W, C) in [0, 1]
Images = NDArray[np.float32]  # (B, H, W, C) in [0, 1]
Numbers = NDArray[np.float64]  # random ones in [0, 1): (B, n)
Drawn = Mapping[str, NDArray[Any]]  # parameters in the order of `apply`, a row for each image
MOST_CHANNELS = 128  # that OpenCV 5 takes at once
TRIES = 10  # crops that may be too large, before it is the whole image


class Operation(ABC):
    """One transform: what is drawn for each image, and what is done to it."""

    numbers = 0  # random ones for each image
    resizes = False  # whether images may change their size, so that all have to

    def __init__(self, transform: A.BasicTransform) -> None:
        self.transform: Any = transform

    def knows(self, channels: int) -> bool:
        """Whether the transform with its settings can be executed here, on images of so many channels."""
        return True

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The parameters, of albumentations' distribution. (B, numbers), (H, W, C) of the images."""
        return {}

    @abstractmethod
    def apply(self, image: Image, *parameters: Any) -> Image:
        """The image after the transform; the one given is left as it was."""


class RandomResizedCrop(Operation):
    """A box of random area and aspect ratio, resized."""

    numbers = 2 * TRIES + 2
    resizes = True

    def knows(self, channels: int) -> bool:
        """With one interpolation for boxes of any size."""
        return self.transform.area_for_downscale is None

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The first of TRIES boxes that is no larger than the image."""
        height, width = shape[:2]
        area, ratio = numbers[:, 2:].reshape(-1, 2, TRIES).transpose(1, 0, 2)  # both (B, TRIES)
        area = between(self.transform.scale, area) * (height * width)
        ratio = np.exp(between(np.log(self.transform.ratio), ratio))
        across, down = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (across > 0) & (across <= width) & (down > 0) & (down <= height)
        first = np.arange(len(fits)), fits.argmax(1)
        boxes = placed(across[first].astype(int), down[first].astype(int), width, height, *numbers[:, :2].T)
        least, most = self.transform.ratio
        boxes[~fits.any(1)] = centered(
            min(width, round(height * most)), min(height, round(width / least)), width, height
        )
        return {"crop_coords": boxes}

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV."""
        ((x0, y0, x1, y1),) = parameters
        height, width = self.transform.size
        how = self.transform.interpolation
        return in_bands(image[y0:y1, x0:x1], lambda part: cv2.resize(part, (width, height), interpolation=how))


class RandomCrop(Operation):
    """A box of a fixed size at a random place."""

    numbers = 2
    resizes = True

    def knows(self, channels: int) -> bool:
        """Without padding of its own."""
        return not self.transform.pad_if_needed

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """Every place is as likely."""
        w, h = self.transform.width, self.transform.height
        assert max(h - shape[0], w - shape[1]) <= 0, (
            f"a crop of {h} x {w} pixels, of an image of {shape[0]} x {shape[1]}"
        )
        sizes = np.full(len(numbers), w), np.full(len(numbers), h)
        return {"crop_coords": placed(*sizes, shape[1], shape[0], *numbers.T)}

    def apply(self, image: Image, *parameters: Any) -> Image:
        """A part of the same memory."""
        ((x0, y0, x1, y1),) = parameters
        return image[y0:y1, x0:x1]


class CenterCrop(RandomCrop):
    """A box of a fixed size in the middle."""

    numbers = 0

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The same for each image."""
        found = centered(self.transform.width, self.transform.height, shape[1], shape[0])
        return {"crop_coords": np.tile(found, (len(numbers), 1))}


class PadIfNeeded(Operation):
    """Reflections around an image that is too small."""

    resizes = True

    def knows(self, channels: int) -> bool:
        """By reflection, as much for each image."""
        return bool(self.transform.border_mode == cv2.BORDER_REFLECT_101) and self.transform.position != "random"

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """Nothing at random; by albumentations' own rule."""
        pads = self.transform.get_params_dependent_on_data({"shape": shape}, {})
        return {
            name: np.full(len(numbers), pads[name]) for name in ("pad_top", "pad_bottom", "pad_left", "pad_right")
        }

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV, which reflects again and again where the border is wider than the image."""
        top, bottom, left, right = parameters
        border = cv2.BORDER_REFLECT_101
        return in_bands(image, lambda part: cv2.copyMakeBorder(part, top, bottom, left, right, border))


class HorizontalFlip(Operation):
    """Left and right exchanged."""

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV, which is faster than strides."""
        return in_bands(image, lambda part: cv2.flip(part, 1))


class VerticalFlip(Operation):
    """Top and bottom exchanged."""

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV, which is faster than strides."""
        return in_bands(image, lambda part: cv2.flip(part, 0))


class ColorJitter(Operation):
    """Brightness, contrast, saturation and hue in a random order."""

    numbers = 8

    def knows(self, channels: int) -> bool:
        """Of grays or colors, as albumentations."""
        return channels in (1, 3)

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """A factor of each kind, and the order, of which each is as likely."""
        kinds = ("brightness", "contrast", "saturation", "hue")
        factors = {kind: between(getattr(self.transform, kind), numbers[:, i]) for i, kind in enumerate(kinds)}
        return factors | {"order": numbers[:, 4:].argsort(1)}

    def apply(self, image: Image, *parameters: Any) -> Image:
        """Step by step."""
        *factors, order = parameters
        for kind in order:
            adjust, unchanged = ADJUSTMENTS[kind]
            if factors[kind] != unchanged:
                image = adjust(image, factors[kind])
        return image


class ToGray(Operation):
    """Grays in three channels."""

    def knows(self, channels: int) -> bool:
        """The weighted mean of three channels, in three channels."""
        return (
            channels == 3 and self.transform.num_output_channels == 3 and self.transform.method == "weighted_average"
        )

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV."""
        return three(gray(image))


class RandomBrightnessContrast(Operation):
    """A factor and a term."""

    numbers = 2

    def knows(self, channels: int) -> bool:
        """By parameters that do not depend on the image."""
        return bool(self.transform.brightness_by_max) and not self.transform.ensure_safe_range

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The factor and the term."""
        contrast, brightness = numbers.T
        limits = self.transform
        return {
            "alpha": 1 + between(limits.contrast_limit, contrast),
            "beta": between(limits.brightness_limit, brightness),
        }

    def apply(self, image: Image, *parameters: Any) -> Image:
        """Clipped."""
        alpha, beta = parameters
        image = image * alpha
        image += beta
        return clipped(image)


class RandomGamma(Operation):
    """A power of the pixels."""

    numbers = 1

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The exponent."""
        return {"gamma": between(self.transform.gamma_limit, numbers[:, 0]) / 100}

    def apply(self, image: Image, *parameters: Any) -> Image:
        """Of [0, 1] in [0, 1]."""
        (gamma,) = parameters
        powered: Image = np.power(image, gamma)
        return powered


class GaussianBlur(Operation):
    """A separable kernel."""

    numbers = 2

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """The deviation in pixels, and the kernel's length; albumentations makes an even one longer by one."""
        deviation, length = numbers.T
        low, high = self.transform.blur_limit
        return {
            "sigma": between(self.transform.sigma_limit, deviation),
            "ksize": low + (length * (high - low + 1)).astype(int),
        }

    def apply(self, image: Image, *parameters: Any) -> Image:
        """With albumentations' kernel."""
        kernel = create_gaussian_kernel_1d(*parameters)
        return clipped(in_bands(image, lambda part: cv2.sepFilter2D(part, -1, kernel, kernel)))


class GaussNoise(Operation):
    """Normal noise of a random deviation."""

    numbers = 3

    def knows(self, channels: int) -> bool:
        """Of its own in every pixel and channel."""
        return bool(self.transform.per_channel) and self.transform.noise_scale_factor == 1

    def draw(self, numbers: Numbers, shape: tuple[int, ...]) -> Drawn:
        """Mean, deviation, and a seed for what is drawn in every pixel."""
        deviation, mean, seed = numbers.T
        return {
            "mean": between(self.transform.mean_range, mean),
            "sigma": between(self.transform.std_range, deviation),
            "seed": (seed * 2**31).astype(int),
        }

    def apply(self, image: Image, *parameters: Any) -> Image:
        """By OpenCV's generator, as albumentations: a quarter of the time of numpy's, an eighth of a hash."""
        mean, sigma, seed = parameters
        noise = np.empty((image.shape[0], image.shape[1] * image.shape[2]), np.float32)
        cv2.setRNGSeed(seed)
        cv2.randn(noise, mean, sigma)
        noise = noise.reshape(image.shape)
        noise += image
        return clipped(noise)


OPERATIONS: dict[type, type[Operation]] = {
    A.RandomResizedCrop: RandomResizedCrop,
    A.RandomCrop: RandomCrop,
    A.CenterCrop: CenterCrop,
    A.PadIfNeeded: PadIfNeeded,
    A.HorizontalFlip: HorizontalFlip,
    A.VerticalFlip: VerticalFlip,
    A.ColorJitter: ColorJitter,
    A.ToGray: ToGray,
    A.RandomBrightnessContrast: RandomBrightnessContrast,
    A.RandomGamma: RandomGamma,
    A.GaussianBlur: GaussianBlur,
    A.GaussNoise: GaussNoise,
}


def operations(transforms: Sequence[A.BasicTransform], channels: int) -> list[Operation] | None:
    """How to execute the transforms on images of so many channels; None where one of them is unknown."""
    found = []
    for transform in transforms:
        if type(transform) not in OPERATIONS:  # of a subclass nothing is known
            return None
        operation = OPERATIONS[type(transform)](transform)
        if not operation.knows(channels) or (operation.resizes and transform.p < 1):
            return None
        found.append(operation)
    return found


def executed(found: Sequence[Operation], images: Images, seeds: Seeds) -> tuple[Images, NDArray[np.float64]]:
    """The operations, one after the other, and the boxes (B, 4) that are left of the images, in their pixels.

    (B, P, P, C), (B,) -> (B, S, S, C).
    """
    views, start = list(images), np.zeros(len(images))
    across, down = Axis(start, images.shape[2]), Axis(start, images.shape[1])
    numbers, used = uniform(seeds, sum(1 + operation.numbers for operation in found)), 0
    for operation in found:
        chosen = numbers[:, used] < operation.transform.p  # (B,)
        drawn = operation.draw(numbers[:, used + 1 :][:, : operation.numbers], views[0].shape)
        used += 1 + operation.numbers
        each = zip(*(values.tolist() for values in drawn.values()), strict=True) if drawn else [()] * len(views)
        views = [
            operation.apply(view, *parameters) if applied else view
            for view, applied, parameters in zip(views, chosen.tolist(), each, strict=True)
        ]
        if not isinstance(operation.transform, A.ImageOnlyTransform):
            moved = followed(across, down, operation.transform, drawn)
            across, down = moved[0].where(chosen, across), moved[1].where(chosen, down)
    return np.concatenate(views).reshape(len(views), *views[0].shape), box(across, down, len(views[0]))


def uniform(seeds: Seeds, count: int) -> Numbers:
    """Random numbers of each image, by its seed. (B,) -> (B, count), in [0, 1)."""
    found = mix_each(seeds[:, None], np.arange(count, dtype=np.uint64))
    return (found >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(limits: Sequence[float] | Numbers, numbers: Numbers) -> Numbers:
    """From [0, 1) to [low, high)."""
    low, high = limits
    return low + (high - low) * numbers


def placed(
    w: NDArray[np.int64], h: NDArray[np.int64], width: int, height: int, left: Numbers, top: Numbers
) -> NDArray[np.int64]:
    """Boxes of sizes w x h in images of width x height, every place as likely. Each (B,) -> (B, 4)."""
    x, y = ((width - w + 1) * left).astype(int), ((height - h + 1) * top).astype(int)
    return np.stack([x, y, x + w, y + h], 1)


def centered(w: int, h: int, width: int, height: int) -> tuple[int, int, int, int]:
    """A box of w x h in the middle of an image of width x height."""
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def clipped(image: Image) -> Image:
    """To [0, 1], in place; np.clip takes twice as long on a small image."""
    np.minimum(image, 1, out=image)
    return np.maximum(image, 0, out=image)


def in_bands(image: Image, work: Callable[[Image], Image]) -> Image:
    """work(image), which treats every channel alike, as (H, W, C): of many channels, on some at a time."""
    if image.shape[2] <= MOST_CHANNELS:
        found = work(image)
        return found.reshape(*found.shape[:2], -1)
    starts = range(0, image.shape[2], MOST_CHANNELS)
    parts = [np.ascontiguousarray(image[..., start : start + MOST_CHANNELS]) for start in starts]
    return np.concatenate([in_bands(part, work) for part in parts], axis=2)


def gray(image: Image) -> NDArray[np.float32]:
    """The weighted mean of three channels, or the only one. -> (H, W)."""
    found: NDArray[np.float32] = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return found


def three(found: NDArray[np.float32]) -> Image:
    """Three equal channels. (H, W) -> (H, W, 3)."""
    image: Image = cv2.cvtColor(found, cv2.COLOR_GRAY2RGB)
    return image


def adjust_brightness(image: Image, factor: float) -> Image:
    """By a factor, which is not negative."""
    image = image * factor
    return np.minimum(image, 1, out=image)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Away from the mean of the gray image, or towards it."""
    term = (1 - factor) * cv2.mean(gray(image))[0]
    image = image * factor
    image += term
    return clipped(image)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Away from the gray image, or towards it; a gray one stays."""
    if image.shape[2] == 1:
        return image
    return clipped(cv2.addWeighted(image, factor, three(gray(image)), 1 - factor, 0))


def adjust_hue(image: Image, share: float) -> Image:
    """By a share of the circle; a gray image stays."""
    if image.shape[2] == 1:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hue = hsv[..., 0]
    hue += share % 1 * 360  # degrees; OpenCV takes them modulo 360
    turned: Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return turned


# of ColorJitter, in albumentations' numbering, each with what changes nothing
ADJUSTMENTS = ((adjust_brightness, 1), (adjust_contrast, 1), (adjust_saturation, 1), (adjust_hue, 0))
