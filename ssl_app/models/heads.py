"""Heads: from features to logits, one linear layer or the three fully connected ones of the articles."""

import math

from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import SettingsError, nearest

MOST_FEATURES = 4096  # numbers an image is described by, at most
KINDS = ("linear", "mlp")


def pooled_side(channels: int, *sides: int) -> int:
    """Side g of the finest g x g grid with channels * g * g <= 4,096 that is no finer than the map itself."""
    return max(1, min(*sides, math.isqrt(MOST_FEATURES // channels)))


class Head(nn.Module):
    """Pools a feature map to at most 4,096 numbers and classifies them.

    `features` is d, the width after pooling; `last` the layer that gives the logits, which a convex
    logistic fit may fill in.
    """

    def __init__(self, shape: tuple[int, ...], layers: nn.Sequential, features: int) -> None:
        super().__init__()
        self.shape = shape
        self.features = features
        self.layers = layers

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the logits."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def pool(self, features: Tensor) -> Tensor:
        """A map averaged to a grid and flattened; vectors pass. (B, D, h, w) or (B, d) -> (B, d)."""
        if features.dim() == 2:
            return features
        side = pooled_side(self.shape[0], *self.shape[1:])
        return functional.adaptive_avg_pool2d(features, side).flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits. (B, D, h, w) or (B, d) -> (B, K)."""
        logits: Tensor = self.layers(self.pool(features))
        return logits


def build_head(kind: str, shape: tuple[int, ...], classes: int) -> Head:
    """A head for features of this shape, (D,) or (D, h, w).

    `linear` is one layer. `mlp` is the three fully connected layers that the transfer article puts on conv4,
    with batch norm and dropout 0.5; 512 wide, wider where there are more than 1,024 features.
    Raises SettingsError for another kind.
    """
    if kind not in KINDS:
        raise SettingsError(f"no head is named '{kind}'{nearest(kind, KINDS)}")
    features = shape[0]
    if len(shape) == 3:
        features = shape[0] * pooled_side(*shape) ** 2
    if kind == "linear":
        layers = nn.Sequential(nn.Linear(features, classes))
    else:
        width = min(2048, max(512, features // 2))
        layers = nn.Sequential(*_hidden(features, width), *_hidden(width, width), nn.Linear(width, classes))
    for module in layers.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    head = Head(shape, layers, features)
    # small, not zero: the loss starts at log K, and the first step already reaches the backbone
    nn.init.normal_(head.last.weight, std=0.01)
    return head


def _hidden(features: int, width: int) -> list[nn.Module]:
    linear = nn.Linear(features, width, bias=False)
    return [linear, nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Dropout(0.5)]
