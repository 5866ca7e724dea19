"""Weights for the networks of other tools: the name of their last layer, and a first layer for color images."""

import re
from collections.abc import Mapping

from torch import Tensor

from ssl_app.errors import RunError, Unset
from ssl_app.models.backbones import SOBEL
from ssl_app.models.weights import adapt_first_conv

COLOR = 3  # channels that torchvision's networks take
# torchvision's networks that end in pooling and one linear layer, which is what a linear head here is. Others end in
# more: AlexNet, VGG and MobileNetV3 in several linear layers, ConvNeXt in a norm before, SqueezeNet in a convolution
LAST = {
    "fc": ("resnet", "resnext", "wide_resnet", "regnet", "shufflenet", "googlenet", "inception"),
    "classifier": ("densenet",),
    "classifier.1": ("efficientnet", "mobilenet_v2", "mnasnet"),
}
SEVERAL = re.compile(r"backbones\.\d+\.")
SIDE_CLASSIFIERS = ("googlenet", "inception")  # which are heads too, and not trained here


def last_layer(backbone: str) -> str | None:
    """Name of the linear layer that ends torchvision's network; None where it ends in more, or is another's."""
    if backbone.endswith(SOBEL):
        return None
    return next((last for last, families in LAST.items() if backbone.startswith(families)), None)


def constructor(backbone: str, classes: int) -> str:
    """The call that makes torchvision's network, for a `backbone` with a last layer there."""
    aside = ", aux_logits=False" if backbone.startswith(SIDE_CLASSIFIERS) else ""
    return f"torchvision.models.{backbone}(num_classes={classes}{aside})"


def widened(state: Mapping[str, Tensor], before: int, channels: int) -> dict[str, Tensor]:
    """Networks on one channel, for that channel repeated: the same outputs.

    The first convolution of each, (O, 1, k, k), becomes (O, channels, k, k), every filter divided by their number.
    The state is that of one network, or of several by `backbones.0.` and so on. Raises RunError for other networks.
    """
    firsts: dict[str, str] = {}  # by network
    for name, tensor in state.items():
        if tensor.dim() == 4:
            several = SEVERAL.match(name)
            firsts.setdefault(several[0] if several else "", name)
    seen = {state[name].shape[1] for name in firsts.values()}
    if before != 1 or seen != {1}:
        found = f"on {before} channels" if before != 1 else "on gradients"
        raise RunError(f"the network is one {found}, and only one gray channel is repeated", fix=Unset("channels"))
    return dict(state) | {name: adapt_first_conv(state[name], channels).contiguous() for name in firsts.values()}
