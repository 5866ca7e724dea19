"""MAE: reconstruct three quarters of an image's patches from the rest (He et al., 2022, arXiv:2111.06377)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.models.backbones import Backbone
from ssl_app.models.positions import sines_and_cosines
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.decoders import psnr_gain
from ssl_app.training.task import Metrics, ScoreLimits

# of the decoder: the paper's (8 blocks, 512 wide) is for a ViT-L; two thirds of vit-tiny's width and a third of its
# depth keep about the same share of the computation (under 10 % a token in section 3)
WIDTH, HEADS, BLOCKS = 128, 4, 2
LEAST_VARIANCE = 1e-6  # of a patch, as in the released code: what is flat is divided by no zero


@dataclass(frozen=True)
class MAEConfig:
    """Settings of the masked autoencoder."""

    masked: float = option(0.75, "share of the patches that is hidden", at_least=0.05, at_most=0.95)
    normalize_patches: bool = option(
        True, "predict each patch less its own mean, over its own deviation; no: pixels as they are"
    )


class MAE(Pretext[MAEConfig]):
    """The encoder sees the visible patches only; a light decoder draws the hidden ones, and squared error compares.

    Encoded patches and a learned token for each hidden one go through the decoder in the order of the image, with
    fixed positions. The loss is of hidden patches alone (section 3). It needs a network on tokens, which can leave
    patches out. Score: by how many dB PSNR is higher than that of each hidden patch's own mean or, without
    normalization, of the set's.
    """

    Config = MAEConfig
    score = "psnr_gain"
    chance = 0.0
    limits = ScoreLimits(too_easy=30.0, no_signal=0.2)  # dB
    defaults = Defaults(
        epochs=100,  # each encodes a quarter of the patches, once
        optimizer="adamw",
        lr=1e-3,
        beta2=0.95,  # appendix A.1, table 8
        weight_decay=0.05,
        warmup=0.1,
        augment="crop",  # the paper's table 1e: cropping is all that helps
        backbone="vit-tiny",
    )

    def __init__(self, backbone: Backbone, config: MAEConfig, data: TrainingSet) -> None:
        """Raises SettingsError for a backbone that is no network on tokens."""
        super().__init__(backbone, config, data)
        network = backbone.tokens()
        self.patch, self.patches = network.patch, network.grid**2
        self.hidden = min(self.patches - 1, max(1, round(config.masked * self.patches)))  # patches of each image
        numbers = backbone.channels * self.patch**2
        self.decoder = Decoder(backbone.shape()[0], network.grid, numbers)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean squared error over the hidden patches, in deviations of the patch or of the set."""
        visible, hidden = self._split(batch)
        target = take(self._target(batch.images)[0], hidden)  # (B, H, P)
        loss = (take(self._drawn(batch.images, visible), hidden) - target).square().mean()
        return loss, {"psnr_gain": psnr_gain(target.square().mean(), loss.detach())}

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Of each image: itself, what the encoder was shown, and the hidden patches drawn.

        What is drawn has the mean and deviation of the true patch, which the network is not asked for.
        """
        images = batch.images.float()
        visible, _ = self._split(batch)
        patches, seen = self._shown(images, visible)
        _, mean, deviation = self._target(images)
        drawn = self._drawn(batch.images, visible) * deviation + mean
        rows = [patches, patches * seen, torch.where(seen, patches, drawn)]
        return {"reconstructed": torch.stack([joined(row, self.patch, self.backbone.channels) for row in rows], 1)}

    def backbone_inputs(self, batch: Batch) -> Tensor:
        """The images without their hidden patches, which the encoder is not given at all."""
        patches, seen = self._shown(batch.images.float(), self._split(batch)[0])
        return joined(patches * seen, self.patch, self.backbone.channels)

    def _shown(self, images: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Patches, and which of them are visible. -> (B, T, P), (B, T, 1) bool."""
        patches = cut(images, self.patch)
        return patches, torch.zeros_like(patches[..., :1], dtype=torch.bool).scatter(1, visible[..., None], True)

    def _split(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Places of the visible and of the hidden patches, others in each image. -> (B, V), (B, H) i64."""
        order = torch.rand(len(batch.images), self.patches, generator=batch.generator).argsort(1)
        order = order.to(batch.images.device)
        return order[:, self.hidden :], order[:, : self.hidden]

    def _drawn(self, images: Tensor, visible: Tensor) -> Tensor:
        """Every patch as the decoder has it, in the order of the image. (B, C, S, S), (B, V) -> (B, T, P) f32."""
        encoded = self.backbone.encode(take(self.backbone.embed(images), visible))
        drawn: Tensor = self.decoder(encoded, visible)
        return drawn

    def _target(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches to be drawn; the mean and deviation that were taken off. -> (B, T, P), (B, T, 1) twice."""
        patches = cut(images.float(), self.patch)
        if not self.config.normalize_patches:
            zero = patches.new_zeros(*patches.shape[:2], 1)
            return patches, zero, zero + 1
        variance, mean = torch.var_mean(patches, 2, keepdim=True)
        deviation = (variance + LEAST_VARIANCE).sqrt()
        return (patches - mean) / deviation, mean, deviation


class Decoder(nn.Module):
    """Two narrow transformer blocks over all places of an image. (B, V, D), (B, V) -> (B, T, P) f32."""

    def __init__(self, features: int, grid: int, numbers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, WIDTH)
        self.hidden = nn.Parameter(torch.randn(WIDTH) * 0.02)  # stands at each place that is not visible
        self.register_buffer("positions", sines_and_cosines(grid, WIDTH), persistent=False)  # (T, 128)
        blocks = [EncoderBlock(HEADS, WIDTH, 4 * WIDTH, dropout=0.0, attention_dropout=0.0) for _ in range(BLOCKS)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(WIDTH, eps=1e-6))
        self.last = nn.Linear(WIDTH, numbers)

    def forward(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """The numbers of each patch, in the order of the image."""
        assert isinstance(self.positions, Tensor)
        entered = self.enter(encoded).to(self.hidden.dtype)
        everywhere = self.hidden.expand(len(encoded), len(self.positions), -1)
        tokens = everywhere.scatter(1, visible[..., None].expand_as(entered), entered)  # each at its own place
        tokens = self.blocks(tokens + self.positions)
        with torch.autocast(tokens.device.type, enabled=False):  # bf16 has 256 steps, fewer than pixels have
            drawn: Tensor = self.last(tokens.float())
        return drawn


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at some places of each image. (B, T, D), (B, n) -> (B, n, D)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def cut(images: Tensor, patch: int) -> Tensor:
    """Patches in rows from the top left, each channel by channel. (B, C, S, S) -> (B, T, C * p * p)."""
    count, channels, side, _ = images.shape
    grid = side // patch
    cells = images.reshape(count, channels, grid, patch, grid, patch)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(count, grid**2, channels * patch**2)


def joined(patches: Tensor, patch: int, channels: int) -> Tensor:
    """The images that were cut into these patches. (B, T, C * p * p) -> (B, C, S, S)."""
    count, places, _ = patches.shape
    grid = round(places**0.5)
    cells = patches.reshape(count, grid, grid, channels, patch, patch)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, grid * patch, grid * patch)
