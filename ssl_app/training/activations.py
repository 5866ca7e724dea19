"""Top activations: for every channel of a layer, the images that activate it most, and where in them."""

from collections.abc import Sequence
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
    backbone: Backbone, layers: Sequence[str], rows: ImageRows, hardware: Hardware, k: int
) -> list[TopActivations]:
    """Of each layer, the k images that activate each channel most; an image counts once, by its most active unit.

    One pass over the images for all layers. In memory are one batch and k numbers a channel. Of equals the first
    image comes first. k beyond the number of images means all. Raises SettingsError for a layer that is not there.
    """
    found = [_Largest(k) for _ in layers]

    def largest(images: Tensor) -> list[tuple[Tensor, Tensor]]:
        return backbone.each_layer(images, layers, _most_active)

    for batch in each_batch(backbone, largest, rows, hardware):
        for one, (values, places) in zip(found, batch, strict=True):
            one.add(values, places)
    return [one.result() for one in found]


def _most_active(features: Tensor) -> tuple[Tensor, Tensor]:
    """The largest activation of each channel, and its place. (B, D, h, w) or (B, D) -> (B, D), (B, D), on the CPU."""
    units = features.float().flatten(2) if features.dim() == 4 else features.float()[:, :, None]
    best = units.max(2)
    return best.values.cpu(), best.indices.cpu()


class _Largest:
    """The k largest values of each channel, of images that come batch by batch."""

    def __init__(self, k: int) -> None:
        self.k, self.count = k, 0
        self.held: tuple[Tensor, ...] = ()  # values, images and places, each (D, k) at most
        self.sums = torch.zeros(2, 1, dtype=torch.float64)  # of values and of their squares, (2, D)

    def add(self, values: Tensor, places: Tensor) -> None:
        """A batch of images, each by its most active unit of each channel. (B, D), (B, D)."""
        images = torch.arange(self.count, self.count + len(values)).expand(values.shape[1], -1)  # (D, B)
        fresh = (values.t(), images, places.t())
        known = fresh if not self.held else tuple(torch.cat(pair, 1) for pair in zip(self.held, fresh, strict=True))
        order = known[0].sort(stable=True, dim=1, descending=True).indices[:, : self.k]
        self.held = tuple(one.gather(1, order) for one in known)
        self.sums = self.sums + torch.stack([values.double(), values.double().square()]).sum(1)
        self.count += len(values)

    def result(self) -> TopActivations:
        """All of it, as arrays."""
        assert self.count, "no images"
        mean, squares = self.sums / self.count
        deviation = (squares - mean.square()).clamp_min(0).sqrt()
        values, images, places = (one.numpy() for one in self.held)
        return TopActivations(values, images, places, mean.numpy(), deviation.numpy())
