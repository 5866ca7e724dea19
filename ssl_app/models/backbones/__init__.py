"""Backbones by name: a file of this package, torchvision's without classifier, or `module:factory`; no download."""

import difflib
from collections.abc import Iterable

from ssl_app import registry
from ssl_app.errors import Set, SettingsError, nearest
from ssl_app.models.backbones.adapted import factories, torchvision_networks
from ssl_app.models.backbones.base import SOBEL, Backbone, Network, PreferredOptimizer, Sobel, TokenNetwork, too_small

__all__ = [
    "SOBEL",
    "Backbone",
    "Network",
    "PreferredOptimizer",
    "Sobel",
    "TokenNetwork",
    "build",
    "core",
    "default_size",
    "family",
    "known",
    "preferred_optimizer",
    "variant",
]
PACKAGE = "models.backbones"
LARGEST_DEFAULT, LARGEST_DEFAULT_OF_OURS = 224, 64  # pixels; ours are for small images on a CPU


def core() -> list[str]:
    """The names that a user is shown first: the files of this package, and the best known of torchvision's."""
    return sorted([*registry.names(PACKAGE), *torchvision_networks.CORE])


def known() -> list[str]:
    """Names that `build` takes beside `module:factory`: ours, and torchvision's convolutional classifiers."""
    return sorted([*registry.names(PACKAGE), *torchvision_networks.names()])


def build(name: str, channels: int, image_size: int) -> Backbone:
    """A backbone with random weights, from torch's global generator, for images (C, S, S).

    `module:factory` names a function or class of the user's own that returns an nn.Module. `alexnet+sobel`, and any
    other name alike, is the network on gradients instead of channels.
    Raises SettingsError for an unknown name and for images that are too small for the network.
    """
    name, plus, filtered = name.partition("+")
    if plus and plus + filtered != SOBEL:
        raise SettingsError(
            f"'{name}+{filtered}' names no filter that is known", fix=Set("backbone", f"{name}{SOBEL}")
        )
    seen = 2 if filtered else channels  # channels that the body is given
    layers: dict[str, str] | None = None
    if ":" in name:
        body, layers = factories.build(name, seen, image_size)
    elif (name := _spelled(name)) in registry.names(PACKAGE):
        kind = _kind(name)
        if kind.smallest_image is not None and image_size < kind.smallest_image:
            raise too_small(name, image_size, kind.smallest_image)
        body = kind(seen, image_size)
    else:
        body, layers = torchvision_networks.build(name, seen, image_size)
    backbone = Backbone(name + plus + filtered, channels, image_size, body, layers)
    backbone.refuse_small_images()
    return backbone


def default_size(name: str, image_size: int) -> int:
    """The side, in pixels, that a backbone is trained at where images have this one and the user names none."""
    bare = name.partition("+")[0]
    if bare not in registry.names(PACKAGE):
        return min(image_size, LARGEST_DEFAULT)
    return _kind(bare).nearest_size(min(image_size, LARGEST_DEFAULT_OF_OURS))


def preferred_optimizer(name: str) -> PreferredOptimizer:
    """What a backbone trains well with. Raises SettingsError for a module:factory that cannot be imported."""
    bare = name.partition("+")[0]
    if ":" in bare:
        return getattr(registry.find_object(bare), "optimizer", Network.optimizer)
    return _kind(bare).optimizer if bare in registry.names(PACKAGE) else Network.optimizer


def variant(name: str, image_size: int) -> str:
    """What of a network depends on the image size, in words: weights fit where two sizes have the same."""
    bare = name.partition("+")[0]
    return _kind(bare).variant(image_size) if bare in registry.names(PACKAGE) else ""


def family(tensors: Iterable[str]) -> str | None:
    """The backbone of this package whose layers have these tensors, of several the one of most layers; or None."""
    given = {name.partition(".")[0] for name in tensors}
    found = [name for name in registry.names(PACKAGE) if given.issuperset(_kind(name).layers)]
    return max(found, key=lambda name: len(_kind(name).layers), default=None)


def _kind(name: str) -> type[Network]:
    kind: type[Network] = registry.find(PACKAGE, name)
    return kind


def _spelled(name: str) -> str:
    names = known()
    for spelling in (name, name.lower(), name.lower().replace("_", "-"), name.lower().replace("-", "_")):
        if spelling in names:
            return spelling
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    rest = "" if near else ", another of torchvision's, or module:factory"
    raise SettingsError(f"no backbone is named '{name}'{nearest(name, names if near else core())}{rest}")
