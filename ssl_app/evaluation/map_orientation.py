"""Whether class maps lie on their images as they are stored, or transposed: where an image changes, its map does.

Cross-entropy of random crops' targets with the images' labels cannot tell: crops are drawn alike along both axes, so
that a map and the transposed one have the same expectation, but for the margins of images that are not square.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ssl_app.evaluation.crop_labels import Pooled, pooled_at

GRID = 8  # squares along a side of an image that are compared with their neighbors
SURE = 3.0  # standard errors of the mean over images


@dataclass(frozen=True)
class Orientation:
    """How far changes of images and maps go together, as correlations in [-1, 1], their mean over images."""

    images: int
    as_stored: float
    transposed: float
    error: float  # standard error of the mean difference

    @property
    def is_transposed(self) -> bool | None:
        """None where the difference is within SURE standard errors."""
        if abs(self.transposed - self.as_stored) <= SURE * self.error:
            return None
        return self.transposed > self.as_stored

    def sentence(self) -> str:
        """What was found, and what is taken."""
        way = {True: "transposed", False: "as stored", None: "as stored, since that is no clear difference"}
        return (
            f"changes of {self.images} images and of their maps correlate by {self.as_stored:.3f} as stored and by "
            f"{self.transposed:.3f} transposed (standard error {self.error:.3f}): taken {way[self.is_transposed]}"
        )


def orientation(
    as_stored: Pooled, transposed: Pooled, pictures: NDArray[np.float32], labels: NDArray[np.int64]
) -> Orientation:
    """Of images (N, P, P, C) with labels (N,), in the order that both kinds of targets count them."""
    found = [changes_together(pooled, pictures, labels) for pooled in (as_stored, transposed)]
    gain = found[1] - found[0]
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else np.inf
    return Orientation(len(labels), float(found[0].mean()), float(found[1].mean()), float(error))


def changes_together(pooled: Pooled, pictures: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Correlation over neighboring squares of the difference in color and that in the label's probability. (N,)."""
    edges = np.linspace(0, 1, GRID + 1, dtype=np.float32)
    boxes = np.array([(edges[x], edges[y], edges[x + 1], edges[y + 1]) for y in range(GRID) for x in range(GRID)])
    index = np.repeat(np.arange(len(labels)), len(boxes))
    likely = pooled_at(pooled, index, np.tile(boxes, (len(labels), 1)))[np.arange(len(index)), labels[index]]
    of_map = likely.reshape(-1, 1, GRID, GRID)
    channels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    of_image = functional.adaptive_avg_pool2d(channels, GRID).double().numpy()
    pairs = [_differences(values) for values in (of_map, of_image)]  # (N, 2 GRID (GRID - 1)) each
    centered = [values - values.mean(1, keepdims=True) for values in pairs]
    spread = np.sqrt(np.square(centered[0]).sum(1) * np.square(centered[1]).sum(1))
    correlation: NDArray[np.float64] = (centered[0] * centered[1]).sum(1) / np.maximum(spread, 1e-12)
    return correlation


def _differences(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between neighbors below and to the right, summed over channels. (N, C, G, G) -> (N, 2 G (G - 1))."""
    down = np.abs(np.diff(values, axis=2)).sum(1).reshape(len(values), -1)
    right = np.abs(np.diff(values, axis=3)).sum(1).reshape(len(values), -1)
    return np.concatenate([down, right], axis=1)
