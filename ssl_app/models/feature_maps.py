"""Feature maps: the map whose mean over all places is what a layer of a backbone gives a head.

Without the global pooling, a classifier of that mean is one of each place (fully convolutional networks: Long et al.,
2015, arXiv:1411.4038, section 3.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import Change, SettingsError
from ssl_app.models.backbones.base import JOINED, Backbone, as_map

TOLERANCE = 1e-3  # of the largest feature: what may lie between a mean of ours and the network's own


class FeatureMap(nn.Module):
    """Features of each place of an image: (B, C, S, S) -> (B, D, h, w); their mean is the backbone's features.

    Tokens are places. Where several layers follow one another, the finer ones are averaged to the places of the
    coarsest.
    """

    def __init__(self, backbone: Backbone, layer: str | None) -> None:
        """Raises SettingsError where the features are no mean over the places of a map."""
        super().__init__()
        self.backbone = backbone
        self.names = [pooled_module(backbone)] if layer is None else layer.split(JOINED)

    def forward(self, images: Tensor) -> Tensor:
        """Without gradients of its own; in eval mode, of images of any size that the backbone takes."""
        maps = [self.backbone(images, name) for name in self.names]
        return torch.cat([functional.adaptive_avg_pool2d(one, coarsest(maps)) for one in maps], 1)


def coarsest(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width of the map with the fewest places."""
    least = min(maps, key=lambda one: one.shape[-2] * one.shape[-1])
    return least.shape[-2], least.shape[-1]


def pooled_module(backbone: Backbone) -> str:
    """The module of the body whose output, averaged over its places, is the backbone's pooled features.

    Of several the one with the most places. Found by a dry run on noise. Raises SettingsError where none is.
    """
    like = next(backbone.parameters())
    side, generator = backbone.image_size, torch.Generator().manual_seed(0)
    images = torch.randn(2, backbone.channels, side, side, generator=generator).to(like.device, like.dtype)
    means: dict[str, tuple[int, Tensor]] = {}  # by module: places, and the mean over them

    def watch(name: str) -> None:
        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() in (3, 4):
                found = as_map(output)
                # at once: what comes after may write into it
                means[name] = (found.shape[-2] * found.shape[-1], found.mean((2, 3)))

        handles.append(backbone.body.get_submodule(name).register_forward_hook(keep))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    modes = [(module, module.training) for module in backbone.modules()]
    for name, _ in backbone.body.named_modules():
        watch(name)
    backbone.eval()
    try:
        with torch.no_grad():
            pooled = backbone(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    near = TOLERANCE * max(1e-6, float(pooled.abs().max()))
    fitting = [
        (places, name)
        for name, (places, mean) in means.items()
        if mean.shape == pooled.shape and float((mean - pooled).abs().max()) <= near
    ]
    if not fitting:
        raise SettingsError(
            f"the features of {backbone.name} are no mean over the places of a map, so that it gives no class maps",
            fix=Change("backbone"),
        )
    most = max(places for places, _ in fitting)
    return next(name for places, name in fitting if places == most)
