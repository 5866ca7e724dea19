"""Pretext: a task that needs no labels, and what a method says of itself.

A method is one file here: a class named like its file, with its settings in `Config`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.batch_norm import recalibrate, sample
from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Preset
from ssl_app.models.backbones import Backbone
from ssl_app.tasks import Limits, OverAll, Task


@dataclass(frozen=True)
class NoSettings:
    """For methods that have no settings of their own."""


@dataclass(frozen=True)
class Scope:
    """What a method is told of the run that it is made for."""

    images: int  # N, what label memories are sized by
    epochs: int
    keys: Sequence[str] = ()  # (N,) name of each image, as in the data; empty where they are not known
    labels: Tensor | None = None  # (N,) class of each image or -1: to be compared with, never learnt from


class Pretext(Task):
    """A backbone and what a method puts on top of it.

    `score` names the metric of the loss that the alarms and the progress line follow, `chance` is
    its value for a network that knows nothing. The class attributes from `default_backbone` on are what
    `ssl-app pretrain` takes where the user names nothing.
    """

    Config: ClassVar[type] = NoSettings
    score: ClassVar[str | None] = None
    chance: ClassVar[float | None] = None
    limits: ClassVar[Limits | None] = None
    default_backbone: ClassVar[str] = "small-resnet"
    epochs: ClassVar[int] = 30
    batch_size: ClassVar[int] = 128
    optimizer: ClassVar[str] = "sgd"
    rate: ClassVar[float] = 0.1
    shares: ClassVar[Mapping[str, float]] = {"all": 1.0}  # of the rate, by part of `parts`
    momentum: ClassVar[float] = 0.9  # adamw: its first beta
    augment: ClassVar[Preset] = "light"
    recalibrates: ClassVar[bool] = False  # trained on other than whole images: batch norm is set right at the end
    labels_images: ClassVar[bool] = False  # whether log_clusters is there, for ssl-app label
    compared: ClassVar[bool] = True  # whether ssl-app compare may ask it: needs nothing but images
    remembers: ClassVar[bool] = False  # keeps a label of each image: others have no score, so none are held out

    def __init__(self, backbone: Backbone, config: object, scope: Scope) -> None:
        """`config` is an instance of Config."""
        super().__init__()
        self.backbone = backbone
        self.images = scope.images
        self.clusters = 0  # K of each head, for a self-labeling
        self.notes: tuple[str, ...] = ()  # what the user should be told before training
        self.given: Mapping[str, str] = {}  # what a resumed training must find as it was, and its hash
        self.learnt_from: Path | None = None  # a file of another run, whose images count as seen

    @classmethod
    def for_one_epoch(cls, config: object) -> object:
        """The settings under which one epoch alone, which is timed for --budget, costs what each of many does."""
        return config

    def finish(self, over_all: OverAll) -> None:
        """Hand the trunk on with batch-norm statistics of whole images, where it was trained on others."""
        if self.recalibrates:
            recalibrate(self.backbone, sample(self.images, over_all))

    def features(self, images: Tensor) -> Tensor:
        """What the trunk gives of whole images, to watch it by. (B, C, S, S) -> (B, D) or (B, D, h, w)."""
        found: Tensor = self.backbone(images)
        return found

    def alarm(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """What the user should be told of the metrics of `loss` so far, one row an epoch; None while all is well."""
        return None

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """What shows how well it works, by name: n rows of m pictures each, (n, m, C, S, S).

        Drawn once training has ended, in eval mode and without gradients, of unaugmented images that were held out
        (where those are few, of others). In the scale of the batch's images.
        """
        return {}

    def log_clusters(self, images: Tensor) -> Tensor:
        """For a self-labeling: log-probability of each head's clusters, (B, C, S, S) -> (B, T, K).

        The largest is the image's cluster. Raises TypeError for a method that has none, as `labels_images` says.
        """
        raise TypeError(f"{type(self).__name__} makes no clusters")

    @classmethod
    def check(cls, images: NDArray[np.float32], config: object) -> Sequence[str]:
        """Raise DataError where these images cannot teach by this method. (M, S, S, C) in [0, 1], a sample.

        -> what else the user should know of them before training.
        """
        return ()
