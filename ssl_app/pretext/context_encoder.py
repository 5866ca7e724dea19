"""Context encoder: inpaint what was cut out of an image (Pathak et al., 2016, arXiv:1604.07379)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Notice, Set
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.decoders import Decoder, mean_within, psnr_gain
from ssl_app.training.batch_norm import of_the_batch
from ssl_app.training.task import Metrics, Needs, ScoreLimits

AREA = 1 / 4  # of the image that is hidden, at most (section 3.3)
OVERLAP = 4 / 128  # of the side: what is drawn of the middle reaches that far into what can be seen (released code)
OVERLAP_WEIGHT = 10.0  # of the error there
CELLS = 4  # a side of the noise that random regions are cut from: holes of about a quarter of the side
JUDGE_WIDTHS = (32, 64, 128, 256)
SURE = 0.95  # accuracy of the discriminator beyond which there is a warning
JUDGE_SIDE = 4  # pixels of the map that the discriminator decides by


@dataclass(frozen=True)
class ContextEncoderConfig:
    """Settings of the context encoder."""

    region: Literal["random", "center"] = option(
        "random", "what is hidden, up to a quarter: blots, the best for features (section 5.2), or the middle"
    )
    adversarial: float = option(
        0.001,
        "share of the loss in which a discriminator must take what is drawn for real; 0: none",
        at_least=0,
        at_most=0.999,
    )


class ContextEncoder(Pretext[ContextEncoderConfig]):
    """The generator, trunk and decoder, draws the hidden part; the discriminator separates inpainted from real.

    The loss looks at the hidden part; of the middle, also at a band inside its border that can be seen, whose squared
    error counts tenfold (with random regions the released code has none: copying it would be most of the loss).
    Holes are cut out of the normalized image, another one of each (the released code takes one a batch), and filled
    with 0. The discriminator is given the middle, or with random regions the whole image, of real pixels but for
    what was drawn. It has no batch norm, which would tell real from drawn by the batch they come in, and spectral
    norm keeps it from being too sure.

    Score: by how many dB PSNR in the hole is higher than that of the mean of what can be seen of the image.
    """

    Config = ContextEncoderConfig
    players = ("generator", "discriminator")
    needs = Needs(value_range="symmetric", smallest_image=16)
    score = "psnr_gain"
    chance = 0.0
    limits = ScoreLimits(too_easy=30.0, no_signal=0.5)  # dB
    defaults = Defaults(
        epochs=60,
        optimizer="adamw",
        # CIFAR-10, 5 minutes: .372 by neighbors and .427 linear; .361 and .409 with half the rate (one run each)
        lr=2e-3,
        lr_scale={"backbone": 1.0, "decoder": 1.0, "discriminator": 0.1},  # as in the released code
        momentum=0.5,
    )
    recalibrates_batch_norm = True  # up to a quarter of an image is 0

    def __init__(self, backbone: Backbone, config: ContextEncoderConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.layer = backbone.map_layer()
        side = backbone.image_size
        self.decoder = Decoder(backbone.shape(self.layer), backbone.channels, side)
        self.discriminator = Discriminator(backbone.channels, side // 2 if config.region == "center" else side)
        self.drawn: dict[int, Tensor] = {}  # what the discriminator is to see in this step, by the batch's seed

    def parts(self) -> Mapping[str, nn.Module]:
        """The discriminator has a rate of its own: it learns sooner than the generator."""
        return {"backbone": self.backbone, "decoder": self.decoder, "discriminator": self.discriminator}

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """Trunk and decoder, or the discriminator."""
        modules = (self.discriminator,) if player == "discriminator" else (self.backbone, self.decoder)
        return (parameter for module in modules for parameter in module.parameters())

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """The player's loss; the score, and how often the discriminator is right, in [0, 1]."""
        return self._maker(batch) if player == "generator" else self._discriminate(batch)

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of a discriminator that is always right, and so teaches nothing."""
        if len(history) < 2 or min(row.get("discriminator_accuracy", 0.0) for row in history[-2:]) <= SURE:
            return None
        return Notice(
            f"the discriminator of context-encoder is right in {history[-1]['discriminator_accuracy']:.0%} of cases: "
            f"after epoch {len(history)} it has little to teach",
            fixes=(Set("adversarial", 0),),
        )

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Of each image: itself, what is left of it, and the hole filled."""
        images = batch.images.float()
        hole, _ = self._regions(batch)
        hidden = images.masked_fill(hole, 0)
        with of_the_batch(self.backbone):  # its statistics are of whole images by now
            filled = torch.where(hole, self._draw(hidden), images)
        return {"inpainted": torch.stack([images, hidden, filled], 1)}

    def _maker(self, batch: Batch) -> tuple[Tensor, Metrics]:
        images = batch.images.float()
        hole, band = self._regions(batch)
        made = self._draw(batch.images.masked_fill(hole, 0))
        loss = region_loss(made, images, hole, band)
        share = self.config.adversarial
        if share > 0:
            shown = self._shown(torch.where(hole | band, made, images))
            loss = (1 - share) * loss + share * functional.softplus(-self.discriminator(shown)).mean()
            if self.training:  # the discriminator's turn comes next: the trunk need not run again
                self.drawn[batch.seed] = shown.detach()
        seen = (images * ~hole).sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)  # (B, C, 1, 1)
        before = mean_within((seen - images).square(), hole)
        after = mean_within((made.detach() - images).square(), hole)
        return loss, {"psnr_gain": psnr_gain(before, after)}

    def _discriminate(self, batch: Batch) -> tuple[Tensor, Metrics]:
        if self.config.adversarial == 0:  # nothing to discriminate, and a gradient of nothing
            return torch.stack([p.sum() for p in self.discriminator.parameters()]).sum() * 0, {}
        drawn = self.drawn.pop(batch.seed, None)
        if drawn is None:  # called without the generator before it
            with torch.no_grad():
                hole, band = self._regions(batch)
                made = self._draw(batch.images.masked_fill(hole, 0))
                drawn = self._shown(torch.where(hole | band, made, batch.images.float()))
        both = torch.cat([self._shown(batch.images.float()), drawn])
        of_real, of_drawn = self.discriminator(both).chunk(2)  # each (B,)
        loss = functional.softplus(-of_real).mean() + functional.softplus(of_drawn).mean()
        right = torch.cat([of_real > 0, of_drawn < 0])
        return loss, {"discriminator_accuracy": right.float().mean()}

    def _draw(self, hidden: Tensor) -> Tensor:
        """A whole image, of which the hole counts. (B, C, S, S) -> (B, C, S, S) f32 in [-1, 1]."""
        return torch.tanh(self.decoder(self.backbone(hidden, self.layer)))

    def _shown(self, images: Tensor) -> Tensor:
        """The discriminator's input: (B, C, S, S) -> (B, C, S / 2, S / 2) with the middle hidden, else all of it."""
        if self.config.region == "random":
            return images
        start, stop = middle(images.shape[-1])
        return images[..., start:stop, start:stop]

    def _regions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Where pixels are hidden, and the band that is seen and drawn with them. -> (B, 1, S, S) twice."""
        count, side = len(batch.images), batch.images.shape[-1]
        if self.config.region == "center":
            hole, band = (mask.to(batch.images.device).expand(count, -1, -1, -1) for mask in center_hole(side))
            return hole, band
        hole = random_holes(count, side, batch.generator, batch.images.device)
        return hole, torch.zeros_like(hole)


class Discriminator(nn.Module):
    """Strided convolutions and one linear layer: above 0 for what it holds for real. (B, C, S, S) -> (B,).

    Computed in float32: bf16 rounds what real and drawn pixels differ by.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side > JUDGE_SIDE:
            width = JUDGE_WIDTHS[min(len(layers) // 2, len(JUDGE_WIDTHS) - 1)]
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, 2, padding=1)), nn.LeakyReLU(0.2)]
            channels, side = width, side // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), spectral_norm(nn.Linear(channels * side**2, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of being real."""
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.layers(images.float())
        return logits[:, 0]


