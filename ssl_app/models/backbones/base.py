"""Backbone: a network without a classifier whose layers have names. Network: what a file of this package holds.

A backbone is one file here, and a class spelled like it (`tiny_conv.py`, `TinyConv`; its name is `tiny-conv`):

    class TinyConv(Network):
        layers = ("conv1", "conv2")
        map_layer = "conv2"

        def __init__(self, channels: int, image_size: int) -> None:
            super().__init__(channels, image_size)
            self.conv1 = nn.Sequential(nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ReLU())
            self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU())

        def forward(self, images: Tensor) -> Tensor:
            return self.conv2(self.conv1(images)).mean(dim=(2, 3))

`tests/contract/test_backbones.py` tests it from the moment it exists.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import Change, Fix, Set, SettingsError, nearest
from ssl_app.models.convolutions import with_fast_gradients

T = TypeVar("T")
LARGEST_TRIED = 1024  # pixels, when looking for the smallest image that a network takes
FEWEST_PLACES = 2  # along a side of a last map that still says where something is
SOBEL = "+sobel"  # after a backbone's name
JOINED = "+"  # between the names of layers whose pooled features follow one another


@dataclass(frozen=True)
class PreferredOptimizer:
    """What a network trains well with from random weights, where neither the user nor the method says."""

    name: Literal["sgd", "adamw"]
    lr: float  # highest learning rate, for batches of 128 images
    weight_decay: float


class Network(nn.Module):
    """A network of this package, or one of the user's own that names its layers.

    The class attributes say what users of `Backbone` may ask: the modules whose outputs are layers, from the images
    upwards; the layer that gives the last map; the side in pixels of the smallest image; the preferred optimizer.
    """

    layers: ClassVar[tuple[str, ...]] = ()
    map_layer: ClassVar[str | None] = None
    smallest_image: ClassVar[int | None] = None  # found by dry runs
    optimizer: ClassVar[PreferredOptimizer] = PreferredOptimizer("sgd", lr=0.1, weight_decay=5e-4)

    def __init__(self, channels: int, image_size: int) -> None:
        """For images (C, S, S). Raises SettingsError for a side that the network cannot be built for."""
        super().__init__()

    @classmethod
    def variant(cls, image_size: int) -> str:
        """What depends on the image size, in words, or "": weights fit where two sizes have the same."""
        return ""

    @classmethod
    def nearest_size(cls, image_size: int) -> int:
        """The side nearest to this one, in pixels, that the network can be built for."""
        return image_size


class TokenNetwork(Network, ABC):
    """A network on tokens, one for each patch of an image. Layers give (B, T, D), which `Backbone` turns into maps.

    `patch` is the side of a patch in pixels, `grid` the number of patches along a side at the network's image size:
    T = grid * grid, in rows from the top left.
    """

    patch: int
    grid: int

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Tokens that know their place. (B, C, S, S) -> (B, T, D)."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Features of any subset of an image's tokens, in any order. (B, T', D) -> (B, T', D)."""

    def forward(self, images: Tensor) -> Tensor:
        """The mean over tokens. (B, C, S, S) -> (B, D)."""
        return self.encode(self.embed(images)).mean(dim=1)


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
    backbone loads into plain torchvision. `layers` maps public names to dotted names of modules of the body, in
    order; without it, a Network's own. Any other dotted module name of the body is a layer too.
    Tokens are maps to users of a backbone: a layer that gives (B, T, D) is read as (B, D, h, w) with h = w.
    """

    def __init__(
        self, name: str, channels: int, image_size: int, body: nn.Module, layers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.image_size = image_size
        self.front: nn.Module = Sobel() if name.endswith(SOBEL) else nn.Identity()
        self.body = body
        with_fast_gradients(body)
        self.optimizer = body.optimizer if isinstance(body, Network) else Network.optimizer
        own = {layer: layer for layer in body.layers} if isinstance(body, Network) else {}
        self._layers = own if layers is None else dict(layers)
        self._smallest = body.smallest_image if isinstance(body, Network) else None
        self._shapes: dict[tuple[int, str | None], torch.Size] = {}  # what dry runs have found

    @property
    def layers(self) -> tuple[str, ...]:
        """Named layers, from the images upwards."""
        return tuple(self._layers)

    def forward(self, images: Tensor, layer: str | None = None) -> Tensor:
        """Features: (B, C, S, S) -> (B, D) pooled, (B, D, h, w) at a convolution or at tokens.

        Layers joined by a plus are pooled and follow one another, (B, D1 + D2). What lies above the layer is not
        computed. Raises SettingsError for a layer that is not there.
        """
        if layer is None:
            return _average(as_map(self.body(self.front(images)))).flatten(1)
        if JOINED in layer:
            return self.reduced(images, {layer: lambda features: features})[layer]
        # Leaving by an exception keeps an in-place ReLU above the layer from ever touching what is returned.
        handle = self._module(layer).register_forward_hook(_leave)
        try:
            self.body(self.front(images))
        except _Reached as reached:
            return as_map(reached.features)
        finally:
            handle.remove()
        raise SettingsError(f"{self.name} never calls its layer '{layer}'; named: {', '.join(self.layers)}")

    def reduced(
        self, images: Tensor, reductions: Mapping[str | None, Callable[[Tensor], Tensor]]
    ) -> dict[str | None, Tensor]:
        """What a function makes of each layer's features, all in one pass. (B, C, S, S) -> {layer: (B, ...)}.

        Layers are those of `forward`, None the pooled last. Each function is called before a layer above may write
        into its features. Raises SettingsError for a layer that is not there.
        """
        found: dict[tuple[str, str], Tensor] = {}
        wanted = {
            (part, layer): fn if part == layer else _average
            for layer, fn in reductions.items()
            if layer is not None
            for part in layer.split(JOINED)
        }

        def keep(part: str, layer: str) -> Callable[[nn.Module, object, Tensor], None]:
            def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
                if (part, layer) not in found:  # a module that is called twice gives its first output
                    found[part, layer] = wanted[part, layer](as_map(output)).clone()
                if None not in reductions and len(found) == len(wanted):
                    raise _Reached(output)

            return hook

        handles = [self._module(part).register_forward_hook(keep(part, layer)) for part, layer in wanted]
        last = None
        try:
            with suppress(_Reached):
                last = self(images)
        finally:
            for handle in handles:
                handle.remove()
        missing = [part for part, layer in wanted if (part, layer) not in found]
        if missing:
            raise SettingsError(f"{self.name} never calls its layer '{missing[0]}'; named: {', '.join(self.layers)}")
        results: dict[str | None, Tensor] = {}
        for layer, fn in reductions.items():
            if layer is None:
                assert last is not None
                results[None] = fn(last)
            elif JOINED in layer:
                results[layer] = fn(torch.cat([found[part, layer] for part in layer.split(JOINED)], dim=1))
            else:
                results[layer] = found[layer, layer]
        return results

    def each_layer(self, images: Tensor, layers: Sequence[str], fn: Callable[[Tensor], T]) -> list[T]:
        """What any function makes of the features of several layers, in their order; else as `reduced`."""
        found: dict[str, T] = {}

        def kept(layer: str) -> Callable[[Tensor], Tensor]:
            def reduction(features: Tensor) -> Tensor:
                found[layer] = fn(features)
                return features.new_zeros(0)

            return reduction

        self.reduced(images, {layer: kept(layer) for layer in layers})
        return [found[layer] for layer in layers]

    def tokens(self) -> TokenNetwork:
        """The network on tokens that this is. Raises SettingsError where it is none."""
        if not isinstance(self.body, TokenNetwork):
            raise SettingsError(
                f"{self.name} has no tokens", expected="a vision transformer", fix=Set("backbone", "vit-tiny")
            )
        return self.body

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of a network on tokens. (B, C, S, S) -> (B, T, D). Raises SettingsError where it is none."""
        return self.tokens().embed(self.front(images))

    def encode(self, tokens: Tensor) -> Tensor:
        """Features of any subset of an image's tokens. (B, T', D) -> (B, T', D). Raises SettingsError as `tokens`."""
        return self.tokens().encode(tokens)

    def shape(self, layer: str | None = None) -> tuple[int, ...]:
        """Shape of one image's features, (D,) or (D, h, w).

        Found by a dry run, once.
        """
        shape = tuple(self._dry_run(self.image_size, layer)[1:])
        if len(shape) not in (1, 3):
            raise SettingsError(
                f"layer '{layer or 'pooled'}' of {self.name} gives {shape} for an image;"
                f" named: {', '.join(self.layers)}",
                expected="(D,) or (D, h, w)",
            )
        return shape

    def map_layer(self) -> str:
        """The deepest named layer that gives a map, for heads that draw. Raises SettingsError where none does."""
        if isinstance(self.body, Network) and self.body.map_layer is not None:
            return self.body.map_layer
        for layer in reversed(self.layers):
            if len(self._dry_run(self.image_size, layer)) == 4:
                return layer
        raise SettingsError(f"{self.name} has no named layer that gives a map", fix=Change("backbone"))

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest image: a Network's own word, else found by dry runs when asked."""
        if self._smallest is None:
            high = self.image_size
            while not self._takes(high):
                if high >= LARGEST_TRIED:
                    raise self._broken()  # it is not the size
                high *= 2
            low = 0  # a side that fails; from here on low fails and high works
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self._takes(middle) else (middle, high)
            self._smallest = high
        return self._smallest

    def accepts(self, side: int) -> bool:
        """Whether images of another side give features of the same shape, from a last map of 2x2 or more.

        Never of a network on tokens: their positions are those of its own grid.
        """
        if isinstance(self.body, TokenNetwork) or (self._smallest is not None and side < self._smallest):
            return False
        try:
            seen = self._dry_run(side, self.map_layer())[-1] >= FEWEST_PLACES
            return seen and tuple(self._dry_run(side)[1:]) == self.shape()
        except (RuntimeError, ValueError, SettingsError):  # maps that shrink to nothing, or no map
            return False

    def refuse_small_images(self) -> None:
        """Raise SettingsError where the body cannot compute images of the side that it was built for."""
        if not self._takes(self.image_size):
            if self._smallest is not None and self.image_size >= self._smallest:
                raise self._broken()
            raise too_small(self.name, self.image_size, self.smallest_image)

    def _broken(self) -> SettingsError:
        """What is wrong with a body that computes no images of any size, in torch's words."""
        shape = (1, self.channels, self.image_size, self.image_size)
        try:
            found = f"gives {tuple(self._dry_run(self.image_size))}"
        except (RuntimeError, ValueError) as error:
            found = f"raises {type(error).__name__}: {' '.join(str(error).split())}"
        return SettingsError(f"{self.name} {found}, given images {shape}", fix=Fix("fix it"))

    def _module(self, layer: str) -> nn.Module:
        dotted = self._layers.get(layer, layer)
        try:
            return self.body.get_submodule(dotted)
        except AttributeError:
            public = self.layers or tuple(name for name, _ in self.body.named_children())
            raise SettingsError(f"{self.name} has no layer '{layer}'{nearest(layer, public)}") from None

    def _takes(self, side: int) -> bool:
        try:
            return math.prod(self._dry_run(side)) > 0
        except (RuntimeError, ValueError):  # what torch raises where a map shrinks to nothing
            return False

    def _dry_run(self, side: int, layer: str | None = None) -> torch.Size:
        """Shape of the features of one image, with the batch; a network is run once for each side and layer."""
        if (side, layer) not in self._shapes:
            self._shapes[side, layer] = self.dry_run(side, layer).shape
        return self._shapes[side, layer]

    def dry_run(self, side: int | None = None, layer: str | None = None) -> Tensor:
        """Features of one black image, by default of the side that it was built for, for who looks at the modules.

        Modes, batch-norm statistics and random state stay as they were.
        """
        side = side or self.image_size
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


def as_map(features: Tensor) -> Tensor:
    """Tokens as the map of their patches, in rows; all else as it is. (B, T, D) -> (B, D, h, h).

    h * h is the largest square within T. Tokens before these (class, registers) are left out.
    """
    if features.dim() != 3:
        return features
    side = math.isqrt(features.shape[1])
    return features[:, -(side**2) :].transpose(1, 2).reshape(len(features), -1, side, side)


def _average(features: Tensor) -> Tensor:
    """The mean over places; vectors pass. (B, D, h, w) or (B, D) -> (B, D)."""
    return functional.adaptive_avg_pool2d(features, 1).flatten(1) if features.dim() == 4 else features


def too_small(name: str, image_size: int, smallest: int) -> SettingsError:
    """The error for an image size below the smallest one of a network."""
    fixes = (Set("image_size", max(32 * math.ceil(smallest / 32), smallest)), Set("backbone", "small-resnet"))
    return SettingsError(
        f"an image size of {image_size} px is too small for {name}", expected=f"at least {smallest} px", fix=fixes
    )


def _leave(module: nn.Module, inputs: object, output: Tensor) -> None:
    raise _Reached(output)
