"""Augmentation of single images: random views, the same for the same seed.

Compose gives every worker the same stream and repeats it each epoch (albumentations 2.0.8), so each image is
seeded by its place in the training: (seed, epoch, place). The bits are then the same for any number of workers. The
views of an image share that seed, so that they can have something in common; a pipeline mixes in the view's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.seeding import mix
from ssl_app.errors import Change, SettingsError

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 of a view, in shares of the packed image's side
FLAT = (3 / 4, 4 / 3)  # aspect ratios of a random crop
CROPS = (A.RandomResizedCrop, A.RandomSizedCrop, A.RandomCrop, A.CenterCrop, A.Crop)
# after which a view is still a box of the image along its axes
BOXES = (*CROPS, A.Pad, A.PadIfNeeded, A.Resize, A.HorizontalFlip, A.VerticalFlip, A.ImageOnlyTransform, A.NoOp)
DRAW = -1  # in the place of a view's number: what is drawn for an image, not for one of its views


@dataclass(frozen=True)
class Frame:
    """What an augmentation is built for: packed images (P, P, C) in, images (S, S, C) out."""

    image_size: int  # S
    pack_size: int  # P
    channels: int = 1  # C
    mirrors: bool = True  # whether a mirror image is as good: not of digits
    vertical_flip: bool = False  # whether it is as good flipped vertically: surfaces without an up


class Augmentation(Protocol):
    """One random view of one image; an object of a method's own is called in the loader's workers."""

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """(P, P, C) -> (S, S, C), both in [0, 1]. The same seed and number of the view give the same view.

        All views of an image have the same seed: views that shall differ are drawn from `mix(seed, view)`.
        """
        ...


class LocatedAugmentation(Augmentation, Protocol):
    """An augmentation that says which box of the image its view shows."""

    def located(self, image: NDArray[np.float32], seed: int, view: int) -> tuple[NDArray[np.float32], Box]:
        """The same view as by a call, and its box, which may reach beyond an image that was padded."""
        ...


class Pipeline:
    """Transforms of albumentations, one after the other; without any, the center crop.

    Square in, square out and no fill color, so that nothing at the border gives the answer of a puzzle away.
    """

    def __init__(self, frame: Frame, transforms: Sequence[A.BasicTransform]) -> None:
        cv2.setNumThreads(0)  # albumentations runs in our threads or workers; OpenCV's own would fight them
        self.image_size, self.pack_size = frame.image_size, frame.pack_size
        self.compose = A.Compose(list(transforms)) if transforms else None

    def __call__(self, image: NDArray[np.float32], seed: int, view: int = 0) -> NDArray[np.float32]:
        """(P, P, C) -> (S, S, C)."""
        found: NDArray[np.float32]
        if self.compose is None:
            (found,) = center(image[None], self.image_size)
            return found
        self.compose.set_random_seed(mix(seed, view) % 2**32)
        found = self.compose(image=image)["image"]
        return found

    def located(self, image: NDArray[np.float32], seed: int, view: int = 0) -> tuple[NDArray[np.float32], Box]:
        """The view, and its box by what the transforms have drawn. Raises SettingsError as `refuse_unlocated`."""
        found, whole = self(image, seed, view), self.pack_size
        start = (whole - self.image_size) // 2 if self.compose is None else 0
        across, down = Axis(start, whole), Axis(start, whole)
        for transform in () if self.compose is None else self.compose.transforms:
            across, down = followed(across, down, transform)
        (x0, x1), (y0, y1) = across.ends(self.image_size), down.ends(self.image_size)
        return found, (x0 / whole, y0 / whole, x1 / whole, y1 / whole)

    def refuse_unlocated(self) -> None:
        """Raise SettingsError where a transform makes a view that is no box along the axes."""
        for transform in () if self.compose is None else self.compose.transforms:
            if not isinstance(transform, BOXES):
                raise SettingsError(
                    f"targets are pooled from the box of a crop, and {type(transform).__name__} leaves none",
                    expected="crops, flips and changes of intensity",
                    fix=Change("augment"),
                )


@dataclass(frozen=True)
class Axis:
    """Along one axis: where the first pixel of a view begins in the packed image, and how far it is to the next."""

    start: float  # pixels of the packed image
    side: float  # of the view, in its own pixels
    step: float = 1.0  # pixels of the packed image for one of the view; below 0 where it is mirrored

    def ends(self, side: float) -> tuple[float, float]:
        """Where a view of so many pixels begins and ends in the packed image, in ascending order."""
        end = self.start + self.step * side
        return min(self.start, end), max(self.start, end)

    def cut(self, low: float, high: float, side: float | None = None) -> "Axis":
        """From pixel `low` to pixel `high` of the view, resized to `side`. Both may lie outside: it is padded."""
        side = high - low if side is None else side
        return Axis(self.start + self.step * low, side, self.step * (high - low) / side)

    def mirrored(self) -> "Axis":
        """Counted from the other end."""
        return Axis(self.start + self.step * self.side, self.side, -self.step)


def followed(across: Axis, down: Axis, transform: A.BasicTransform) -> tuple[Axis, Axis]:
    """Both axes after one more transform, by what it has drawn last; of BOXES."""
    drawn = transform.params  # albumentations 2.0.8 empties it where the transform was not applied
    if not drawn:
        return across, down
    if isinstance(transform, CROPS):
        pad = drawn.get("pad_params") or {}
        left, top = pad.get("pad_left", 0), pad.get("pad_top", 0)
        x0, y0, x1, y1 = drawn["crop_coords"]
        height, width = getattr(transform, "size", (y1 - y0, x1 - x0))
        return across.cut(x0 - left, x1 - left, width), down.cut(y0 - top, y1 - top, height)
    if isinstance(transform, A.Pad | A.PadIfNeeded):
        return (
            across.cut(-drawn["pad_left"], across.side + drawn["pad_right"]),
            down.cut(-drawn["pad_top"], down.side + drawn["pad_bottom"]),
        )
    if isinstance(transform, A.Resize):
        return across.cut(0, across.side, transform.width), down.cut(0, down.side, transform.height)
    if isinstance(transform, A.HorizontalFlip):
        return across.mirrored(), down
    if isinstance(transform, A.VerticalFlip):
        return across, down.mirrored()
    return across, down


class Mixed:
    """Another augmentation for each number of a view: the first view weak, the second strong, say."""

    def __init__(self, *by_view: Augmentation) -> None:
        self.by_view = by_view

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """By the augmentation of this view; further views take the last."""
        return self.by_view[min(view, len(self.by_view) - 1)](image, seed, view)


class MixedImages:
    """One of several augmentations for each image, equally often, and the same one for all views of the image."""

    def __init__(self, *by_image: Augmentation) -> None:
        self.by_image = by_image

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """By the augmentation that the image's seed draws."""
        return self.by_image[mix(seed, DRAW) % len(self.by_image)](image, seed, view)


