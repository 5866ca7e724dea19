"""Where a backbone starts from: the checkpoint of a pretraining, a weights file, or random weights."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_app import checkpoints, locks, runs
from ssl_app.checkpoints import SCRATCH
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.overlap import Seen
from ssl_app.errors import Change, CheckpointError, Run, RunError, Set, Unset
from ssl_app.models import backbones, weights
from ssl_app.models.weight_files import read_weights

logger = logging.getLogger(__name__)

BACKBONE = "backbone.safetensors"


@dataclass(frozen=True)
class Initialization:
    """A pretraining's checkpoint, the weights file of another tool, or random weights."""

    name: str  # as tables show it: the run's name, the file's, or `scratch`
    backbone: str
    tensors: Mapping[str, Tensor] | None = None  # None: random weights
    source: str = "random weights"
    image_size: int | None = None  # None where the data decide
    channels: int | None = None
    scaling: PixelScaling | None = None
    seen: Seen | None = None  # images of the pretraining
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the pretraining
    content: str = ""  # hash of the weights, for a sweep's identity
    pack_side: int | None = None  # side that pretraining's images were packed at
    ancestry_known: bool = True  # whether `seen` holds all that the weights have seen
    labels_learned: int = 0  # images whose classes, given by people, are in the weights
    doubts: tuple[str, ...] = ()  # warnings that the pretraining ended with
    network: str | None = None  # which one of a file that holds several
    members: tuple["Initialization", ...] = ()  # of several pretrainings, the first that is trained on; else none
    history: Sequence[Mapping[str, float]] = ()  # of the pretraining, its metrics by epoch

    @property
    def first(self) -> "Initialization":
        """The pretraining that a strategy with one network starts from."""
        return self.members[0] if self.members else self

    @property
    def pretrained(self) -> bool:
        """Whether it is anything but random weights."""
        return self.tensors is not None

    def refuse_other_pixels(
        self,
        channels: int | None,
        intensity: str | None,
        image_size: int | None,
        nodata: float | None = None,
        fit: str | None = None,
    ) -> None:
        """Raise CheckpointError where settings ask for other pixels than those that the weights were trained on."""
        if self.scaling is None:
            return
        random = Set("init", "none")
        if channels not in (None, self.channels):
            raise CheckpointError(
                f"{self.name} was pretrained on {self.channels} channels, {channels} are requested",
                fix=(Unset("channels"), random),
            )
        if intensity not in (None, self.scaling.intensity):
            raise CheckpointError(
                f"{self.name} was pretrained on the intensity {self.scaling.intensity}, not {intensity}",
                fix=(Unset("intensity"), random),
            )
        if nodata not in (None, self.scaling.nodata):
            before = (
                "no nodata value" if self.scaling.nodata is None else f"the nodata value {self.scaling.nodata:.9g}"
            )
            raise CheckpointError(
                f"{self.name} was pretrained with {before}, not {nodata:.9g}", fix=(Unset("nodata"), random)
            )
        if fit not in (None, self.scaling.fit):
            raise CheckpointError(
                f"{self.name} was pretrained with the fit {self.scaling.fit}, not {fit}", fix=(Unset("fit"), random)
            )
        if self.image_size is None or image_size is None:
            return
        before, after = (backbones.variant(self.backbone, side) for side in (self.image_size, image_size))
        if before != after:
            raise CheckpointError(
                f"{self.name} was pretrained at {self.image_size} px, and a {self.backbone} for {image_size} px is "
                f"another network ({after}, not {before})",
                fix=Unset("image_size"),
            )

    def build(self, channels: int, image_size: int, seed: int) -> backbones.Backbone:
        """The backbone with these weights; the log says how many were loaded."""
        backbone, loaded = self.load(channels, image_size, seed)
        logger.info(f"backbone: {loaded}")
        return backbone

    def load(self, channels: int, image_size: int, seed: int) -> tuple[backbones.Backbone, str]:
        """The backbone with these weights, and the sentence that says how many were loaded."""
        torch.manual_seed(seed)
        backbone = backbones.build(self.backbone, channels, image_size)
        if self.tensors is None:
            return backbone, f"{self.backbone} from random weights, seed {seed}"
        return backbone, weights.load_backbone(backbone, self.tensors, self.source, self.network)


def write_backbone(
    path: Path, task: torch.nn.Module, scaling: PixelScaling, seen: Seen, meta: Mapping[str, Any]
) -> None:
    """Write a pretraining's checkpoint: backbone, the method's own parts, pixel scaling, and what it saw."""
    tensors = dict(task.state_dict())
    tensors["seen.content"] = torch.from_numpy(np.asarray(seen.content))
    tensors["seen.groups"] = torch.from_numpy(np.asarray(seen.groups))
    if seen.looks is not None:
        tensors["seen.looks"] = torch.from_numpy(np.asarray(seen.looks))
    checkpoints.write(path, tensors, {"kind": "backbone", "pixels": scaling.to_json(), **meta})


