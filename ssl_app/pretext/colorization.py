"""Colorization: predict the colors of an image from its brightness (Zhang et al., 2016, arXiv:1603.08511)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import DataError, Fix, Notice, Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.decoders import STEADY, Decoder
from ssl_app.pretext.parts.lab import LUMA, SIGMA, ColorBins, SoftColors, lab_of, luma, rgb_of
from ssl_app.training.task import DatasetMap, Metrics, Needs

MANY_GRAY = 0.2  # share above which the user is warned
GRAY = 5.0  # an image in which neither |a| nor |b| is larger anywhere has no colors to learn (released code)
TEMPERATURE = 0.38  # of the annealed mean (section 2.3)
LARGEST_DRAWN = 28  # pixels: 313 numbers each are most of what the decoder costs; the paper draws 44 to 56
POINTS = 8  # a side: pixels of an image that are counted for the weights of colors
SEEN = 1e-5  # share below which a bin counts as one that never comes
MOST_WEIGHT = 10.0  # of a rare color, times the mean: on small sets a few pixels would rule the loss
SETTLED = 50  # rounds of clipping; each is a sum of 313 numbers
SCALE = 25.0  # ab of one unit of a regression's output, about what colors spread by
CHUNK = 32  # images that are looked at together
OTHERS = (Set("method", "rotnet"), Fix("jigsaw"), Fix("autoencoder"))  # that gray images serve as well


@dataclass(frozen=True)
class ColorizationConfig:
    """Settings of colorization."""

    target: Literal["bins", "regression"] = option(
        "bins", "313 bins of color, or the color itself, whose mean is gray where it could be either of two"
    )
    rebalancing: float = option(
        0.5,
        "with bins, how much more rare colors count; 0: all alike, 1: by the inverse of their share (section 2.2)",
        at_least=0,
        at_most=1,
    )


class Colorization(Pretext[ColorizationConfig]):
    """The trunk is given luma on all three channels, and a small decoder predicts the ab of Lab at half size or less.

    At the end luma is folded into the first convolution, so that the network gives of a color image what it gave of
    its luma. `commonest`, beside the first epoch's metrics, is the accuracy of always telling the commonest bin; with
    `rebalancing` a network may stay below. Images without color in a set of color images are left out of loss and
    score; `gray` is their share. Augmentation that shifts hues falsifies the colors.
    """

    Config = ColorizationConfig
    needs = Needs(channels=3, value_range="symmetric", keeps_colors=True)
    score = "accuracy"
    defaults = Defaults(
        epochs=60,
        optimizer="adamw",
        lr=1e-3,
    )

    weights: Tensor
    folded: Tensor

    def __init__(self, backbone: Backbone, config: ColorizationConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        convolutions_of_images(backbone)  # refuses now what could not be folded at the end
        self.layer = backbone.map_layer()
        self.side = drawn_side(backbone.image_size)
        self.bins = ColorBins()
        numbers, scale = (len(self.bins), 1.0) if config.target == "bins" else (2, STEADY)
        shape = backbone.shape(self.layer)
        self.decoder = Decoder(shape, numbers, self.side, narrowest=64, kernel=1, scale=scale)
        self.notes = (
            Notice("colorization leaves a network of brightness: where classes differ by color, fine-tune all of it"),
        )
        self.register_buffer("weights", torch.ones(len(self.bins)))
        self.register_buffer("folded", torch.zeros((), dtype=torch.bool))

    @classmethod
    def check(cls, images: NDArray[np.float32], config: ColorizationConfig) -> Sequence[Notice]:
        """Raise DataError where none of the images has a color; say so where many have none."""
        if images.shape[-1] != 3:
            raise DataError(
                f"colorization needs color images: these have {images.shape[-1]} channels",
                expected="3",
                fix=OTHERS,
            )
        pieces = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
        colored = sum(int(has_color(lab_of(torch.from_numpy(p).permute(0, 3, 1, 2))).sum()) for p in pieces)
        gray = 1 - colored / len(images)
        if colored:
            many = Notice(f"{gray:.0%} of the images are gray, and left out of colorization's loss")
            return (many,) * (gray > MANY_GRAY)
        raise DataError(
            f"colorization needs color images: {len(images)} of {len(images)} sampled images have no chroma",
            fix=OTHERS,
        )

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        """Before the first epoch, weigh the bins by how often they come in all images. -> share of the commonest."""
        if epoch == 0 and self.config.target == "bins":
            bins = map_dataset.local(self._some_bins)
            counts = torch.bincount(bins[bins >= 0].long(), minlength=len(self.bins))
            counts = map_dataset.all_reduce(counts.double())
            if float(counts.sum()) > 0:
                shares = smoothed(counts / counts.sum(), self.bins.centers)
                self.weights.copy_(weights_of(shares, self.config.rebalancing))
                return {"commonest": counts.max() / counts.sum()}
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy of soft bins, weighted by the true bin (equation 2), or squared distance.

        Over the pixels of images with color, as is the accuracy of the bin, in [0, 1].
        """
        ab, colored = self._targets(batch.images)
        colors = self.bins.encode(ab)
        drawn = self._drawn(batch.images)
        if self.config.target == "bins":
            errors = soft_cross_entropy(drawn, colors) * self.weights[colors.nearest]
            guessed = drawn.detach().argmax(1)
        else:
            errors = (drawn - ab / SCALE).square().sum(1)
            guessed = self.bins.nearest(drawn.detach() * SCALE)
        counted = colored[:, None, None].expand_as(errors)  # (B, h, w)
        count = counted.sum().clamp_min(1)
        hits = (guessed == colors.nearest) & counted
        metrics = {"accuracy": hits.sum() / count, "gray": 1 - colored.float().mean()}
        return (errors * counted).sum() / count, metrics

    def finish(self, map_dataset: DatasetMap) -> None:
        """Give the network color images from here on: fold luma into what sees them."""
        if not bool(self.folded):
            for convolution in convolutions_of_images(self.backbone):
                fold(convolution)
            self.folded.fill_(True)

    def features(self, images: Tensor) -> Tensor:
        """Of luma, which is all that the trunk sees before it is folded in."""
        found: Tensor = self.backbone(images if bool(self.folded) else _gray(images))
        return found

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Of each image: itself, its luma, and its lightness in the predicted colors."""
        images = batch.images.float()
        return {"colored": torch.stack([images, _gray(images), self.color(images)], 1)}

    def color(self, images: Tensor) -> Tensor:
        """The images in the colors that the network predicts. (B, 3, S, S) -> (B, 3, S, S), both in [-1, 1]."""
        lightness = lab_of((images.float() + 1) / 2)[:, :1]
        drawn = self._drawn(images)
        ab = self.bins.mean(drawn, TEMPERATURE) if self.config.target == "bins" else drawn * SCALE
        ab = functional.interpolate(ab, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return rgb_of(torch.cat([lightness, ab], 1)) * 2 - 1

    def _drawn(self, images: Tensor) -> Tensor:
        """Logits of the bins or ab, of luma alone. (B, 3, S, S) -> (B, 313 or 2, h, w)."""
        drawn: Tensor = self.decoder(self.backbone(_gray(images), self.layer))
        return drawn

    def _targets(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ab of each pixel to be drawn, and which images have color. -> (B, 2, h, w), (B,)."""
        lab = lab_of((images + 1) / 2)
        return functional.adaptive_avg_pool2d(lab[:, 1:], self.side), has_color(lab)

    def _some_bins(self, batch: Batch) -> Tensor:
        """The bins of a grid of pixels, -1 in images without color. -> (B, up to 64) int16: kept for all images."""
        ab, colored = self._targets(batch.images)
        step = -(-self.side // POINTS)
        bins = self.bins.nearest(ab[..., ::step, ::step]).flatten(1)
        return torch.where(colored[:, None], bins, -1).to(torch.int16)


def drawn_side(image_size: int) -> int:
    """Side of what is drawn: half the image's, or a smaller one by halves. 32 -> 16, 64 -> 16, 224 -> 28."""
    side = max(1, image_size // 2)
    while side > LARGEST_DRAWN:
        side = -(-side // 2)
    return side


def has_color(lab: Tensor) -> Tensor:
    """Whether any pixel of an image is off gray. (B, 3, H, W) -> (B,)."""
    return lab[:, 1:].abs().amax((1, 2, 3)) > GRAY


def soft_cross_entropy(logits: Tensor, colors: SoftColors) -> Tensor:
    """-sum_q z_q log softmax(logits)_q, (B, Q, h, w) -> (B, h, w), from the few bins that have a share."""
    return logits.logsumexp(1) - (colors.weight * logits.gather(1, colors.index)).sum(1)


def smoothed(shares: Tensor, centers: Tensor) -> Tensor:
    """Shares of the bins, each spread over those around it by a Gaussian; the sum stays. (Q,), (Q, 2) -> (Q,) f64."""
    kernel = torch.exp(-torch.cdist(centers.double(), centers.double()).square() / (2 * SIGMA**2))
    return shares.double() @ (kernel / kernel.sum(1, keepdim=True))


def weights_of(shares: Tensor, rebalancing: float) -> Tensor:
    """Weights of the bins, the inverse of their share mixed with a uniform one (equation 4). (Q,) -> (Q,) f64.

    The uniform part is over bins that come, and one that never does weighs what the rarest does. The mean weight of
    a pixel, sum of share times weight, is 1.
    """
    seen = shares > SEEN
    weights = 1 / (rebalancing * shares + (1 - rebalancing) / seen.sum())
    weights = torch.where(seen, weights, weights[seen].max())
    most = weights.max()
    for _ in range(SETTLED):  # to clip lowers the mean, and with it what is too much
        most = MOST_WEIGHT * (shares * weights.clamp_max(most)).sum()
    weights = weights.clamp_max(most)
    return weights / (shares * weights).sum()


def convolutions_of_images(backbone: Backbone) -> list[nn.Conv2d]:
    """The convolutions that are given the images themselves; found by a dry run.

    Raises SettingsError where something else is: luma could not be folded into that.
    """
    given: list[Tensor] = []
    users: list[nn.Module] = []

    def begin(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0])

    def use(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and inputs[0] is given[-1]:
            users.append(module)

    leaves = [m for m in backbone.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    hooks = [backbone.register_forward_pre_hook(begin), *(m.register_forward_pre_hook(use) for m in leaves)]
    try:
        backbone.dry_run()
    finally:
        for hook in hooks:
            hook.remove()
    found = [m for m in users if isinstance(m, nn.Conv2d) and m.groups == 1 and m.in_channels == len(LUMA)]
    if len(found) < max(1, len(users)):
        first = type(users[0]).__name__ if users else "a part of its own"
        raise SettingsError(
            f"colorization folds luma into a first convolution, and {backbone.name} begins with {first}",
            fix=(Set("backbone", "small-resnet"), Fix("another without a filter")),
        )
    return found


@torch.no_grad()
def fold(convolution: nn.Conv2d) -> None:
    """Let a convolution give of colors what it gave of their luma on three channels, in place.

    Padding stays right: the luma of a padded color is the padded luma.
    """
    weight = convolution.weight
    coefficients = torch.tensor(LUMA, dtype=weight.dtype, device=weight.device)
    weight.copy_(weight.sum(1, keepdim=True) * coefficients[:, None, None])


def _gray(images: Tensor) -> Tensor:
    """Luma on each of three channels. (B, 3, S, S) -> (B, 3, S, S)."""
    return luma(images).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
