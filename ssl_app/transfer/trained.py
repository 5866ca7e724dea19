"""A trained classifier on disk: what finetune writes, predict and export read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_app import checkpoints
from ssl_app.data.intensity import Pixels
from ssl_app.errors import CheckpointError, RunError
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier

CLASSIFIER = "classifier.safetensors"


def write_classifier(path: Path, classifier: Classifier, pixels: Pixels, meta: Mapping[str, Any]) -> None:
    """Write a classifier with its classes, cut and pixel scaling: all that `predict` needs."""
    checkpoints.write(path, classifier.state_dict(), {"kind": "classifier", "pixels": pixels.to_json(), **meta})


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
    tensors, meta = checkpoints.read(path)
    backbone = backbones.build(meta["backbone"], meta["channels"], meta["image_size"])
    head = build_head(meta["head"], backbone.shape(meta["layer"]), len(meta["classes"]))
    classifier = Classifier(backbone, head, meta["layer"], torch.zeros(0, dtype=torch.int64))
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the {meta['backbone']} that it names; it is damaged") from error
    return Finished(classifier.eval(), Pixels.from_json(meta["pixels"]), meta)
