"""Autoencoder: reconstruct a corrupted image (Vincent et al., 2010, JMLR 11; masks: arXiv:2111.06377)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Change, Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.decoders import Decoder, mean_within, psnr_gain
from ssl_app.training.batch_norm import of_the_batch
from ssl_app.training.task import Metrics, ScoreLimits

BLOCKS = 8  # a side: single pixels could be told from their neighbors, without knowing what the image shows
PLAIN_CODE = 1 / 8  # of the image's numbers, where the code alone keeps the network from copying
LEAST_DEVIATION = 0.1  # of an image, in deviations of the set: what is flat is not blown up into noise


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the autoencoder."""

    corruption: Literal["mask", "noise", "none"] = option(
        "mask", "what is undone: hidden blocks, Gaussian noise, or nothing but a small code"
    )
    share: float = option(0.5, "of the image that mask hides, in 8 x 8 blocks", at_least=0.02, at_most=0.98)
    sigma: float = option(
        0.8,
        "deviation of noise, where the set's pixels have 1; .8 is about .2 of the range of photographs",
        at_least=0,
    )
    code: int | None = option(
        None,
        "channels that the trunk's map is cut to; default: none cut, an eighth of the image with none",
        at_least=1,
    )
    own_contrast: bool = option(
        False, "draw each image less its own mean, over its own deviation: brightness then does not rule the loss"
    )


class Autoencoder(Pretext[AutoencoderConfig]):
    """The trunk sees the damaged image, a small decoder draws the clean one, and squared error compares the two.

    Of masked images only what was hidden is compared: nothing leads around the trunk, and what copies the rest
    through it cannot tell the hidden part. Score: by how many dB PSNR is higher than that of the damaged image or,
    where nothing is damaged, than that of the set's mean color.
    """

    Config = AutoencoderConfig
    score = "psnr_gain"
    chance = 0.0
    limits = ScoreLimits(too_easy=30.0, no_signal=0.5)  # dB
    defaults = Defaults(
        epochs=60,
        optimizer="adamw",
        lr=1e-3,
    )
    recalibrates_batch_norm = True  # half of a masked image is 0

    def __init__(self, backbone: Backbone, config: AutoencoderConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        if config.corruption == "noise" and config.sigma == 0:
            raise SettingsError(
                "noise of sigma 0 damages nothing", fix=(Change("sigma", "a larger"), Set("corruption", "none"))
            )
        self.layer = backbone.map_layer()
        depth, *sides = backbone.shape(self.layer)
        width = code_width(config, backbone, math.prod(sides))
        self.code: nn.Module = nn.Identity() if width is None else nn.Conv2d(depth, width, 1)
        self.decoder: nn.Module = Decoder((width or depth, *sides), backbone.channels, backbone.image_size)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean squared error of what is to be drawn, in deviations of the set or, by request, of the image."""
        damaged, where = self._damaged(batch)
        clean, mean, deviation = self._target(batch.images)
        loss = mean_within((self._drawn(damaged) - clean).square(), where)
        # what masks leave is the mean, which is 0
        left = (damaged.float() - mean) / deviation if self.config.corruption == "noise" else torch.zeros_like(clean)
        before = mean_within((left - clean).square(), where)
        return loss, {"psnr_gain": psnr_gain(before, loss.detach())}

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Of each image: itself, what the network was shown, and what it made of that."""
        damaged, where = self._damaged(batch)
        _, mean, deviation = self._target(batch.images)
        with of_the_batch(self.backbone):  # its statistics are of whole images by now
            restored = torch.where(where, self._drawn(damaged) * deviation + mean, batch.images.float())
        return {"restored": torch.stack([batch.images.float(), damaged.float(), restored], 1)}

    def _drawn(self, damaged: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, S, S) f32."""
        drawn: Tensor = self.decoder(self.code(self.backbone(damaged, self.layer)))
        return drawn.float()

    def _damaged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Each image damaged in a way of its own, and what is to be drawn of it. -> (B, C, S, S), (B, 1, S, S)."""
        images = batch.images
        everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
        if self.config.corruption == "noise":
            noise = torch.randn(images.shape, generator=batch.generator).to(images.device, non_blocking=True)
            return images + self.config.sigma * noise, everywhere
        if self.config.corruption == "mask":
            hidden = blocks(len(images), images.shape[-1], self.config.share, batch.generator).to(images.device)
            return images.masked_fill(hidden, 0), hidden
        return images, everywhere

    def _target(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is to be drawn; the mean and deviation that were taken off. -> (B, C, S, S), (B, 1, 1, 1) twice."""
        images = images.float()
        mean, deviation = images.new_zeros(len(images), 1, 1, 1), images.new_ones(len(images), 1, 1, 1)
        if self.config.own_contrast:
            deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True, correction=0)
            deviation = deviation.clamp_min(LEAST_DEVIATION)
        return (images - mean) / deviation, mean, deviation


def code_width(config: AutoencoderConfig, backbone: Backbone, pixels: int) -> int | None:
    """Channels of the code, for a map of so many pixels; None where the trunk's own map is the code.

    Raises SettingsError for images that are not damaged and a code as large as they are: it would be a copy.
    """
    if config.corruption != "none":
        return config.code
    numbers = backbone.channels * backbone.image_size**2
    width = config.code or max(1, int(PLAIN_CODE * numbers / pixels))
    if width * pixels >= numbers:
        fits = (numbers - 1) // pixels
        smaller = (Set("code", max(1, int(PLAIN_CODE * numbers / pixels))),) if fits else ()
        raise SettingsError(
            f"a code of {width} x {pixels} numbers can copy an image of {numbers}",
            expected="fewer",
            fix=(*smaller, Set("corruption", "mask")),
        )
    return width


def blocks(count: int, side: int, share: float, generator: torch.Generator) -> Tensor:
    """Random blocks of an 8 x 8 grid, others in each image, as many in all. -> (B, 1, S, S), true where hidden."""
    order = torch.rand(count, BLOCKS**2, generator=generator).argsort(1).argsort(1)
    chosen = order < round(share * BLOCKS**2)
    grid = chosen.view(count, 1, BLOCKS, BLOCKS).float()
    return functional.interpolate(grid, size=(side, side), mode="nearest") > 0.5
