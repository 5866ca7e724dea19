"""Pretext: a task that needs no labels, and what a method says of itself.

A method is one file here: a class named like its file, with its settings in `Config`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ssl_app.models.backbones import Backbone
from ssl_app.tasks import Limits, Task


@dataclass(frozen=True)
class NoSettings:
    """For methods that have no settings of their own."""


class Pretext(Task):
    """A backbone and what a method puts on top of it.

    `score` names the metric of the loss that the alarms and the progress line follow, `chance` is
    its value for a network that knows nothing. The class attributes from `epochs` on are what
    `ssl-app pretrain` takes where the user names nothing.
    """

    Config: ClassVar[type] = NoSettings
    score: ClassVar[str | None] = None
    chance: ClassVar[float | None] = None
    limits: ClassVar[Limits | None] = None
    epochs: ClassVar[int] = 30
    batch_size: ClassVar[int] = 128
    optimizer: ClassVar[str] = "sgd"
    rate: ClassVar[float] = 0.1

    def __init__(self, backbone: Backbone, config: object, images: int) -> None:
        """`config` is an instance of Config; `images` is N, what label memories are sized by."""
        super().__init__()
        self.backbone = backbone

    @classmethod
    def check(cls, images: NDArray[np.float32], config: object) -> None:
        """Raise DataError where these images cannot teach by this method. (M, P, P, C) in [0, 1], a sample."""
