"""Networks of the user's own, named `module:factory`: a function or class that returns an nn.Module."""

import inspect
from collections.abc import Callable

from torch import nn

from ssl_app.errors import SettingsError
from ssl_app.models.backbones.adapted import adapt, layers_of
from ssl_app.models.backbones.base import Network
from ssl_app.registry import find_object

CHANNELS = ("channels", "in_channels", "in_chans")  # names under which a factory asks for them
SIZES = ("image_size", "img_size")


def build(path: str, channels: int, image_size: int) -> tuple[nn.Module, dict[str, str] | None]:
    """The network that the factory returns, and its named layers; None: its own, of a Network.

    The factory is given the channels and the image size where it asks for them by name, and the channels where its
    first argument is required. A network that is no Network loses what it ends in, if that is named `fc` or
    `classifier`, and its first convolution is rebuilt where it takes another number of channels.
    Raises SettingsError for what is no factory of networks.
    """
    factory: Callable[..., object] = find_object(path)
    if not callable(factory):
        raise SettingsError(f"'{path}' is {type(factory).__name__}", expected="a function that returns an nn.Module")
    parameters = list(inspect.signature(factory).parameters.values())
    values = dict.fromkeys(CHANNELS, channels) | dict.fromkeys(SIZES, image_size)
    given = {p.name: values[p.name] for p in parameters if p.name in values}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters[:1] if p.kind in positional and p.default is inspect.Parameter.empty]
    if required and not set(given) & {*CHANNELS, required[0].name}:
        network = factory(channels, **given)
    else:
        network = factory(**given)
    if not isinstance(network, nn.Module):
        raise SettingsError(f"'{path}' returned {type(network).__name__}", expected="an nn.Module")
    if isinstance(network, Network):
        return network, None
    body = adapt(network, channels)
    return body, layers_of(body)