def region_loss(made: Tensor, images: Tensor, hole: Tensor, band: Tensor) -> Tensor:
    """Squared error in the hole and, tenfold, in the band, over the pixels of both and no others. -> ()."""
    weights = hole + OVERLAP_WEIGHT * band
    return mean_within((made - images).square() * weights, hole | band)


def overlap(side: int) -> int:
    """PixelScaling of the band. 32 -> 1, 128 -> 4."""
    return max(1, round(OVERLAP * side))


def middle(side: int) -> tuple[int, int]:
    """Where half the side starts and stops, in the middle."""
    return (side - side // 2) // 2, (side - side // 2) // 2 + side // 2


def center_hole(side: int) -> tuple[Tensor, Tensor]:
    """The middle quarter of an image, less a band that can be seen; and the band. -> (1, 1, S, S) twice."""
    (start, stop), width = middle(side), overlap(side)
    drawn, hole = torch.zeros(2, 1, 1, side, side, dtype=torch.bool)
    drawn[..., start:stop, start:stop] = True
    hole[..., start + width : stop - width, start + width : stop - width] = True
    return hole, drawn & ~hole


def random_holes(count: int, side: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """The brightest quarter of smooth noise, another one for each image. -> (B, 1, S, S), true where hidden."""
    noise = torch.rand(count, 1, CELLS, CELLS, generator=generator).to(device, non_blocking=True)
    smooth = functional.interpolate(noise, size=(side, side), mode="bicubic", align_corners=False)
    pixels = smooth.flatten(1)
    kept = pixels.shape[1] - int(AREA * pixels.shape[1])
    return (pixels > pixels.kthvalue(kept, 1, keepdim=True).values).view_as(smooth)
