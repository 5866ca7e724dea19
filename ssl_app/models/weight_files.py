"""Named tensors out of a file of weights, of whatever tool: never unpickled, and in words that say what it is."""

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_app.errors import Change, CheckpointError, Fix
from ssl_app.foreign import foreign

DEEPEST = 4  # levels of mappings within mappings
EXAMPLES = "such as weights.safetensors or weights.pth"
AGAIN = (Fix("copy or download it again"), Change("init"))
SAVE = Fix("run torch.save(model.state_dict(), 'weights.pth') where it was made")
# what training scripts put beside their tensors, and what holds values only: settings, and numpy's numbers
SCALAR: Any = np.float64(0).__reduce__()[0]
PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")},
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),  # of numpy before 2
]
TOOLS = {
    "lightning": "a Lightning checkpoint",
    "omegaconf": "a checkpoint with Hydra's settings",
    "mmengine": "a checkpoint of MMEngine",
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors file or one of torch.save; nothing is unpickled but tensors and plain values.

    Mappings within mappings, such as `state_dict` or a teacher beside a student, give dotted names.
    Raises CheckpointError where there is no file, or no tensors in it.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder", expected=f"a file of weights, {EXAMPLES}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", expected=f"a file of weights, {EXAMPLES}")
    with path.open("rb") as file:
        start = file.read(512)
    known = None if start[:2] == b"PK" else foreign(start)
    if known is not None:
        raise CheckpointError(f"{path} holds no weights that are read: it is {known[0]}", fix=known[1])
    if path.suffix.lower() == ".safetensors" or start[8:9] == b"{":  # a length of eight bytes, then JSON
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            found = f"{path} cannot be read as safetensors ({_first(error)})"
            raise CheckpointError(found, fix=AGAIN) from None
    if start[:2] != b"PK" and start[:1] != b"\x80":  # neither torch.save's zip nor the pickle it wrote before
        raise CheckpointError(f"{path} holds no weights: it is no file of torch.save, and no safetensors", fix=AGAIN)
    content = _without_code(path)
    tensors = dict(_tensors_in(content, "", DEEPEST))
    if not tensors:
        raise CheckpointError(
            f"{path} holds {type(content).__name__} without named tensors", expected="a state_dict", fix=SAVE
        )
    return tensors


def _without_code(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
            warnings.simplefilter("ignore")  # of pickle protocols: whatever they are, only values come through
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        more = re.search(r"GLOBAL ([\w.]+)", str(error))
        name = more.group(1) if more else ""
        tool = next((what for word, what in TOOLS.items() if word in name), None)
        known = ": it is " + tool if tool else f" ({name})" if name else ""
        raise CheckpointError(
            f"{path} holds more than tensors{known}, and running what a file brings along is refused", fix=SAVE
        ) from None
    except Exception as error:  # foreign bytes make an unpickler raise anything
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} holds a compiled network (TorchScript), and running what a file brings along is refused",
                fix=SAVE,
            ) from None
        raise CheckpointError(f"{path} cannot be read ({_first(error)})", fix=AGAIN) from None
    return content


def _tensors_in(content: object, prefix: str, levels: int) -> list[tuple[str, Tensor]]:
    """Tensors under dotted names; those of an optimizer are left out."""
    if not isinstance(content, Mapping) or not levels:
        return []
    found: list[tuple[str, Tensor]] = []
    for name, value in content.items():
        if isinstance(value, Tensor):
            found.append((f"{prefix}{name}", value))
        elif isinstance(name, str) and "optimizer" not in name:
            found += _tensors_in(value, f"{prefix}{name}.", levels - 1)
    return found


def _first(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
