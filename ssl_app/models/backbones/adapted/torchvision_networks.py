"""Torchvision's convolutional classifiers, without classifier: one file for many names.

Torchvision is imported where a network of it is asked for: with it comes torch's compiler, seconds of a start.
"""

from torch import nn

from ssl_app.models.backbones.adapted import adapt, layers_of
from ssl_app.models.backbones.base import Backbone
from ssl_app.models.heads import pooled_side

CORE = ("alexnet", "resnet18", "resnet34", "resnet50", "vgg16_bn")
ONE_SIZE = ("vit_", "swin_", "maxvit")  # transformers: one image size, or maps that are not (D, h, w)


def names() -> list[str]:
    """The names, as torchvision spells them."""
    import torchvision

    theirs = torchvision.models.list_models(module=torchvision.models)
    return [name for name in theirs if not name.startswith(ONE_SIZE)]


def build(name: str, channels: int, image_size: int) -> tuple[nn.Module, dict[str, str]]:
    """The network with random weights, and its named layers. AlexNet and VGG pool to a grid that their map has."""
    import torchvision

    if name in ("googlenet", "inception_v3"):  # without the side classifiers, which are heads too
        network = torchvision.models.get_model(name, weights=None, aux_logits=False, init_weights=True)
    else:
        network = torchvision.models.get_model(name, weights=None)
    assert isinstance(network, nn.Module)
    body = adapt(network, channels)
    if hasattr(body, "avgpool") and name.startswith(("alexnet", "vgg")):
        _pool_within(body, Backbone(name, channels, image_size, body))
    return body, _layers(name, body)


def _pool_within(body: nn.Module, backbone: Backbone) -> None:
    """Pool AlexNet and VGG to a grid that the map has, within 4,096 numbers.

    Theirs is 6x6 or 7x7: at 64 px it repeats one cell 36 times, at 224 px it makes 9,216 or 25,088 numbers
    for the fully connected layers, which are part of the head here.
    """
    backbone.refuse_small_images()
    channels, *sides = backbone.shape("features")
    body.avgpool = nn.AdaptiveAvgPool2d(pooled_side(channels, *sides))  # no parameters: the body's names stay


def _layers(name: str, body: nn.Module) -> dict[str, str]:
    """Public layer names, each with the module of the body whose output it is: after ReLU, before a pool."""
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        return {"stem": "maxpool"} | {f"layer{n}": f"layer{n}" for n in (1, 2, 3, 4)}
    if name == "alexnet" or name.startswith("vgg"):
        features = body.get_submodule("features")
        assert isinstance(features, nn.Sequential)
        word, ends = ("conv", nn.ReLU) if name == "alexnet" else ("block", nn.MaxPool2d)
        at = [index for index, module in enumerate(features) if isinstance(module, ends)]
        return {f"{word}{n}": f"features.{i if word == 'conv' else i - 1}" for n, i in enumerate(at, start=1)}
    return layers_of(body)
