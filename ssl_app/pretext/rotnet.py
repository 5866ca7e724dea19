"""RotNet: predict by how many quarter turns an image was rotated (Gidaris et al., 2018, arXiv:1803.07728)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Augmentation, Frame, Pipeline, crop, mirrored
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import build_head
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.training.task import Metrics, Needs, ScoreLimits

TURNS = 4
SMALL = 48  # pixels, up to which images are shifted by up to an eighth; beyond, a part of at least LEAST_AREA is cut
LEAST_AREA = 0.08


@dataclass(frozen=True)
class RotNetConfig:
    """Settings of RotNet."""

    rotation_head: Literal["auto", "linear", "mlp"] = option(
        "auto",
        "classifier of the turn; auto: linear on up to 1,024 features, else three layers, as for AlexNet",
    )


class RotNet(Pretext[RotNetConfig]):
    """All four turns of each image are in one batch (section 3.1), so batch statistics say nothing of the label.

    Turns are exact, of the square that the loader cut: nothing is interpolated and no border is
    filled, which would give the turn away. Mirroring happens before, in the loader, alike for all four.
    """

    Config = RotNetConfig
    needs = Needs(keeps_orientation=True)
    progressive_resizing = True
    defaults = Defaults(augment=None)
    score = "accuracy"
    chance = 1 / TURNS
    limits = ScoreLimits(too_easy=0.97, no_signal=0.35)

    def __init__(self, backbone: Backbone, config: RotNetConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        shape = backbone.shape()
        kind = config.rotation_head
        if kind == "auto":
            kind = "linear" if len(shape) == 1 and shape[0] <= 1024 else "mlp"
        self.head = build_head(kind, shape, TURNS)

    def augmentation(self, frame: Frame) -> Augmentation:
        """The paper's: shifts of images of CIFAR's size, random parts of larger ones (its code, config/)."""
        if frame.image_size <= SMALL:
            return transforms.light(frame)
        return Pipeline(frame, [crop(frame, LEAST_AREA), *mirrored(frame)])

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy over images and turns; accuracy of the turn, in [0, 1]."""
        turned, turns = turn(batch.images)
        logits = self.head(self.backbone(turned)).float()  # (4B, 4)
        accuracy = (logits.detach().argmax(1) == turns).float().mean()
        return functional.cross_entropy(logits, turns), {"accuracy": accuracy}


def turn(images: Tensor) -> tuple[Tensor, Tensor]:
    """Every image in all four turns, counter-clockwise, turn by turn. (B, C, S, S) -> (4B, C, S, S), (4B,)."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    turned = torch.cat([torch.rot90(images, k, (2, 3)) for k in range(TURNS)])
    turned = turned.contiguous(memory_format=torch.channels_last) if channels_last else turned.contiguous()
    return turned, torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
