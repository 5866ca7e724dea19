"""A trained classifier on disk: what finetune writes, predict and export read.

One network with a head keeps the names `backbone.` and `head.`. Where several predict together, each network is
written once, as `backbones.0.`, each head as `heads.0.`, and the members say which of them they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_app import checkpoints, locks
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import CheckpointError, RunError
from ssl_app.evaluation.abstention import Covered
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.initialization import digest_of
from ssl_app.transfer.trial import TrialSetup

CLASSIFIER = "classifier.safetensors"
LABELED = "labeled.content"  # the tensor of hashes of labeled images


def write_classifier(
    path: Path,
    setup: TrialSetup,
    predictor: Ensemble,
    labeled: NDArray[np.int64] | None = None,
    curve: Sequence[Covered] = (),
) -> None:
    """Write what predicts with its classes, its pixel scaling and its hardware: all that `predict` needs.

    `labeled` (n,) are the hashes of the images whose labels it has seen, for whoever learns from it; `curve` is what
    its test predictions say of abstention.
    """
    seen = {} if labeled is None else {LABELED: torch.from_numpy(np.unique(labeled))}
    dataset, members = setup.dataset, predictor.classifiers
    networks = list({id(one.backbone): one.backbone for one in members}.values())
    places = {id(network): number for number, network in enumerate(networks)}
    meta = {
        "kind": "classifier",
        "pixels": setup.scaling.to_json(),
        "backbone": setup.initialization.backbone,
        "channels": int(dataset.images.shape[-1]),
        "image_size": dataset.image_size,
        "pack_side": int(dataset.images.shape[1]),
        "axis": dataset.columns.axis,
        "classes": list(dataset.classes),
        "head": setup.config.head,
        "layer": members[0].layer,
        "bf16": setup.hardware.bf16,
        "mirrored": predictor.mirrored,
        "temperature": None if predictor.temperature == 1 else predictor.temperature,
        "abstention": [asdict(one) for one in curve],
    }
    if len(members) == 1:
        checkpoints.write(path, members[0].state_dict() | seen, meta)
        return
    tensors: dict[str, Tensor] = {}
    for number, network in enumerate(networks):
        tensors |= _named(f"backbones.{number}.", network)
    for number, one in enumerate(members):
        tensors |= _named(f"heads.{number}.", one.head)
    shares = zip(members, predictor.weights, strict=True)
    meta["members"] = [
        {"backbone": places[id(one.backbone)], "layer": one.layer, "weight": weight} for one, weight in shares
    ]
    checkpoints.write(path, tensors | seen, meta)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier as `predict` and `export` use it."""

    predictor: Ensemble
    scaling: PixelScaling
    meta: Mapping[str, Any]
    labeled: NDArray[np.int64] | None = None  # hashes of the images whose labels it has seen; None: not known
    digest: str = ""  # of the weights

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(self.meta["classes"])

    @property
    def abstention(self) -> list[Covered]:
        """Share left blank and accuracy of the rest by threshold, on its test images; empty where it is unknown."""
        return [Covered(**one) for one in self.meta.get("abstention", ())]

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`, as in training."""
        return "bf16" if self.meta["bf16"] else "fp32"

    @property
    def pixels(self) -> PixelSpec:
        """The form of the images that it was trained on."""
        meta, scaling = self.meta, self.scaling
        side = meta.get("pack_side")
        return PixelSpec(meta["image_size"], meta["channels"], scaling.intensity, side, scaling.nodata, scaling.fit)


def load_classifier(run: Path) -> TrainedClassifier:
    """The classifier of a finished finetune run. Raises RunError where the run holds none."""
    path = run / CLASSIFIER
    if not path.is_file():
        locks.refuse_at_work(run)
        raise RunError(f"run {run} holds no {CLASSIFIER}", expected="a finished finetune run")
    return read_classifier(path)


def read_classifier(path: Path) -> TrainedClassifier:
    """The classifier of a file. Raises CheckpointError for any other."""
    tensors, meta = checkpoints.read(path)
    digest = digest_of(tensors)
    labeled = tensors.pop(LABELED, None)
    if "members" not in meta:
        tensors = {f"{part}s.0.{name}": tensor for (part, name), tensor in _apart(tensors).items()}
    about = meta.get("members", [{"backbone": 0, "layer": meta["layer"], "weight": 1.0}])
    count = 1 + max(one["backbone"] for one in about)
    networks = [backbones.build(meta["backbone"], meta["channels"], meta["image_size"]) for _ in range(count)]
    members = []
    for one in about:
        network = networks[one["backbone"]]
        head = build_head(meta["head"], network.shape(one["layer"]), len(meta["classes"]))
        members.append(Classifier(network, head, one["layer"], torch.zeros(0, dtype=torch.int64)))
    parts: list[tuple[str, nn.Module]] = [(f"backbones.{number}.", one) for number, one in enumerate(networks)]
    parts += [(f"heads.{number}.", one.head) for number, one in enumerate(members)]
    try:
        for prefix, module in parts:
            module.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise CheckpointError(f"{path} is damaged: it does not fit the {meta['backbone']} that it names") from error
    predictor = Ensemble(members, [one["weight"] for one in about], meta.get("mirrored", False))
    predictor.temperature = meta.get("temperature") or 1.0
    seen = None if labeled is None else labeled.numpy()
    return TrainedClassifier(predictor.eval(), PixelScaling.from_json(meta["pixels"]), meta, seen, digest)


def _apart(tensors: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """By part, backbone or head, and the name in it."""
    return {(name.partition(".")[0], name.partition(".")[2]): tensor for name, tensor in tensors.items()}


def _named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
