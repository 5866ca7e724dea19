"""Where a backbone starts from: the checkpoint of a pretraining, a weights file, or random weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_app import checkpoints, runs
from ssl_app.checkpoints import SCRATCH
from ssl_app.data.intensity import Pixels
from ssl_app.data.overlap import Seen
from ssl_app.errors import CheckpointError, RunError
from ssl_app.models import backbones, weights
from ssl_app.models.small_resnet import STRIDE_ABOVE

BACKBONE = "backbone.safetensors"


@dataclass(frozen=True)
class Initialization:
    """Where a backbone starts from: a pretraining, a weights file of another's, or random weights."""

    name: str  # as tables show it: the run's name, the file's, or `scratch`
    backbone: str
    tensors: Mapping[str, Tensor] | None = None  # None: random weights
    source: str = "random weights"
    image_size: int | None = None  # None where the data decide
    channels: int | None = None
    pixels: Pixels | None = None
    seen: Seen | None = None  # images of the pretraining
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the pretraining
    content: str = ""  # hash of the weights, for a sweep's identity
    pack_side: int | None = None  # side that pretraining's images were packed at
    ancestry_known: bool = True  # whether `seen` holds all that the weights have seen

    @property
    def intensity(self) -> str | None:
        """How the pretraining scaled pixels."""
        return None if self.pixels is None else self.pixels.intensity

    def refuse_other_pixels(self, channels: int | None, intensity: str | None, image_size: int | None) -> None:
        """Raise CheckpointError where flags ask for other pixels than those that the weights were trained on."""
        if self.pixels is None:
            return
        if channels not in (None, self.channels):
            raise CheckpointError(
                f"{self.name} was pretrained on {self.channels} channels, --channels asks for {channels}; "
                f"leave --channels out, or type --init none"
            )
        if intensity not in (None, self.pixels.intensity):
            raise CheckpointError(
                f"{self.name} was pretrained on --intensity {self.pixels.intensity}, not {intensity}; "
                f"leave --intensity out, or type --init none"
            )
        both = (self.image_size or 0, image_size or self.image_size or 0)
        if self.backbone.startswith("small-resnet") and len({side > STRIDE_ABOVE for side in both}) > 1:
            raise CheckpointError(
                f"{self.name} was pretrained at {both[0]} px, and a small-resnet for {both[1]} px is another network "
                f"(above {STRIDE_ABOVE} px its stem has stride 2); leave --image-size out"
            )

    def build(self, channels: int, image_size: int, seed: int) -> tuple[backbones.Backbone, str]:
        """The backbone with these weights, and the sentence that says how many were loaded."""
        torch.manual_seed(seed)
        backbone = backbones.build(self.backbone, channels, image_size)
        if self.tensors is None:
            return backbone, f"{self.backbone} from random weights, seed {seed}"
        return backbone, weights.load_backbone(backbone, self.tensors, self.source)


def write_backbone(path: Path, task: torch.nn.Module, pixels: Pixels, seen: Seen, meta: Mapping[str, Any]) -> None:
    """Write a pretraining's hand-over: backbone, the method's own parts, pixel scaling, and what it saw."""
    tensors = dict(task.state_dict())
    tensors["seen.content"] = torch.from_numpy(np.asarray(seen.content))
    tensors["seen.groups"] = torch.from_numpy(np.asarray(seen.groups))
    checkpoints.write(path, tensors, {"kind": "backbone", "pixels": pixels.to_json(), **meta})


def load_initialization(init: str, out: Path, backbone: str | None) -> Initialization:
    """A run's name or folder, a checkpoint, a weights file of another's, or `none` (or `scratch`).

    A checkpoint knows its backbone; for a plain weights file `backbone` must name it. Raises
    CheckpointError and RunError.
    """
    if init in ("none", SCRATCH):
        return Initialization(SCRATCH, backbone or "small-resnet")
    path = Path(init)
    if path.is_file() and path.suffix != ".safetensors":
        return _plain(path, backbone)
    if path.is_file():
        return _from_checkpoint(path, backbone) if _is_ours(path) else _plain(path, backbone)
    if path.suffix in (".safetensors", ".pt", ".pth"):
        raise CheckpointError(f"--init {init} is not a file; expected a run, a checkpoint or a weights file")
    run = runs.find_run(out, init)
    if not runs.finished(run):
        raise RunError(f"run {run} has not finished; type ssl-app pretrain --resume {init}, or another --init")
    if not (run / BACKBONE).is_file():
        raise RunError(f"run {run} holds no {BACKBONE}; expected a pretraining")
    return _from_checkpoint(run / BACKBONE, backbone, name=run.name)


def newest_pretraining(out: Path) -> str:
    """The newest finished pretraining in `out`. Raises RunError where there is none."""
    run = runs.newest_finished(out, "pretrain")
    if run is None:
        raise RunError(
            f"no finished pretraining in {out}; type ssl-app pretrain first, or --init none for random weights"
        )
    return run.name


def _is_ours(path: Path) -> bool:
    try:
        checkpoints.read(path)
    except CheckpointError:
        return False
    return True


def _plain(path: Path, backbone: str | None) -> Initialization:
    if backbone is None:
        raise CheckpointError(f"--init {path} does not say which network it is of; add --backbone, such as resnet18")
    tensors = weights.read_weights(path)
    return Initialization(path.stem, backbone, tensors, str(path), content=_digest(tensors), ancestry_known=False)


def _from_checkpoint(path: Path, backbone: str | None, name: str | None = None) -> Initialization:
    tensors, meta = checkpoints.read(path)
    if meta.get("kind") not in ("backbone", "classifier"):
        raise CheckpointError(
            f"{path} is the state of a pretraining that has not finished; "
            f"type ssl-app pretrain --resume {path.parent.name}, or another --init"
        )
    if meta["kind"] == "classifier":
        raise CheckpointError(
            f"{path} has been trained on labels; expected a pretraining: type --init RUN of pretrain"
        )
    if backbone is not None and backbone != meta["backbone"]:
        raise CheckpointError(
            f"{path} holds a {meta['backbone']}, --backbone asks for {backbone}; leave --backbone out"
        )
    seen = None
    if "seen.content" in tensors:
        seen = Seen(tensors.pop("seen.content").numpy(), tensors.pop("seen.groups").numpy())
    return Initialization(
        name or (path.parent.name if path.name == BACKBONE else path.stem),
        meta["backbone"],
        {k: t for k, t in tensors.items() if k.startswith("backbone.")},
        str(path),
        meta["image_size"],
        meta["channels"],
        Pixels.from_json(meta["pixels"]),
        seen,
        meta["settings"],
        _digest(tensors),
        meta.get("pack_side"),
        meta.get("ancestry_known", True),
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes() if tensors[name].ndim else b"")
    return digest.hexdigest()
