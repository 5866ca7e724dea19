"""Random crops whose label is not the image's: whether a set has the problem that ReLabel solves.

A crop of a picture of several things often shows another one than the label names: 8 % of ImageNet's crops miss the
object altogether (Yun et al., 2021, arXiv:2101.05022, section 1). Here the pooled label of a class map says what it
shows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATIOS = (3 / 4, 4 / 3)  # aspect ratios of a crop
USUAL, PAPER = 0.5, 0.08  # least area of a crop in our training, and in the paper's
EDGES = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)  # of areas that are counted apart
CROPS, MOST_IMAGES = 20, 2000  # crops of an image and kind; images
MATTERS = 0.05  # of crops as they are trained on, with another label than their whole image

Pooled = Callable[[Tensor, Tensor], Tensor]  # numbers of images (B,) and boxes (B, 4) to probabilities (B, K)


@dataclass(frozen=True)
class CropLabels:
    """Shares in [0, 1] of crops whose pooled label is not their image's, or not that of the whole image's map.

    The first holds the teacher's errors too; the second is what a crop changes, whoever is right.
    """

    images: int
    crops: int  # of each image, of each kind
    whole: float  # whole images whose pooled label is not theirs
    usual: float  # crops as they are trained on
    paper: float  # crops of 8 to 100 % of the area
    moved: float  # crops as they are trained on with another label than the whole image's map
    by_area: tuple[
        float | None, ...
    ]  # of the paper's crops, not the image's label, between EDGES; None: there are none
    moved_by_area: tuple[float | None, ...]  # of them, not the label of the whole image's map

    def sentence(self) -> str:
        """What was found, and whether it matters here."""
        found = (
            f"the pooled label is not the image's in {100 * self.whole:.1f} % of whole images, "
            f"{100 * self.usual:.1f} % of crops of 50 to 100 % of the area and {100 * self.paper:.1f} % of crops of "
            f"8 to 100 % ({self.images} images x {self.crops} crops); {100 * self.moved:.1f} % of crops of 50 to "
            f"100 % show another class than their whole image"
        )
        if self.moved >= MATTERS:
            return f"{found}: one label for all crops of an image is wrong here"
        return f"{found}: pooled labels have little to add"


def random_boxes(count: int, least: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Boxes as RandomResizedCrop draws them: x0, y0, x1, y1 in shares of a square. -> (n, 4)."""
    width, height = np.full(count, 2.0), np.full(count, 2.0)
    while (beyond := np.flatnonzero((width > 1) | (height > 1))).size:
        area = generator.uniform(least, 1.0, len(beyond))
        ratio = np.exp(generator.uniform(math.log(RATIOS[0]), math.log(RATIOS[1]), len(beyond)))
        width[beyond], height[beyond] = np.sqrt(area * ratio), np.sqrt(area / ratio)
    left, top = generator.random(count) * (1 - width), generator.random(count) * (1 - height)
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)


def crop_labels(pooled: Pooled, labels: NDArray[np.int64], seed: int) -> CropLabels | None:
    """Of random crops of images with labels (N,), of a sample where there are many; None where there are none."""
    if not len(labels):
        return None
    generator = np.random.default_rng(seed)
    some = np.sort(generator.permutation(len(labels))[:MOST_IMAGES])
    index = np.repeat(some, CROPS)

    def highest(index: NDArray[np.int64], boxes: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.asarray(pooled_at(pooled, index, boxes).argmax(1))

    whole = highest(some, np.tile(np.array([0, 0, 1, 1], np.float32), (len(some), 1)))
    of_whole = np.repeat(whole, CROPS)
    usual = highest(index, random_boxes(len(index), USUAL, generator))
    boxes = random_boxes(len(index), PAPER, generator)
    paper = highest(index, boxes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kinds = np.digitize(areas, EDGES[1:-1])

    def by_area(wrong: NDArray[np.bool_]) -> tuple[float | None, ...]:
        every = (wrong[kinds == kind] for kind in range(len(EDGES) - 1))
        return tuple(float(one.mean()) if len(one) else None for one in every)

    return CropLabels(
        images=len(some),
        crops=CROPS,
        whole=float((whole != labels[some]).mean()),
        usual=float((usual != labels[index]).mean()),
        paper=float((paper != labels[index]).mean()),
        moved=float((usual != of_whole).mean()),
        by_area=by_area(paper != labels[index]),
        moved_by_area=by_area(paper != of_whole),
    )


def pooled_at(pooled: Pooled, index: NDArray[np.int64], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of many boxes, some at a time. (n,), (n, 4) -> (n, K)."""
    pieces = zip(
        torch.from_numpy(index).chunk(-(-len(index) // 1024)),
        torch.from_numpy(boxes).chunk(-(-len(index) // 1024)),
        strict=True,
    )
    return np.concatenate([pooled(numbers, some).double().numpy() for numbers, some in pieces])
