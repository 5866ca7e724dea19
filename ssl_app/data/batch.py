"""What a task is given to learn from: some images, in one or more views."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Batch:
    """Images of one micro-batch, normalized, on one device.

    `index` counts within the loader's own images, 0 to N - 1, and is stable over epochs: label
    memories are addressed by it.
    """

    views: tuple[Tensor, ...]  # each (B, C, S, S), an augmentation of the same images
    index: Tensor  # (B,) int64
    labels: Tensor | None  # (B,) int64
    seed: int  # of this micro-batch: from (seed, epoch, step, micro-batch)
    boxes: Tensor | None = None  # (B, 4) where a loader gives them: x0, y0, x1, y1 of the first view in the image

    @property
    def images(self) -> Tensor:
        """The first view, (B, C, S, S)."""
        return self.views[0]

    @cached_property
    def generator(self) -> torch.Generator:
        """Randomness of this micro-batch, on the CPU; the same again when a run is resumed."""
        return torch.Generator().manual_seed(self.seed & 0x7FFF_FFFF_FFFF_FFFF)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The batch on a device; images in the memory format that the network is in."""
        views = tuple(view.to(device, non_blocking=True, memory_format=memory_format) for view in self.views)
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        boxes = None if self.boxes is None else self.boxes.to(device, non_blocking=True)
        index = self.index.to(device, non_blocking=True)
        return replace(self, views=views, index=index, labels=labels, boxes=boxes)

    def halved(self) -> "Batch":
        """The same images averaged down to half the side, which keeps of a texture what a stride would alias."""
        side = half(self.images.shape[-1])
        return replace(self, views=tuple(functional.adaptive_avg_pool2d(view, side) for view in self.views))


def half(side: int) -> int:
    """Half of a side in pixels, rounded up."""
    return -(-side // 2)
