"""Class activation maps: which places of a map speak for a class, without a gradient (Zhou et al., 2016, 1512.04150).

A linear head on pooled maps is a sum over places: what a place adds to a class's logit is its evidence.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import Change, Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.models.backbones.adapted import TRUNKS
from ssl_app.models.backbones.base import JOINED
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble

TOLERANCE = 1e-3  # of the features, in their largest


@torch.no_grad()
def class_maps(classifier: Classifier, images: Tensor) -> Tensor:
    """Evidence of each place for each class: with the head's bias it adds up to the logits. -> (B, K, h, w).

    For (B, C, S, S), in eval mode; in f32. Raises SettingsError where the head is not linear on pooled maps.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _class_maps(classifier, images.float())


def _class_maps(classifier: Classifier, images: Tensor) -> Tensor:
    head = classifier.head
    if len(head.layers) != 1:
        raise SettingsError("class maps need a linear head, the head is an mlp", fix=Set("head", "linear"))
    maps = _maps(classifier.backbone, classifier.layer, images)
    weight = head.last.weight  # (K, d)
    grids = _grids(classifier, maps)
    found, column = [], 0
    for features, grid in zip(maps, grids, strict=True):
        width = features.shape[1] * grid**2
        part = weight[:, column : column + width].view(len(weight), features.shape[1], grid, grid)
        found.append(_evidence(features, part))
        column += width
    sides = [max(one.shape[axis] for one in found) for axis in (2, 3)]
    return torch.stack([spread(one, sides[0], sides[1]) for one in found]).sum(0)


def mean_class_maps(ensemble: Ensemble, images: Tensor) -> Tensor:
    """The weighted mean of the members' maps; of one member, its own. -> (B, K, h, w). Raises as `class_maps`."""
    each = [class_maps(member, images) for member in ensemble.classifiers]
    sides = [max(one.shape[axis] for one in each) for axis in (2, 3)]
    shares = zip(ensemble.weights, each, strict=True)
    return torch.stack([weight * spread(one, sides[0], sides[1]) for weight, one in shares]).sum(0)


def spread(evidence: Tensor, height: int, width: int) -> Tensor:
    """The same evidence on a finer map: each place's is shared out over its part. (B, K, h, w) -> (B, K, H, W)."""
    if evidence.shape[2:] == (height, width):
        return evidence
    share = _pooling(height, width, evidence.shape[2], evidence.shape[3]).to(evidence)  # (HW, hw)
    return (evidence.flatten(2) @ share.t()).view(*evidence.shape[:2], height, width)


def _maps(backbone: Backbone, layer: str | None, images: Tensor) -> list[Tensor]:
    """The maps that a head on this layer is given pooled, (B, D, h, w) each."""
    if layer is None:
        return [_pooled_map(backbone, images)]
    names = layer.split(JOINED)
    maps = [backbone(images, name) for name in names]
    flat = [name for name, features in zip(names, maps, strict=True) if features.dim() != 4]
    if flat:
        raise SettingsError(f"layer '{flat[0]}' of {backbone.name} gives no map", fix=Change("layer"))
    return maps


def _pooled_map(backbone: Backbone, images: Tensor) -> Tensor:
    """The map whose pooling is the backbone's features: its last layer's or, of AlexNet and VGG, the trunk's."""
    features = backbone(images)
    last = backbone.map_layer()
    for name in (last, *(trunk for trunk in TRUNKS if isinstance(getattr(backbone.body, trunk, None), nn.Module))):
        found: Tensor = backbone(images, name)
        grid = math.isqrt(features.shape[1] // found.shape[1]) if found.dim() == 4 else 0
        if grid:
            same = functional.adaptive_avg_pool2d(found, grid).flatten(1)
            if same.shape == features.shape and (same - features).abs().max() <= TOLERANCE * features.abs().max():
                return found
    raise SettingsError(
        f"the features of {backbone.name} are not the mean of its layer '{last}', on which a map could be drawn",
        fix=Set("layer", last),
    )


def _grids(classifier: Classifier, maps: list[Tensor]) -> list[int]:
    """Side of the grid that each map is pooled to."""
    if len(maps) > 1:  # joined layers are pooled to one place each
        return [1] * len(maps)
    return [math.isqrt(classifier.head.features // maps[0].shape[1])]


def _evidence(features: Tensor, weight: Tensor) -> Tensor:
    """(B, D, h, w), (K, D, g, g) -> (B, K, h, w)."""
    height, width = features.shape[2:]
    share = _pooling(height, width, *weight.shape[2:]).to(features)  # (hw, gg)
    on_places = torch.einsum("kdg,pg->kdp", weight.flatten(2), share)  # each place by the cells that it is part of
    found = torch.einsum("kdp,bdp->bkp", on_places, features.flatten(2))
    return found.view(len(features), len(weight), height, width)


def _pooling(height: int, width: int, rows: int, columns: int) -> Tensor:
    """What adaptive pooling of a height x width map to rows x columns takes from where; columns sum to 1."""
    places = torch.eye(height * width).view(height * width, 1, height, width)
    return functional.adaptive_avg_pool2d(places, (rows, columns)).flatten(1)
