"""Augmentation of single images; the one user of albumentations.

Compose gives every worker the same stream and repeats it each epoch (2.0.8), so each image is
seeded by its place in the training: (seed, epoch, place, view). The bits are then the same for any number of workers.
"""

from typing import Literal

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

Preset = Literal["none", "light", "crop", "standard", "strong"]


class Augment:
    """Random views of packed images: (P, P, C) float32 in [0, 1] -> (S, S, C) float32 in [0, 1].

    none: the center. light: a shift by up to an eighth, and a mirror image. crop: a random part of at least half
    the area, and a mirror image. standard: also brightness and contrast. strong: a part of at least a fifth,
    brightness and contrast by factors, which leave dark images visible, and where there are three channels color and
    grays too: the kinds that self-labeling asks for (Asano et al., 2020, appendix), with less of the hue.
    Square in, square out and no fill color, so that nothing at the border tells a puzzle's answer.
    """

    def __init__(self, preset: Preset, image_size: int, pack_size: int, mirrors: bool) -> None:
        self.image_size = image_size
        cv2.setNumThreads(0)  # albumentations runs in our threads or workers; OpenCV's own would fight them
        steps: list[A.BasicTransform] = []
        self.by_channels: dict[int, A.Compose] = {}  # where their number matters
        if preset == "light":
            margin = max(0, image_size + image_size // 4 - pack_size)
            if margin:
                side = pack_size + margin
                steps.append(A.PadIfNeeded(side, side, border_mode=cv2.BORDER_REFLECT_101))
            steps.append(A.RandomCrop(image_size, image_size))
        elif preset in ("crop", "standard"):
            steps.append(A.RandomResizedCrop((image_size, image_size), scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)))
        elif preset == "strong":
            steps.append(A.RandomResizedCrop((image_size, image_size), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)))
        if preset != "none" and mirrors:
            steps.append(A.HorizontalFlip(p=0.5))
        if preset == "standard":
            steps.append(A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.8))
        elif preset == "strong":
            jitter: dict[int, list[A.BasicTransform]] = {
                1: [A.ColorJitter(0.4, 0.4, 0.0, 0.0, p=0.8)],
                3: [A.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), A.ToGray(p=0.2)],
            }
            self.by_channels = {channels: A.Compose([*steps, *more]) for channels, more in jitter.items()}
            # with any other number of channels a factor is all there is
            steps.append(A.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=0.4, p=0.8))
        self.pipeline = A.Compose(steps) if steps else None

    def __call__(self, image: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """One view of one image; the same seed gives the same view."""
        view: NDArray[np.float32]
        if self.pipeline is None:
            (view,) = center(image[None], self.image_size)
            return view
        pipeline = self.by_channels.get(image.shape[-1], self.pipeline)
        pipeline.set_random_seed(seed % 2**32)
        view = pipeline(image=image)["image"]
        return view


def center(images: NDArray[np.float32], image_size: int) -> NDArray[np.float32]:
    """The center squares that a network is tested on. (N, P, P, C) -> (N, S, S, C)."""
    start = (images.shape[1] - image_size) // 2
    return images[:, start : start + image_size, start : start + image_size]
