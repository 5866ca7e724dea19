"""Pretext: a task that needs no labels, with all that its paper owns.

A method is one file here: a class named like its file, with its settings in `Config`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Augmentation, Frame
from ssl_app.errors import Notice
from ssl_app.models.backbones import Backbone
from ssl_app.training.batch_norm import recalibrate, sample
from ssl_app.training.task import DatasetMap, ScoreLimits, Task

C = TypeVar("C")


@dataclass(frozen=True)
class NoSettings:
    """For methods that have no settings of their own."""


@dataclass(frozen=True)
class TrainingSet:
    """What a method knows of the images that it is made for."""

    images: int  # N, what per-image targets are sized by
    epochs: int  # of the run
    keys: Sequence[str] = ()  # (N,) name of each image, as in the data; empty where they are not known
    labels: Tensor | None = None  # (N,) class of each image or -1: for comparison, never trained on


@dataclass(frozen=True)
class Defaults:
    """How a method is trained where the user names nothing."""

    epochs: int = 30
    batch_size: int = 128
    smallest_batch: int = 32  # a batch is halved while a run would have too few steps, down to this
    least_steps: int = 0  # optimizer steps, fewer than which may leave the loss at chance
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    lr_scale: Mapping[str, float] = field(default_factory=lambda: {"all": 1.0})  # by part of `parts`
    momentum: float = 0.9  # adamw: its first beta
    beta2: float = 0.999  # adamw
    weight_decay: float = 5e-4  # of matrices and filters
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.05  # share of the steps
    augment: str | None = "light"  # name of a preset; None: `augmentation` builds one of the method's own
    backbone: str = "small-resnet"


class Pretext(Task, Generic[C]):
    """A backbone and what a method puts on top of it.

    `score` names the metric of the loss that warnings and the progress line follow.
    """

    Config: ClassVar[type] = NoSettings
    score: ClassVar[str | None] = None
    chance: ClassVar[float | None] = None  # the score of a network that knows nothing
    limits: ClassVar[ScoreLimits | None] = None
    defaults: ClassVar[Defaults] = Defaults()
    recalibrates_batch_norm: ClassVar[bool] = False  # trained on other than whole images: corrected at the end
    progressive_resizing: ClassVar[bool] = False  # may begin at half the side: whole images, pooled features
    standalone: ClassVar[bool] = True  # needs nothing but images, so that `compare` may try it
    per_image_targets: ClassVar[bool] = False  # other images have no score, so none are held out for validation

    def __init__(self, backbone: Backbone, config: C, data: TrainingSet) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.images = data.images
        self.notes: tuple[Notice, ...] = ()  # what the user should know before training
        self.fingerprints: Mapping[str, str] = {}  # what a resumed training must find as it was, and its hash
        self.teacher_file: Path | None = None  # a file of another run, whose images count as seen
        self.labels_learned = 0  # images whose classes are learned, where people gave them

    def augmentation(self, frame: Frame) -> Augmentation:
        """The random views that the method trains on, where the user names none."""
        assert self.defaults.augment is not None, f"{type(self).__name__} builds no augmentation"
        return transforms.preset(self.defaults.augment, frame)

    def chance_at(self, batch_size: int) -> float | None:
        """The score of a network that knows nothing, with so many images in a batch; None where it is not known."""
        return self.chance

    @classmethod
    def for_one_epoch(cls, config: C) -> C:
        """The settings under which one epoch, timed for a time budget, costs what each of many does."""
        return config

    def finish(self, map_dataset: DatasetMap) -> None:
        """Recalibrate the backbone's batch norm on whole images, where it was trained on others."""
        if self.recalibrates_batch_norm:
            recalibrate(self.backbone, sample(self.images, map_dataset))

    def features(self, images: Tensor) -> Tensor:
        """Features of whole images, for monitoring. (B, C, S, S) -> (B, D) or (B, D, h, w)."""
        found: Tensor = self.backbone(images)
        return found

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """What deserves the user's attention in the metrics of each epoch so far; None while all is well."""
        return None

    def backbone_inputs(self, batch: Batch) -> Tensor | None:
        """What the backbone is given of a batch: puzzles, turns, holes and all, (n, C, s, s); for people.

        The first call of the backbone within `loss` says so, and nothing above it is computed. None where the loss
        does not call it: a method that hides tokens, say, overrides this.
        """

        def leave(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _Given(inputs[0].detach())

        handle = self.backbone.register_forward_pre_hook(leave)
        try:
            self.loss(batch, self.players[0])
        except _Given as found:
            return found.images
        finally:
            handle.remove()
        return None

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """What shows how well it works, by name: n rows of m pictures each, (n, m, C, S, S).

        Drawn once training has ended, in eval mode and without gradients, of center crops of validation images
        (where those are few, of others). In the scale of the batch's images.
        """
        return {}

    @classmethod
    def check(cls, images: NDArray[np.float32], config: C) -> Sequence[Notice]:
        """Raise DataError where these images cannot teach by this method. (M, S, S, C) in [0, 1], a sample.

        -> what else the user should know of them before training.
        """
        return ()


class _Given(Exception):
    """Leaves a loss with what its backbone was given."""

    def __init__(self, images: Tensor) -> None:
        self.images = images


class SelfLabeling(ABC):
    """For a Pretext that gives images cluster labels of its own: what `label` and `clusters` use."""

    clusters: int  # K of each head

    @abstractmethod
    def log_clusters(self, images: Tensor) -> Tensor:
        """Log-probability of each head's clusters; the largest is the image's. (B, C, S, S) -> (B, T, K)."""
