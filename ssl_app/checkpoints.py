"""Checkpoints: safetensors with JSON metadata, whole or absent, never unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_app.errors import CheckpointError
from ssl_app.runs import write_bytes

FORMAT = "ssl-app 1"
SCRATCH = "scratch"  # the initialization by random weights, as tables name it


def write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata so that a reader finds the old file or the new one. Raises OSError."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(own, metadata={"format": FORMAT, "meta": json.dumps(meta)}))


def read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint of ours. Raises CheckpointError for any other file."""
    with _opened(path, device) as (file, meta):
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata alone. Raises CheckpointError as `read` does."""
    with _opened(path, "cpu") as (_, meta):
        return meta


@contextmanager
def _opened(path: Path, device: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A checkpoint of ours, open, with its metadata."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is not a file; expected a .safetensors that ssl-app wrote")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} holds tensors, but not what ssl-app writes beside them; expected a checkpoint of a run"
                )
            yield file, json.loads(header["meta"])
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({error}); nothing else is loaded as a checkpoint, pickles never"
        ) from error
