"""A trained classifier on disk: what finetune writes, predict and export read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_app import checkpoints
from ssl_app.data.intensity import PixelScaling
from ssl_app.errors import CheckpointError, RunError
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.transfer.trial import TrialSetup

CLASSIFIER = "classifier.safetensors"


def write_classifier(path: Path, setup: TrialSetup, classifier: Classifier) -> None:
    """Write a classifier with its classes, its pixel scaling and its hardware: all that `predict` needs."""
    dataset = setup.dataset
    meta = {
        "kind": "classifier",
        "pixels": setup.scaling.to_json(),
        "backbone": setup.initialization.backbone,
        "channels": int(dataset.images.shape[-1]),
        "image_size": dataset.image_size,
        "pack_side": int(dataset.images.shape[1]),
        "classes": list(dataset.classes),
        "head": setup.config.head,
        "layer": setup.config.layer,
        "bf16": setup.hardware.bf16,
    }
    checkpoints.write(path, classifier.state_dict(), meta)


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier as `predict` and `export` use it."""

    classifier: Classifier
    scaling: PixelScaling
    meta: Mapping[str, Any]


def load_classifier(run: Path) -> TrainedClassifier:
    """The classifier of a finished finetune run. Raises RunError where the run holds none."""
    path = run / CLASSIFIER
    if not path.is_file():
        raise RunError(f"run {run} holds no {CLASSIFIER}", expected="a finished finetune run")
    tensors, meta = checkpoints.read(path)
    backbone = backbones.build(meta["backbone"], meta["channels"], meta["image_size"])
    head = build_head(meta["head"], backbone.shape(meta["layer"]), len(meta["classes"]))
    classifier = Classifier(backbone, head, meta["layer"], torch.zeros(0, dtype=torch.int64))
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is damaged: it does not fit the {meta['backbone']} that it names") from error
    return TrainedClassifier(classifier.eval(), PixelScaling.from_json(meta["pixels"]), meta)
