"""Networks made elsewhere, as backbones: without their classifier, for images of any number of channels."""

import math

import torch
from torch import nn

CLASSIFIERS = ("fc", "classifier")  # the attribute that ends a torchvision network
TRUNKS = ("features", "layers", "trunk_output")  # where torchvision's networks keep their blocks


def adapt(network: nn.Module, channels: int) -> nn.Module:
    """Take off what the network ends in, and rebuild its first convolution for this many channels, in place."""
    for attribute in CLASSIFIERS:
        if isinstance(getattr(network, attribute, None), nn.Module):
            convolutional = any(isinstance(m, nn.Conv2d) for m in getattr(network, attribute).modules())
            setattr(network, attribute, nn.AdaptiveAvgPool2d(1) if convolutional else nn.Identity())
    return _with_first_convolution(network, channels)


def layers_of(body: nn.Module) -> dict[str, str]:
    """The modules of a body that hold parameters, blocks of its trunk one by one: public name -> dotted name."""
    parts: list[str] = []
    for part, module in body.named_children():
        trunk = part in TRUNKS and isinstance(module, nn.Sequential)
        parts += [f"{part}.{inner}" for inner, _ in module.named_children()] if trunk else [part]
    return {part: part for part in parts if any(True for _ in body.get_submodule(part).parameters())}


def _with_first_convolution(network: nn.Module, channels: int) -> nn.Module:
    """The network with a first convolution for this many channels, of the same scale at its output."""
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    if not found or found[0][1].in_channels == channels or found[0][1].groups != 1:
        return network
    name, old = found[0]
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # torch types it as a tuple of any length
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    with torch.no_grad():
        new.weight.normal_(std=float(old.weight.std()) * math.sqrt(old.in_channels / channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)
    return network
