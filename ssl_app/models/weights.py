"""Weights from a file into a backbone: strict, never unpickled, and in words that say what was loaded."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_app.errors import Change, CheckpointError, Fix, Set
from ssl_app.models.backbones import Backbone, family

PREFIXES = (
    "module.",
    "_orig_mod.",
    "backbone.",
    "encoder.",
    "model.",
    "body.",
)  # of DDP, torch.compile, and others
INSIDE = ("state_dict", "model", "model_state_dict", "backbone")  # where a .pth file may keep its tensors
KINDS = (".safetensors", ".pt", ".pth", ".tar")
EXAMPLES = "such as weights.safetensors or weights.pth"
AGAIN = (Fix("copy or download it again"), Change("init"))
SAVE = Fix("run torch.save(model.state_dict(), 'weights.pth') where it was made")


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


def load_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], source: str) -> str:
    """Fill a backbone from named tensors and say how: "120 of 120 backbone tensors from SOURCE".

    Every tensor of the backbone must be there in name and shape; others (heads, classifiers) are left
    alone. Names may be torchvision's own or carry prefixes such as `body.` and `module.`. A first
    convolution for another number of channels is adapted, and the sentence says so.
    Raises CheckpointError where a tensor is missing or does not fit; the backbone is then unchanged.
    """
    wanted = backbone.body.state_dict()
    given = _stripped(tensors, wanted)
    first = next((name for name, tensor in wanted.items() if tensor.dim() == 4), "")
    fitting: dict[str, Tensor] = {}
    wrong: list[str] = []
    note = ""
    for name, old in wanted.items():
        new = given.get(name)
        if new is not None and name == first and _only_channels_differ(new, old):
            note = f"; {first} adapted from {_channels(new.shape[1])} to {old.shape[1]}"
            new = adapt_first_conv(new.float(), old.shape[1])
        if new is None and name.endswith("num_batches_tracked"):
            new = old  # files from before PyTorch 0.4.1 have no such counter
        if new is None:
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
            fix=_fix(backbone, given),
        )
    backbone.body.load_state_dict(fitting)
    return f"{len(fitting)} of {len(wanted)} backbone tensors from {source}{note}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or a .pt/.pth file; nothing is unpickled but plain tensors.

    A mapping that keeps them under `state_dict`, `model` and the like is unwrapped.
    Raises CheckpointError where there is no file, or no tensors in it.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder", expected=f"a file of weights, {EXAMPLES}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", expected=f"a file of weights, {EXAMPLES}")
    if path.suffix.lower() not in KINDS:
        raise CheckpointError(f"{path} is a {path.suffix or 'nameless'} file", expected=f"weights, {EXAMPLES}")
    if path.suffix.lower() == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            found = f"{path} cannot be read as safetensors ({_first(error)})"
            raise CheckpointError(found, fix=AGAIN) from None
    content = _without_code(path)
    tensors = _tensors_in(content)
    if not tensors:
        raise CheckpointError(
            f"{path} holds {type(content).__name__} without named tensors", expected="a state_dict", fix=SAVE
        )
    return tensors


def _without_code(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":  # neither torch.save's zip nor the pickle it wrote before
        raise CheckpointError(f"{path} holds no weights: it is no file of torch.save", fix=AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: whatever they are, only tensors come through
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than tensors, and running what a file brings along is refused", fix=SAVE
        ) from None
    except Exception as error:  # foreign bytes make an unpickler raise anything
        raise CheckpointError(f"{path} cannot be read ({_first(error)})", fix=AGAIN) from None
    return content


def _tensors_in(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in INSIDE:
        if isinstance(content.get(key), Mapping):
            return _tensors_in(content[key])
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _stripped(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the backbone's names: each name loses prefixes until it is one that is wanted."""
    given: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name
        while bare not in wanted and (prefix := next((p for p in PREFIXES if bare.startswith(p)), "")):
            bare = bare.removeprefix(prefix)
        if name == bare or bare not in given:
            given[bare] = tensor
    return given


def _only_channels_differ(new: Tensor, old: Tensor) -> bool:
    same = new.dim() == 4 and new.shape[0] == old.shape[0] and new.shape[2:] == old.shape[2:]
    return same and new.shape[1] != old.shape[1]


def _fix(backbone: Backbone, given: Mapping[str, Tensor]) -> Fix:
    found = _family(given)
    if found and found != backbone.name:
        return Set("backbone", f"{found}, which the file looks like")
    return Set("backbone", "the name that the weights were made with")


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


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
