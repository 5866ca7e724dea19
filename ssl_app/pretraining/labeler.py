"""A finished self-labeling pretraining, loaded to give clusters to images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_app import checkpoints, config, locks, registry, runs
from ssl_app.data.intensity import PixelScaling
from ssl_app.errors import Run, RunError
from ssl_app.models import backbones
from ssl_app.pretext.base import Pretext, SelfLabeling, TrainingSet
from ssl_app.training.initialization import BACKBONE


@dataclass(frozen=True)
class Labeler:
    """A method with its heads, as it was when training ended."""

    task: Pretext[object]
    scaling: PixelScaling
    meta: Mapping[str, Any]

    @property
    def clusters(self) -> int:
        """K of each head."""
        assert isinstance(self.task, SelfLabeling)
        return self.task.clusters

    def log_clusters(self, images: Tensor) -> Tensor:
        """Log-probability of each head's clusters. (B, C, S, S) -> (B, T, K)."""
        assert isinstance(self.task, SelfLabeling)
        return self.task.log_clusters(images)


def load_labeler(run: Path) -> Labeler:
    """The method of a finished pretraining that makes clusters. Raises RunError for any other run."""
    if not runs.finished(run):
        locks.refuse_at_work(run)
    if not runs.finished(run) or not (run / BACKBONE).is_file():
        raise RunError(f"run {run} is no finished pretraining", expected=f"one by {' or '.join(labeling_methods())}")
    tensors, meta = checkpoints.read(run / BACKBONE)
    method = registry.find("pretext", meta["method"])
    if not issubclass(method, SelfLabeling):
        raise RunError(
            f"run {run} was pretrained by {meta['method']}, which makes no clusters",
            expected=" or ".join(labeling_methods()),
            fix=Run("pretrain", (("method", labeling_methods()[-1]),)),
        )
    own = config.from_json(method.Config, meta["settings"]["method_settings"])
    backbone = backbones.build(meta["backbone"], meta["channels"], meta["image_size"])
    task = method(backbone, own, TrainingSet(meta["data"]["images"], len(meta["history"])))
    task.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("seen.")})
    return Labeler(task.eval(), PixelScaling.from_json(meta["pixels"]), meta)


def labeling_methods() -> list[str]:
    """Names of the methods that make clusters."""
    return [name for name in registry.names("pretext") if issubclass(registry.find("pretext", name), SelfLabeling)]
