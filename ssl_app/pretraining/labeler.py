"""A finished self-labeling pretraining, loaded to give clusters to images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app import checkpoints, config, registry, runs
from ssl_app.data.intensity import Pixels
from ssl_app.errors import RunError
from ssl_app.models import backbones
from ssl_app.pretext.base import Pretext, Scope
from ssl_app.training.initialization import BACKBONE


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
    tensors, meta = checkpoints.read(run / BACKBONE)
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
