"""Named tensors into a backbone: strict, and in words that say what was loaded."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ssl_app.errors import Change, CheckpointError, Fix, Set
from ssl_app.models.backbones import Backbone, family

OWN = ("", "body.", "backbone.body.")  # prefixes that our own files have
COUNTER = "num_batches_tracked"  # of batch norm; files from before PyTorch 0.4.1 have none


def adapt_first_conv(weight: Tensor, channels: int) -> Tensor:
    """First convolution's weight for another number of channels. (O, I, k, k) -> (O, C, k, k).

    One channel: the sum over the input channels, which answers a gray image exactly as the original
    answers it repeated I times. N channels: the filters repeated in turn and scaled by I / N, so that
    the response keeps its size. timm does the same and says that it is one choice of several; for
    channels that are not colors (infrared, a z-stack) none of them is right, only a start.
    """
    given = weight.shape[1]
    if channels == given:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    tiled = weight.repeat(1, -(-channels // given), 1, 1)[:, :channels]
    return tiled * (given / channels)


def load_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], source: str, network: str | None = None) -> str:
    """Fill a backbone from named tensors and say how: "120 of 120 backbone tensors from SOURCE".

    Every tensor of the backbone must be there in name and shape; others (heads, classifiers) are left
    alone. All names may share a prefix, such as `module.` or `model.encoder.`; where networks stand under several,
    `network` names one (`teacher`). A first convolution for another number of channels is adapted. The sentence says
    all of that. Raises CheckpointError where a tensor is missing or does not fit, or two networks fit; the backbone
    is then unchanged.
    """
    wanted = backbone.body.state_dict()
    prefix, given = _chosen(tensors, wanted, network, source)
    first = next((name for name, tensor in wanted.items() if tensor.dim() == 4), "")
    fitting: dict[str, Tensor] = {}
    wrong: list[str] = []
    note = "" if prefix in OWN else f", named '{prefix}*'"
    counters = 0
    for name, old in wanted.items():
        new = given.get(name)
        if new is not None and name == first and _only_channels_differ(new, old):
            note += f"; {first} adapted from {_channels(new.shape[1])} to {old.shape[1]}"
            new = adapt_first_conv(new.float(), old.shape[1])
        if new is None and name.endswith(COUNTER):
            counters += 1
        elif new is None:
            wrong.append(f"{name} is missing")
        elif new.shape != old.shape:
            wrong.append(f"{name} is {_by(new)}, expected {_by(old)}")
        elif not bool(torch.isfinite(new).all()):
            wrong.append(f"{name} is not finite")
        else:
            fitting[name] = new
    if wrong:
        raise CheckpointError(
            f"{source}: {len(fitting)} of {len(wanted)} backbone tensors fit {backbone.name}, {wrong[0]}",
            fix=_fix(backbone, _bare(tensors)),
        )
    backbone.body.load_state_dict(fitting, strict=not counters)
    if counters:
        note += f"; {counters} counters of batch norm are not in it"
    return f"{len(fitting)} of {len(wanted)} backbone tensors from {source}{note}"


def networks_in(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors that a backbone wants, by the prefix that they stand under: most of a file's names share one.

    Best first: by the number that fit in name and shape, then the shortest prefix.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        places = [0, *(dot + 1 for dot, letter in enumerate(name) if letter == ".")]
        for place in places:
            if name[place:] in wanted:
                found.setdefault(name[:place], {})[name[place:]] = tensor
                break
    fits = {
        prefix: sum(tensor.shape == wanted[name].shape for name, tensor in given.items())
        for prefix, given in found.items()
    }
    return {prefix: found[prefix] for prefix in sorted(found, key=lambda one: (-fits[one], len(one), one))}


def _chosen(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str | None, source: str
) -> tuple[str, dict[str, Tensor]]:
    """The prefix and the tensors of the network that is wanted. Raises CheckpointError where several may be meant."""
    found = networks_in(tensors, wanted)
    if network is not None:
        exact = {prefix: given for prefix, given in found.items() if prefix.strip(".") == network.strip(".")}
        named = exact or {prefix: given for prefix, given in found.items() if network in prefix.split(".")}
        if not named:
            raise CheckpointError(
                f"{source} holds no network under '{network}' with tensors of this backbone",
                expected=_listed(found) or None,
                fix=Change("init"),
            )
        found = named
    whole = [prefix for prefix, given in found.items() if _is_whole(given, wanted)]
    different = whole[:1]
    for prefix in whole[1:]:
        if not any(_same(found[prefix], found[other]) for other in different):
            different.append(prefix)
    if len(different) > 1:
        raise CheckpointError(
            f"{source} holds {len(different)} networks that fit, {_listed(different)}",
            fix=Set("init", f"{source}:{_name_of(different[-1], different)}"),
        )
    prefix = whole[0] if whole else next(iter(found), "")
    return prefix, found.get(prefix, {})


def _is_whole(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether every tensor is there, but for counters of batch norm."""
    return all(name in given or name.endswith(COUNTER) for name in wanted)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _name_of(prefix: str, among: Sequence[str]) -> str:
    """The first part of a prefix that no other has, or all of it."""
    parts = [part for part in prefix.split(".") if part]
    others = {part for other in among if other != prefix for part in other.split(".")}
    return next((part for part in parts if part not in others), prefix.strip(".") or "''")


def _listed(prefixes: Iterable[str]) -> str:
    return ", ".join(f"'{prefix.strip('.')}'" for prefix in prefixes)


def _only_channels_differ(new: Tensor, old: Tensor) -> bool:
    same = new.dim() == 4 and new.shape[0] == old.shape[0] and new.shape[2:] == old.shape[2:]
    return same and new.shape[1] != old.shape[1]


def _fix(backbone: Backbone, given: Mapping[str, Tensor]) -> Fix:
    found = _family(given)
    if found and found != backbone.name:
        return Set("backbone", f"{found}, which the file looks like")
    return Set("backbone", "the name that the weights were made with")


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under every end of their dotted names, for a look at what network they may be of."""
    return {
        ".".join(parts[place:]): tensor
        for name, tensor in tensors.items()
        for parts in [name.split(".")]
        for place in range(len(parts))
    }


def _family(given: Mapping[str, Tensor]) -> str | None:
    """The backbone that these tensors look like, from names that only its family has."""
    blocks = sum(name.startswith("layer") and name.endswith("conv1.weight") for name in given)
    if blocks:
        bottleneck = any(name.startswith("layer") and name.endswith("conv3.weight") for name in given)
        depths = {(8, False): "resnet18", (16, False): "resnet34", (16, True): "resnet50"}
        return depths.get((blocks, bottleneck), {33: "resnet101", 50: "resnet152"}.get(blocks))
    if ours := family(given):
        return ours
    convolutions = sum(tensor.dim() == 4 for name, tensor in given.items() if name.startswith("features."))
    if convolutions == 5:
        return "alexnet"
    norms = "_bn" if any(name.endswith("running_mean") for name in given) else ""
    return {8: f"vgg11{norms}", 10: f"vgg13{norms}", 13: f"vgg16{norms}", 16: f"vgg19{norms}"}.get(convolutions)


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _channels(count: int) -> str:
    return f"{count} channel" + "s" * (count != 1)
