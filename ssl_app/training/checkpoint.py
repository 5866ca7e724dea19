"""Checkpoints: safetensors with JSON metadata, whole or absent, never unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_app.errors import CheckpointError
from ssl_app.runs import write_bytes

FORMAT = "ssl-app 1"


def write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata so that a reader finds the old file or the new one. Raises OSError."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(own, metadata={"format": FORMAT, "meta": json.dumps(meta)}))


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint of ours. Raises CheckpointError for any other file."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file; expected a .safetensors that ssl-app wrote")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} holds tensors, but not what ssl-app writes beside them; expected a checkpoint of a run"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(header["meta"])  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); nothing else is loaded as a checkpoint, pickles never"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: `<prefix>.<parameter number>.<what>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{number}.{what}": torch.as_tensor(value)
        for number, entries in state.items()
        for what, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what optimizer_tensors took; rates are the schedule's to set."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            number, what = name.removeprefix(f"{prefix}.").split(".", 1)
            state.setdefault(int(number), {})[what] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
