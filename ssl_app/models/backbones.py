"""Backbones by name: ours, torchvision's without classifier, or `module:factory`; random, no download."""

import difflib
import inspect
import math
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import SettingsError, nearest
from ssl_app.models.heads import pooled_side
from ssl_app.models.nin import NIN
from ssl_app.models.small_resnet import SmallResNet
from ssl_app.registry import find_object

CORE = ("alexnet", "nin", "resnet18", "resnet34", "resnet50", "small-resnet", "vgg16_bn")
CLASSIFIERS = ("fc", "classifier")  # the attribute that ends a torchvision network
TRUNKS = ("features", "layers", "trunk_output")  # where torchvision's networks keep their blocks
ONE_SIZE = ("vit_", "swin_", "maxvit")  # transformers: one image size, or maps that are not (D, h, w)
LARGEST_TRIED = 1024  # pixels, when looking for the smallest image that a network takes


SOBEL = "+sobel"  # after a backbone's name


class Sobel(nn.Module):
    """Gradients of the mean channel, as DeepCluster filters its images. (B, C, S, S) -> (B, 2, S, S)."""

    def __init__(self) -> None:
        super().__init__()
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("kernels", torch.stack([across, across.t()])[:, None], persistent=False)  # (2, 1, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Reflected at the border, where zeros would draw a frame."""
        gray = functional.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
        assert isinstance(self.kernels, Tensor)
        return functional.conv2d(gray, self.kernels)


class _Reached(Exception):
    def __init__(self, features: Tensor) -> None:
        self.features = features


