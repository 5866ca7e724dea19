"""Augmentation: random views of a batch of images, the same for the same seed.

albumentations describes it. Transforms that `operations` knows are executed without it, for a batch at once; others
image by image by albumentations itself, whose Compose gives every worker the same stream and repeats it each
epoch (2.0.8). So each image is seeded by its place in the training: (seed, epoch, place). The bits are then the same
for any batch and number of workers. The views of an image share that seed, so that they can have something in common;
a pipeline mixes in the view's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.boxes import BOXES, Axis, Box, box, followed
from ssl_app.data.operations import Images, executed, operations
from ssl_app.data.seeding import Seeds, mix, mix_each
from ssl_app.errors import Change, SettingsError

FLAT = (3 / 4, 4 / 3)  # aspect ratios of a random crop
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


class BatchAugmentation(Augmentation, Protocol):
    """An augmentation that gives one view of each image of a batch faster than by a call for each."""

    def batch(self, images: Images, seeds: Seeds, view: int) -> Images:
        """(B, P, P, C), (B,) -> (B, S, S, C): the same views as by calls, to the bit."""
        ...


def views_of_batch(augmentation: Augmentation, images: Images, seeds: Seeds, view: int) -> Images:
    """One view of each image, by any augmentation. (B, P, P, C), (B,) -> (B, S, S, C)."""
    if _batch_is_its_own(type(augmentation)):
        return cast(BatchAugmentation, augmentation).batch(images, seeds, view)
    return np.stack([augmentation(image, seed, view) for image, seed in zip(images, seeds.tolist(), strict=True)])


def _batch_is_its_own(kind: type) -> bool:
    """Whether a class has `batch`, and none below it in the order of inheritance another `__call__`."""
    for one in kind.__mro__:
        if "batch" in vars(one):
            return True
        if "__call__" in vars(one):
            return False
    return False


def located_views_of_batch(
    augmentation: LocatedAugmentation, images: Images, seeds: Seeds, view: int
) -> tuple[Images, NDArray[np.float64]]:
    """The same, and the boxes (B, 4)."""
    if isinstance(augmentation, Pipeline):
        return augmentation.located_batch(images, seeds, view)
    pairs = zip(images, seeds.tolist(), strict=True)
    views, boxes = zip(*(augmentation.located(image, seed, view) for image, seed in pairs), strict=True)
    return np.stack(views), np.array(boxes)


class Pipeline:
    """Transforms of albumentations, one after the other; without any, the center crop.

    Square in, square out and no fill color, so that nothing at the border gives the answer of a puzzle away.
    """

    def __init__(self, frame: Frame, transforms: Sequence[A.BasicTransform]) -> None:
        cv2.setNumThreads(0)  # OpenCV runs in our threads or workers; its own would fight them
        self.pack_size = frame.pack_size
        side = frame.image_size
        self.compose = A.Compose(list(transforms) or [A.CenterCrop(side, side)])
        self.operations = operations(self.compose.transforms, frame.channels)

    def __call__(self, image: NDArray[np.float32], seed: int, view: int = 0) -> NDArray[np.float32]:
        """(P, P, C) -> (S, S, C)."""
        return self.located(image, seed, view)[0]

    def located(self, image: NDArray[np.float32], seed: int, view: int = 0) -> tuple[NDArray[np.float32], Box]:
        """The view, and its box, which is meant only after `refuse_unlocated`."""
        views, boxes = self.located_batch(image[None], np.array([seed], np.uint64), view)
        x0, y0, x1, y1 = boxes[0].tolist()
        return views[0], (x0, y0, x1, y1)

    def batch(self, images: Images, seeds: Seeds, view: int = 0) -> Images:
        """(B, P, P, C), (B,) -> (B, S, S, C)."""
        return self.located_batch(images, seeds, view)[0]

    def located_batch(self, images: Images, seeds: Seeds, view: int = 0) -> tuple[Images, NDArray[np.float64]]:
        """The views, and their boxes (B, 4)."""
        own = mix_each(seeds, view)
        if self.operations is not None:
            views, boxes = executed(self.operations, images, own)
        else:
            each = [composed(self.compose, image, seed) for image, seed in zip(images, own.tolist(), strict=True)]
            views, boxes = (np.stack(found) for found in zip(*each, strict=True))
        return views, boxes / self.pack_size

    def refuse_unlocated(self) -> None:
        """Raise SettingsError where a transform makes a view that is no box along the axes."""
        for transform in self.compose.transforms:
            if not isinstance(transform, BOXES):
                raise SettingsError(
                    f"targets are pooled from the box of a crop, and {type(transform).__name__} leaves none",
                    expected="crops, flips and changes of intensity",
                    fix=Change("augment"),
                )


def composed(
    compose: A.Compose, image: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """One view by albumentations itself, and its box (4,) in pixels by what the transforms have drawn."""
    compose.set_random_seed(seed % 2**32)
    view: NDArray[np.float32] = compose(image=image)["image"]
    across, down = Axis(0, image.shape[1]), Axis(0, image.shape[0])
    for transform in compose.transforms:
        # albumentations 2.0.8 empties the parameters where a transform was not applied
        if isinstance(transform, BOXES) and transform.params:
            across, down = followed(across, down, transform, transform.params)
    return view, box(across, down, len(view))


class Mixed:
    """Another augmentation for each number of a view: the first view weak, the second strong, say."""

    def __init__(self, *by_view: Augmentation) -> None:
        self.by_view = by_view

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """By the augmentation of this view; further views take the last."""
        return self._of(view)(image, seed, view)

    def batch(self, images: Images, seeds: Seeds, view: int) -> Images:
        """The same of each image."""
        return views_of_batch(self._of(view), images, seeds, view)

    def _of(self, view: int) -> Augmentation:
        return self.by_view[min(view, len(self.by_view) - 1)]


class MixedImages:
    """One of several augmentations for each image, equally often, and the same one for all views of the image."""

    def __init__(self, *by_image: Augmentation) -> None:
        self.by_image = by_image

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """By the augmentation that the image's seed draws."""
        return self.by_image[mix(seed, DRAW) % len(self.by_image)](image, seed, view)

    def batch(self, images: Images, seeds: Seeds, view: int) -> Images:
        """The same of each image."""
        drawn = mix_each(seeds, DRAW) % np.uint64(len(self.by_image))
        rows = [np.flatnonzero(drawn == number) for number in range(len(self.by_image))]
        parts = [
            views_of_batch(augmentation, images[mine], seeds[mine], view)
            for augmentation, mine in zip(self.by_image, rows, strict=True)
            if len(mine)
        ]
        return np.concatenate(parts)[np.concatenate(rows).argsort()]


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