def load_initialization(init: str, out: Path, backbone: str | None) -> Initialization:
    """A run's name or folder, a checkpoint, a weights file of another tool, or `none` (or `scratch`).

    `FILE:teacher` is one network of a weights file that holds several.

    A checkpoint knows its backbone; for a plain weights file `backbone` must name it. Raises
    CheckpointError and RunError.
    """
    if init in ("none", SCRATCH):
        return Initialization(SCRATCH, backbone or "small-resnet")
    path, network = Path(init), None
    if ":" in init and not path.exists() and Path(init.rpartition(":")[0]).is_file():
        path, network = Path(init.rpartition(":")[0]), init.rpartition(":")[2]
        return _plain(path, backbone, network)
    if path.is_file() and path.suffix != ".safetensors":
        return _plain(path, backbone)
    if path.is_file():
        return _from_checkpoint(path, backbone) if _is_ours(path) else _plain(path, backbone)
    if path.suffix in (".safetensors", ".pt", ".pth", ".ckpt", ".tar", ".bin"):
        raise CheckpointError(f"{init} is not a file", expected="a run, a checkpoint or a weights file")
    run = runs.find_run(out, init)
    if not runs.finished(run):
        locks.refuse_at_work(run, (Change("init"),))
        raise RunError(f"run {run} has not finished", fix=(Run("pretrain", (("resume", init),)), Change("init")))
    if not (run / BACKBONE).is_file():
        raise RunError(f"run {run} holds no {BACKBONE}", expected="a pretraining")
    return _from_checkpoint(run / BACKBONE, backbone, name=run.name)


def newest_pretraining(out: Path) -> str:
    """The newest finished pretraining in `out`. Raises RunError where there is none."""
    run = runs.newest_finished(out, "pretrain")
    if run is None:
        random = Set("init", "none for random weights")
        raise RunError(f"no finished pretraining in {out}", fix=(Run("pretrain"), random, Change("out")))
    return run.name


def _is_ours(path: Path) -> bool:
    try:
        checkpoints.read(path)
    except CheckpointError:
        return False
    return True


def _plain(path: Path, backbone: str | None, network: str | None = None) -> Initialization:
    if backbone is None:
        raise CheckpointError(
            f"{path} does not say which network it is of", fix=Set("backbone", "B, such as resnet18")
        )
    tensors = read_weights(path)
    name, content = path.stem, digest_of(tensors)
    if network is not None:
        name, content = f"{name}:{network}", f"{content}:{network}"
    return Initialization(name, backbone, tensors, str(path), content=content, ancestry_known=False, network=network)


def _from_checkpoint(path: Path, backbone: str | None, name: str | None = None) -> Initialization:
    tensors, meta = checkpoints.read(path)
    if meta.get("kind") not in ("backbone", "classifier"):
        raise CheckpointError(
            f"{path} is the state of a pretraining that has not finished",
            fix=(Run("pretrain", (("resume", path.parent.name),)), Change("init")),
        )
    if meta["kind"] == "classifier":
        raise CheckpointError(
            f"{path} has been trained on labels", expected="a pretraining", fix=Set("init", "RUN of pretrain")
        )
    if backbone is not None and backbone != meta["backbone"]:
        raise CheckpointError(f"{path} holds a {meta['backbone']}, a {backbone} is requested", fix=Unset("backbone"))
    seen = None
    if "seen.content" in tensors:
        looks = tensors.pop("seen.looks", None)
        content, groups = tensors.pop("seen.content").numpy(), tensors.pop("seen.groups").numpy()
        seen = Seen(content, groups, None if looks is None else looks.numpy())
    return Initialization(
        name or (path.parent.name if path.name == BACKBONE else path.stem),
        meta["backbone"],
        {k: t for k, t in tensors.items() if k.startswith("backbone.")},
        str(path),
        meta["image_size"],
        meta["channels"],
        PixelScaling.from_json(meta["pixels"]),
        seen,
        {key: tuple(value) if isinstance(value, list) else value for key, value in meta["settings"].items()},
        digest_of(tensors),
        meta.get("pack_side"),
        meta.get("ancestry_known", True),
        meta.get("labels_learned", 0),
        tuple(meta.get("doubts", ())),
        history=meta.get("history", ()),
    )


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits over names and values."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes() if tensors[name].ndim else b"")
    return digest.hexdigest()
