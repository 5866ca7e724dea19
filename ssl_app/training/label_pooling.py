"""LabelPooling: the target of a crop is pooled from its image's class map (Yun et al., 2021, arXiv:2101.05022).

RoIAlign with one bin is separable: a weight for each row times a weight for each column. So the few classes that a
place keeps are added up where they are, and no map of all classes is ever made.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.data.class_maps import ClassMaps


def axis_weights(low: Tensor, high: Tensor, size: int) -> Tensor:
    """How much each of `size` cells along an axis counts in the mean over a part of it. (B,), (B,) -> (B, size).

    `low` and `high` are in cells, from 0 to `size`. As many samples as the part has cells, rounded up, lie evenly in
    it; each is interpolated linearly between cell centers (RoIAlign, `aligned`; He et al., 2017, arXiv:1703.06870).
    What lies outside the map is left out; of a part that lies outside altogether the nearest cell counts.
    """
    low, high = low.clamp(0, size), high.clamp(0, size)
    extent = high - low
    count = extent.ceil().clamp_min(1)  # (B,) samples
    number = torch.arange(int(count.max()), device=low.device)  # (M,)
    at = low[:, None] - 0.5 + (number + 0.5) * (extent / count)[:, None]  # (B, M), 0 at the center of the first cell
    at = at.clamp(0, size - 1)
    below = at.floor().clamp_max(max(0, size - 2))
    above_share = at - below
    each = (number < count[:, None]) / count[:, None]  # (B, M), of a sample
    weights = low.new_zeros(len(low), size)
    weights.scatter_add_(1, below.long(), each * (1 - above_share))
    return weights.scatter_add_(1, (below.long() + 1).clamp_max(size - 1), each * above_share)


def pooled_logits(ids: Tensor, values: Tensor, rest: Tensor, boxes: Tensor, classes: int) -> Tensor:
    """The mean logits of each box, up to a number that all classes of a box share. -> (B, K).

    ids and values (B, k, h, w) are the kept classes and their logits, rest (B, h, w) the logarithm of the mass of the
    others, which they share alike; boxes (B, 4) are x0, y0, x1, y1 in shares of the map's width and height.
    """
    height, width = ids.shape[-2:]
    rows = axis_weights(boxes[:, 1] * height, boxes[:, 3] * height, height)
    columns = axis_weights(boxes[:, 0] * width, boxes[:, 2] * width, width)
    weights = rows[:, :, None] * columns[:, None, :]  # (B, h, w)
    others = classes - ids.shape[1]
    share = rest - math.log(others) if others else torch.zeros_like(rest)  # the logit of each class that is not kept
    found = (weights * share).sum((1, 2))[:, None].repeat(1, classes)
    return found.scatter_add_(1, ids.flatten(1), (weights[:, None] * (values - share[:, None])).flatten(1))


class PooledTargets:
    """Targets of crops of some images that all have maps, in the order of a loader's."""

    def __init__(self, maps: ClassMaps, content: NDArray[np.int64]) -> None:
        """`content` (N,) are the hashes of the images."""
        self.maps, self.rows = maps, maps.rows_of(content)
        assert (self.rows >= 0).all(), "an image without a map"
        self.frames = torch.from_numpy(maps.frames(self.rows))  # (N, 4)

    def __call__(self, index: Tensor, boxes: Tensor) -> Tensor:
        """Probabilities, (B, K).

        index (B,) numbers the images; boxes (B, 4) are in shares of the packed image, and may reach beyond it.
        """
        where = index.cpu()
        ids, values, rest = (
            torch.from_numpy(array).to(boxes.device) for array in self.maps.at(self.rows[where.numpy()])
        )
        frames = self.frames[where].to(boxes.device)
        low, high = frames[:, :2].repeat(1, 2), frames[:, 2:].repeat(1, 2)  # (B, 4) each: x, y, x, y
        on_map = low + boxes.clamp(0, 1) * (high - low)  # what was padded to the image says nothing of its own
        return torch.softmax(pooled_logits(ids, values, rest, on_map, len(self.maps.form.classes)), 1)