class Backbone(nn.Module):
    """A network without its classifier, that can stop at any of its layers.

    `body` keeps its own parameter names: without the prefix `body.`, the state of a torchvision
    backbone loads into plain torchvision. `layers` are the named cuts in order; any other dotted
    module name of the body is a cut too. Without one, the output is pooled.
    """

    def __init__(
        self, name: str, channels: int, image_size: int, body: nn.Module, cuts: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.image_size = image_size
        self.front: nn.Module = Sobel() if name.endswith(SOBEL) else nn.Identity()
        self.body = body
        self._cuts = cuts or {}  # public name -> dotted name of a module of the body
        self._smallest: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Named cuts, from the images upwards."""
        return tuple(self._cuts)

    def forward(self, images: Tensor, layer: str | None = None) -> Tensor:
        """Features: (B, C, S, S) -> (B, D) pooled, (B, D, h, w) at a convolution.

        What lies above the layer is not computed. Raises SettingsError for a layer that is not there.
        """
        if layer is None:
            features: Tensor = self.body(self.front(images))
            if features.dim() == 4:
                features = functional.adaptive_avg_pool2d(features, 1)
            return features.flatten(1)
        # Leaving by an exception keeps an in-place ReLU above the cut from ever touching what is returned.
        handle = self._module(layer).register_forward_hook(_leave)
        try:
            self.body(self.front(images))
        except _Reached as reached:
            return reached.features
        finally:
            handle.remove()
        raise SettingsError(f"{self.name} never calls its layer '{layer}'; named: {', '.join(self.layers)}")

    def shape(self, layer: str | None = None) -> tuple[int, ...]:
        """Shape of one image's features, (D,) or (D, h, w).

        Found by a dry run that leaves modes, batch-norm statistics and random state as they were.
        """
        shape = tuple(self._dry_run(self.image_size, layer).shape[1:])
        if len(shape) not in (1, 3):
            raise SettingsError(
                f"layer '{layer or self.layer}' of {self.name} gives {shape} an image,"
                f" expected (D,) or (D, h, w); named: {', '.join(self.layers)}"
            )
        return shape

    def map_layer(self) -> str:
        """The deepest named layer that gives a map, for heads that draw. Raises SettingsError where none does."""
        for layer in reversed(self.layers):
            if len(self._dry_run(self.image_size, layer).shape) == 4:
                return layer
        raise SettingsError(f"{self.name} has no named layer that gives a map; take another --backbone")

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest image that the body can compute; found by dry runs when asked."""
        if self._smallest is None:
            high = self.image_size
            while not self._takes(high):
                if high >= LARGEST_TRIED:
                    self._dry_run(self.image_size)  # it is not the size: let it say what it is
                high *= 2
            low = 0  # a side that fails; from here on low fails and high works
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self._takes(middle) else (middle, high)
            self._smallest = high
        return self._smallest

    def _module(self, layer: str) -> nn.Module:
        dotted = self._cuts.get(layer, layer)
        try:
            return self.body.get_submodule(dotted)
        except AttributeError:
            public = self.layers or tuple(name for name, _ in self.body.named_children())
            raise SettingsError(f"{self.name} has no layer '{layer}'{nearest(layer, public)}") from None

    def _takes(self, side: int) -> bool:
        try:
            return math.prod(self._dry_run(side).shape) > 0
        except (RuntimeError, ValueError):  # what torch raises where a map shrinks to nothing
            return False

    def _dry_run(self, side: int, layer: str | None = None) -> Tensor:
        modes = [(module, module.training) for module in self.modules()]
        like = next(self.parameters(), torch.empty(0))
        on_gpu = [like.device] if like.device.type == "cuda" else []
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(on_gpu):
                images = torch.zeros(1, self.channels, side, side, device=like.device, dtype=like.dtype)
                features: Tensor = self(images, layer)
                return features
        finally:
            for module, training in modes:
                module.training = training


def _leave(module: nn.Module, inputs: object, output: Tensor) -> None:
    raise _Reached(output)


def largest_default(name: str) -> int:
    """The largest side, in pixels, that a backbone is trained at where the user names none."""
    return 64 if name.partition("+")[0] in ("small-resnet", "nin") else 224


def known() -> list[str]:
    """Names that `build` takes beside `module:factory`: ours, and torchvision's convolutional classifiers."""
    theirs = torchvision.models.list_models(module=torchvision.models)
    return sorted(["nin", "small-resnet", *(name for name in theirs if not name.startswith(ONE_SIZE))])


def build(name: str, channels: int, image_size: int) -> Backbone:
    """A backbone with random weights, from torch's global generator, for images (C, S, S).

    `module:factory` names a function or class of the user's own that returns an nn.Module;
    it is given the channels where it asks for them (`channels`, `in_channels`, `in_chans`, or a
    required first argument). Where the network ends in `fc` or `classifier`, that is taken off, and
    the first convolution is rebuilt where it expects another number of channels. `alexnet+sobel`, and any other
    name alike, is the network on gradients instead of channels.
    Raises SettingsError for an unknown name and for images that are too small for the network.
    """
    name, plus, filtered = name.partition("+")
    if plus and plus + filtered != SOBEL:
        raise SettingsError(f"--backbone {name}+{filtered} names no filter that is known; expected {name}{SOBEL}")
    seen = 2 if filtered else channels  # channels that the body is given
    if ":" in name:
        body = _rebuilt(_without_classifier(_own(name, seen)), seen)
    elif (name := _spelled(name)) == "small-resnet":
        body = SmallResNet(seen, image_size)
    elif name == "nin":
        body = NIN(seen)
    else:
        body = _rebuilt(_without_classifier(_torchvision(name)), seen)
    backbone = Backbone(name + plus + filtered, channels, image_size, body, _cuts_of(name, body))
    if not backbone._takes(image_size):
        smallest = backbone.smallest_image
        typed = 32 * math.ceil(smallest / 32)
        raise SettingsError(
            f"{name} needs images of at least {smallest} px, --image-size is {image_size};"
            f" type --image-size {typed}, or --backbone small-resnet"
        )
    if hasattr(body, "avgpool") and name.startswith(("alexnet", "vgg")):
        _pool_within(backbone)
    return backbone


def _spelled(name: str) -> str:
    names = known()
    for spelling in (name, name.lower(), name.lower().replace("_", "-"), name.lower().replace("-", "_")):
        if spelling in names:
            return spelling
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    rest = "" if near else ", another of torchvision's, or module:factory"
    raise SettingsError(f"no backbone is named '{name}'{nearest(name, names if near else CORE)}{rest}")


def _torchvision(name: str) -> nn.Module:
    if name in ("googlenet", "inception_v3"):  # without the side classifiers, which are heads too
        network = torchvision.models.get_model(name, weights=None, aux_logits=False, init_weights=True)
    else:
        network = torchvision.models.get_model(name, weights=None)
    assert isinstance(network, nn.Module)
    return network


def _own(name: str, channels: int) -> nn.Module:
    factory: Callable[..., object] = find_object(name)
    if not callable(factory):
        raise SettingsError(f"'{name}' is {type(factory).__name__}, expected a function that returns an nn.Module")
    parameters = list(inspect.signature(factory).parameters.values())
    asked = [p.name for p in parameters if p.name in ("channels", "in_channels", "in_chans")]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if asked:
        network = factory(**{asked[0]: channels})
    elif parameters and parameters[0].kind in positional and parameters[0].default is inspect.Parameter.empty:
        network = factory(channels)
    else:
        network = factory()
    if not isinstance(network, nn.Module):
        raise SettingsError(f"'{name}' returned {type(network).__name__}, expected an nn.Module")
    return network


def _without_classifier(network: nn.Module) -> nn.Module:
    for attribute in CLASSIFIERS:
        if isinstance(getattr(network, attribute, None), nn.Module):
            convolutional = any(isinstance(m, nn.Conv2d) for m in getattr(network, attribute).modules())
            setattr(network, attribute, nn.AdaptiveAvgPool2d(1) if convolutional else nn.Identity())
    return network


def _rebuilt(network: nn.Module, channels: int) -> nn.Module:
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


def _pool_within(backbone: Backbone) -> None:
    """Pool AlexNet and VGG to a grid that the map has, within 4,096 numbers.

    Theirs is 6x6 or 7x7: at 64 px it repeats one cell 36 times, at 224 px it makes 9,216 or 25,088 numbers
    for the fully connected layers, which are part of the head here.
    """
    channels, *sides = backbone.shape("features")
    side = pooled_side(channels, *sides)
    backbone.body.avgpool = nn.AdaptiveAvgPool2d(side)  # no parameters: the names of the body stay


def _cuts_of(name: str, body: nn.Module) -> dict[str, str]:
    """Public layer names, each with the module of the body whose output it is: after ReLU, before a pool."""
    if isinstance(body, SmallResNet | NIN):
        return {child: child for child, _ in body.named_children()}
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        return {"stem": "maxpool"} | {f"layer{n}": f"layer{n}" for n in (1, 2, 3, 4)}
    children = dict(body.named_children())
    features = children.get("features")
    if name == "alexnet" or name.startswith("vgg"):
        assert isinstance(features, nn.Sequential)
        word, ends = ("conv", nn.ReLU) if name == "alexnet" else ("block", nn.MaxPool2d)
        at = [index for index, module in enumerate(features) if isinstance(module, ends)]
        return {f"{word}{n}": f"features.{i if word == 'conv' else i - 1}" for n, i in enumerate(at, start=1)}
    parts: list[str] = []
    for part, module in children.items():
        trunk = part in TRUNKS and isinstance(module, nn.Sequential)
        parts += [f"{part}.{inner}" for inner, _ in module.named_children()] if trunk else [part]
    return {part: part for part in parts if any(True for _ in body.get_submodule(part).parameters())}
