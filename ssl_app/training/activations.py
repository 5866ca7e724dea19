"""Top activations: for every channel of a layer, the images that activate it most, and where in them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.data.loading import ImageRows
from ssl_app.models.backbones import Backbone
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import each_batch


@dataclass(frozen=True, eq=False)
class TopActivations:
    """Of each of D channels: its k largest activations, one an image, largest first; of N images."""

    values: NDArray[np.float32]  # (D, k)
    images: NDArray[np.int64]  # (D, k) place among the rows
    places: NDArray[np.int64]  # (D, k) of the unit in the map, row by row from the top left
    mean: NDArray[np.float64]  # (D,) of the images' largest activations
    deviation: NDArray[np.float64]  # (D,)

    def most_selective(self, count: int) -> NDArray[np.int64]:
        """Channels whose top images stand out most from all images, in deviations; none that never changes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            selectivity = (self.values.mean(1) - self.mean) / self.deviation
        alive = np.flatnonzero(self.deviation > 1e-6 * np.maximum(1e-6, np.abs(self.values[:, 0])))
        return alive[np.argsort(-selectivity[alive], kind="stable")[:count]]


def top_activations(
    backbone: Backbone, layer: str | None, rows: ImageRows, hardware: Hardware, k: int
) -> TopActivations:
    """The k images that activate each channel most; an image counts once, by its most active unit.

    One pass over the images. In memory are one batch and k numbers a channel. Of equals the first comes first.
    k beyond the number of images means all.
    """
    held: tuple[Tensor, Tensor, Tensor] | None = None  # values, images, places; each (D, k) at most
    total = squares = torch.zeros(0, dtype=torch.float64)
    count = 0

    def largest(images: Tensor) -> tuple[Tensor, Tensor]:
        features = backbone(images, layer).float()
        best = (features if features.dim() == 4 else features[:, :, None, None]).flatten(2).max(2)
        return best.values.cpu(), best.indices.cpu()  # (B, D)

    for values, places in each_batch(backbone, largest, rows, hardware):
        number = torch.arange(count, count + len(values)).expand(values.shape[1], -1)  # (D, B)
        fresh = (values.t(), number, places.t())
        known = fresh if held is None else tuple(torch.cat(pair, 1) for pair in zip(held, fresh, strict=True))
        order = known[0].sort(stable=True, dim=1, descending=True).indices[:, :k]
        held = (known[0].gather(1, order), known[1].gather(1, order), known[2].gather(1, order))
        total = total + values.double().sum(0) if count else values.double().sum(0)
        squares = squares + values.double().square().sum(0) if count else values.double().square().sum(0)
        count += len(values)
    assert held is not None, "no images"
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return TopActivations(held[0].numpy(), held[1].numpy(), held[2].numpy(), mean.numpy(), deviation.numpy())
