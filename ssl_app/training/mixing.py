"""CutMix: a part of each image is replaced by the same part of another (Yun et al., 2019, arXiv:1905.04899)."""

import torch
from torch import Tensor


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixed images (B, C, S, S) and targets (B, K), each target weighed by the area that is seen of its image.

    The area of the box is uniform (Beta(1, 1)), its center anywhere, so that the border may cut it: weights are those
    of the area that is left. Targets are of the images as they are given: of crops, pooled before.
    """
    count, side = len(images), images.shape[-1]
    area, *center = torch.rand(3, generator=generator).tolist()
    reach = area**0.5 / 2
    (top, bottom), (left, right) = ((_pixel(one - reach, side), _pixel(one + reach, side)) for one in center)
    partner = torch.randperm(count, generator=generator).to(images.device)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / side**2
    return mixed, (1 - share) * targets + share * targets[partner]


def _pixel(at: float, side: int) -> int:
    """A share of the side, in whole pixels within the image."""
    return min(max(round(at * side), 0), side)