Build = Callable[[Frame], Augmentation]  # what a method or a user names


def mirrored(frame: Frame) -> list[A.BasicTransform]:
    """Horizontal and vertical flips, where the images allow them."""
    horizontal: list[A.BasicTransform] = [A.HorizontalFlip(p=0.5)] if frame.mirrors else []
    return [*horizontal, A.VerticalFlip(p=0.5)] if frame.vertical_flip else horizontal


def crop(frame: Frame, least: float) -> A.BasicTransform:
    """A random part of at least this share of the area, resized to the image size."""
    return A.RandomResizedCrop((frame.image_size, frame.image_size), scale=(least, 1.0), ratio=FLAT)


def none(frame: Frame) -> Pipeline:
    """The center crop."""
    return Pipeline(frame, [])


def light(frame: Frame) -> Pipeline:
    """A shift by up to an eighth, and a flip."""
    margin = max(0, frame.image_size + frame.image_size // 4 - frame.pack_size)
    side = frame.pack_size + margin
    padded = [A.PadIfNeeded(side, side, border_mode=cv2.BORDER_REFLECT_101)] if margin else []
    return Pipeline(frame, [*padded, A.RandomCrop(frame.image_size, frame.image_size), *mirrored(frame)])


def cropped(frame: Frame) -> Pipeline:
    """A random part of at least half of the area, and a flip."""
    return Pipeline(frame, [crop(frame, 0.5), *mirrored(frame)])


def standard(frame: Frame) -> Pipeline:
    """As `crop`, with brightness and contrast."""
    jitter = A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.8)
    return Pipeline(frame, [crop(frame, 0.5), *mirrored(frame), jitter])


def strong(frame: Frame) -> Pipeline:
    """A part of at least a fifth, and brightness and contrast by factors, which leave dark images visible.

    With three channels colors and grays too: the kinds that self-labeling wants (Asano et al., 2020, appendix), with
    less of the hue.
    """
    jitter: dict[int, list[A.BasicTransform]] = {
        1: [A.ColorJitter(0.4, 0.4, 0.0, 0.0, p=0.8)],
        3: [A.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), A.ToGray(p=0.2)],
    }
    # with any other number of channels a factor is all there is
    other = [A.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=0.4, p=0.8)]
    return Pipeline(frame, [crop(frame, 0.2), *mirrored(frame), *jitter.get(frame.channels, other)])


PRESETS: dict[str, Build] = {"none": none, "light": light, "crop": cropped, "standard": standard, "strong": strong}


def preset(name: str, frame: Frame, mirror: bool | None = None) -> Augmentation:
    """An augmentation by its name; `mirror` overrules what the images allow."""
    return PRESETS[name](frame if mirror is None else replace(frame, mirrors=mirror))


def center(images: NDArray[np.float32], image_size: int) -> NDArray[np.float32]:
    """The center squares that a network is tested on. (N, P, P, C) -> (N, S, S, C)."""
    start = (images.shape[1] - image_size) // 2
    return images[:, start : start + image_size, start : start + image_size]
