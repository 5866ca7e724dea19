"""First-layer filters of a backbone, on pixels too where a Sobel filter lies before them (as in DeepCluster)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, Sobel


@dataclass(frozen=True)
class FirstFilters:
    """The weights of the first convolution."""

    weights: Tensor  # (F, C, k, k)
    on_pixels: Tensor | None = None  # (F, 1, k + 2, k + 2) through the Sobel filter; None: the weights are on pixels


def first_filters(backbone: Backbone) -> FirstFilters:
    """Filters of the first convolution, on the CPU. Raises SettingsError for a network that has none."""
    first = next((module for module in backbone.body.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise SettingsError(f"{backbone.name} has no convolution, and so no filters")
    weights = first.weight.detach().float().cpu()
    if not isinstance(backbone.front, Sobel):
        return FirstFilters(weights)
    return FirstFilters(weights, through(weights, backbone.front))


def through(weights: Tensor, front: Sobel) -> Tensor:
    """What filters on both gradients are on gray pixels: one filter after the other is one. (F, 2, k, k) -> ...

    -> (F, 1, k + 2, k + 2).
    """
    assert isinstance(front.kernels, Tensor)
    # two correlations in a row are one with the full convolution of their kernels, which is what the transpose gives
    with torch.no_grad():
        return functional.conv_transpose2d(weights, front.kernels.detach().float().cpu())