@dataclass(frozen=True)
class Corners:
    """The center crop, and the crops of the four corners, a view each: together they show all of a packed image."""

    frame: Frame

    @property
    def views(self) -> int:
        """Five, or one where an image is packed as large as the network sees it."""
        return 5 if self.frame.pack_size > self.frame.image_size else 1

    def __call__(self, image: NDArray[np.float32], seed: int, view: int) -> NDArray[np.float32]:
        """(P, P, C) -> (S, S, C)."""
        found: NDArray[np.float32] = self.batch(image[None], np.array([seed], np.uint64), view)[0]
        return found

    def batch(self, images: Images, seeds: Seeds, view: int) -> Images:
        """(B, P, P, C), (B,) -> (B, S, S, C), whatever the seeds."""
        side, last = self.frame.image_size, self.frame.pack_size - self.frame.image_size
        top, left = ((last // 2, last // 2), (0, 0), (0, last), (last, 0), (last, last))[view]
        return images[:, top : top + side, left : left + side]


def center(images: NDArray[np.float32], image_size: int) -> NDArray[np.float32]:
    """The center squares that a network is tested on. (N, P, P, C) -> (N, S, S, C)."""
    start = (images.shape[1] - image_size) // 2
    return images[:, start : start + image_size, start : start + image_size]
