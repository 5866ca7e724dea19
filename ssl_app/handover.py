"""What one run hands to the next: weights with all that is needed to use them rightly, and checked when loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_app import config, registry, runs
from ssl_app.classification import Classifier
from ssl_app.data.leaks import Seen
from ssl_app.data.pixels import Pixels
from ssl_app.errors import CheckpointError, RunError
from ssl_app.models import backbones, weights
from ssl_app.models.heads import build_head
from ssl_app.pretext.base import Pretext, Scope
from ssl_app.training import checkpoint

BACKBONE = "backbone.safetensors"
CLASSIFIER = "classifier.safetensors"
SCRATCH = "scratch"


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
        if self.image_size is None or image_size is None:
            return
        before, after = (backbones.variant(self.backbone, side) for side in (self.image_size, image_size))
        if before != after:
            raise CheckpointError(
                f"{self.name} was pretrained at {self.image_size} px, and a {self.backbone} for {image_size} px is "
                f"another network ({after}, not {before}); leave --image-size out"
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
    checkpoint.write(path, tensors, {"kind": "backbone", "pixels": pixels.to_json(), **meta})


def write_classifier(path: Path, classifier: Classifier, pixels: Pixels, meta: Mapping[str, Any]) -> None:
    """Write a classifier with its classes, cut and pixel scaling: all that `predict` needs."""
    checkpoint.write(path, classifier.state_dict(), {"kind": "classifier", "pixels": pixels.to_json(), **meta})


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
        checkpoint.read(path)
    except CheckpointError:
        return False
    return True


def _plain(path: Path, backbone: str | None) -> Initialization:
    if backbone is None:
        raise CheckpointError(f"--init {path} does not say which network it is of; add --backbone, such as resnet18")
    tensors = weights.read_weights(path)
    return Initialization(path.stem, backbone, tensors, str(path), content=_digest(tensors), ancestry_known=False)


def _from_checkpoint(path: Path, backbone: str | None, name: str | None = None) -> Initialization:
    tensors, meta = checkpoint.read(path)
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


@dataclass(frozen=True)
class Labeler:
    """A finished self-labeling: the method with its heads, as it was when training ended."""

    task: Pretext
    pixels: Pixels
    meta: Mapping[str, Any]


def load_labeler(run: Path) -> Labeler:
    """The method of a finished pretraining that makes clusters. Raises RunError for any other run."""
    if not runs.finished(run) or not (run / BACKBONE).is_file():
        raise RunError(f"run {run} is no finished pretraining; expected one by {' or '.join(labeling_methods())}")
    tensors, meta = checkpoint.read(run / BACKBONE)
    method = registry.find("pretext", meta["method"])
    if not method.labels_images:
        raise RunError(
            f"run {run} was pretrained by {meta['method']}, which makes no clusters; "
            f"expected {' or '.join(labeling_methods())}"
        )
    own = config.from_json(method.Config, meta["settings"]["method_settings"])
    backbone = backbones.build(meta["backbone"], meta["channels"], meta["image_size"])
    task = method(backbone, own, Scope(meta["data"]["images"], len(meta["rows"])))
    task.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("seen.")})
    return Labeler(task.eval(), Pixels.from_json(meta["pixels"]), meta)


def labeling_methods() -> list[str]:
    """Names of the methods that make clusters."""
    return [name for name in registry.names("pretext") if registry.find("pretext", name).labels_images]


@dataclass(frozen=True)
class Finished:
    """A classifier as `predict` and `export` use it."""

    classifier: Classifier
    pixels: Pixels
    meta: Mapping[str, Any]


def load_classifier(run: Path) -> Finished:
    """The classifier of a finished finetune run. Raises RunError where the run holds none."""
    path = run / CLASSIFIER
    if not path.is_file():
        raise RunError(f"run {run} holds no {CLASSIFIER}; expected a finished finetune run")
    tensors, meta = checkpoint.read(path)
    backbone = backbones.build(meta["backbone"], meta["channels"], meta["image_size"])
    head = build_head(meta["head"], backbone.shape(meta["layer"]), len(meta["classes"]))
    classifier = Classifier(backbone, head, meta["layer"], torch.zeros(0, dtype=torch.int64))
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the {meta['backbone']} that it names; it is damaged") from error
    return Finished(classifier.eval(), Pixels.from_json(meta["pixels"]), meta)
