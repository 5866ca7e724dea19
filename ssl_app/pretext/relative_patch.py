"""Relative patch: predict on which side of a tile another lies (Doersch et al., 2015, arXiv:1505.05192)."""

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
from ssl_app.errors import Notice
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts import tiles
from ssl_app.training.batch_norm import of_the_batch
from ssl_app.training.task import Metrics, Needs, ScoreLimits

# (rows down, columns to the right) of direction k; the opposite of k is 7 - k
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
NOISE = 0.01  # deviation of what takes a dropped channel's place, in that of the channel which is kept


@dataclass(frozen=True)
class RelativePatchConfig:
    """Settings of RelativePatch."""

    grid: Literal["auto", "2", "3"] = option("auto", "tiles a side; auto: 2 below 64 px, else 3")
    gap: float = option(
        0.12, "least distance of two tiles, as a share of a cell; the paper's is 0.24", at_least=0, at_most=0.4
    )
    jitter: float = option(
        0.12, "room that a tile moves in, as a share of a cell; the paper's is 0.1", at_least=0, at_most=0.4
    )
    color: Literal["one", "drop", "project", "keep"] = option(
        "one",
        "against the fringes of lenses, with three channels: one leaves each tile one of them, shown on all three; "
        "drop puts noise into the others, as the released code does; project takes out what green and magenta "
        "differ by, and leaves fringes in part",
    )


class RelativePatch(Pretext[RelativePatchConfig]):
    """Every pair of neighboring tiles is classified, in both orders, after one pass of the trunk over the tiles.

    Directions weigh the same, however many pairs lie so: a grid of 3x3 has six pairs side by side, four across a
    corner. The first layer of the head is a sum of a half for each tile, so it is computed for tiles, not for pairs.
    With three channels there is one more shortcut: lenses spread colors from the middle outwards, which tells
    where in the image a tile was (section 3.1). In texture with fringes of 1 to 2 px and nothing else to go by, a
    small network found .12 of the places where colors were dropped, .92 where projected, all where they were kept
    (one run each, tests/claim). One channel on all three leaves no fringe either, and the first layer answers to a
    whole image as it did to tiles: .361 by neighbors and .443 linear on CIFAR-10, where dropping had .347 and .416
    (one run each of 4,000 steps). The loader's views have no reflected border, as `light` has, which would tell too.
    """

    Config = RelativePatchConfig
    needs = Needs(keeps_orientation=True)
    score = "accuracy"
    chance = 1 / len(DIRECTIONS)
    limits = ScoreLimits(too_easy=0.97, no_signal=0.18)
    defaults = Defaults(
        epochs=60,
        augment="crop",  # a tile's brightness and contrast are taken away anyhow
    )
    recalibrates_batch_norm = True  # see jigsaw

    first: Tensor
    second: Tensor
    directions: Tensor
    weights: Tensor

    def __init__(self, backbone: Backbone, config: RelativePatchConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.color = config.color
        self.layout = tiles.lay_out(backbone.image_size, config.grid, config.gap, config.jitter)
        self.side = tiles.trunk_side(self.layout, backbone)
        self.notes = tiles.remarks(self.layout, self.side)
        for name, values in zip(("first", "second", "directions"), neighbors(self.layout.grid), strict=True):
            self.register_buffer(name, values, persistent=False)  # (P,) each
        often = torch.bincount(self.directions, minlength=len(DIRECTIONS))
        self.register_buffer("weights", 1 / (len(DIRECTIONS) * often[self.directions]), persistent=False)
        features = int(torch.Size(backbone.shape()).numel())
        width = tiles.width_of(features)
        last = nn.Linear(4 * width, len(DIRECTIONS))
        nn.init.normal_(last.weight, std=0.01)  # the loss starts at log 8
        self.embed = tiles.embedding(features)
        self.join = nn.Linear(2 * width, 4 * width, bias=False)
        self.head = nn.Sequential(nn.BatchNorm1d(4 * width), nn.ReLU(inplace=True), last)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy over images and directions; the accuracy of the direction, in [0, 1]."""
        logits = self._logits(self._cut(batch), batch)  # (B, P, 8)
        targets = self.directions.expand(len(logits), -1)
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        right = (logits.detach().argmax(2) == targets).float()
        # no matrix product, which autocast would round to bf16
        loss, accuracy = ((values * self.weights).sum(1).mean() for values in (losses, right))
        return loss, {"accuracy": accuracy}

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Each image, a tile among its neighbors, and where the network puts them around it."""
        cut = self._cut(batch)
        middle = self.layout.tiles // 2 if self.layout.grid == 3 else 0
        central = self.first == middle  # (P,)
        with of_the_batch(self.backbone):  # its statistics are of whole images by now
            logits = self._logits(cut, batch)
        log_likely, guesses = logits[:, central].log_softmax(2).max(2)  # (B, Q)
        around = cut[:, self.second[central]]  # (B, Q, C, t, t)
        targets = self.directions[central].expand_as(guesses)
        cell, side = self.layout.cell, batch.images.shape[-1]
        rows = [batch.images]
        for directions in (targets, guesses):
            rows.append(tiles.sheet(ring(cut[:, middle], around, directions, log_likely), cell, side))
        return {"neighbors": torch.stack(rows, 1)}

    @classmethod
    def check(cls, images: NDArray[np.float32], config: RelativePatchConfig) -> Sequence[Notice]:
        """Raise DataError where nearly all images show something in one tile at most."""
        tiles.refuse_flat(images, config.grid, "relative-patch")
        return ()

    def _cut(self, batch: Batch) -> Tensor:
        """Tiles before they are standardized. -> (B, T, C, t, t)."""
        offsets = tiles.draw_offsets(self.layout, len(batch.images), batch.generator)
        return tiles.cut(batch.images, self.layout, offsets)

    def _shown(self, cut: Tensor, generator: torch.Generator) -> Tensor:
        """Tiles as the trunk sees them. (B, T, C, t, t) -> the same."""
        if cut.shape[2] != 3 or self.color == "keep":
            return tiles.standardize(cut)
        if self.color == "project":
            return tiles.standardize(project(cut))
        if self.color == "one":
            return tiles.one_channel(tiles.standardize(cut), generator)
        return drop(tiles.standardize(cut), generator)

    def _logits(self, cut: Tensor, batch: Batch) -> Tensor:
        """Of every pair of neighbors. (B, T, C, t, t) -> (B, P, 8)."""
        images = tiles.as_images(self._shown(cut, batch.generator), self.side, batch.images)
        features = self.embed(self.backbone(images).flatten(1))  # (B * T, E)
        halves = [functional.linear(features, weight) for weight in self.join.weight.chunk(2, dim=1)]
        one, other = (half.view(*cut.shape[:2], -1) for half in halves)  # (B, T, H) each
        pairs = one[:, self.first] + other[:, self.second]  # (B, P, H)
        logits: Tensor = self.head(pairs.flatten(0, 1)).float()
        return logits.view(*pairs.shape[:2], -1)


def neighbors(grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of neighboring cells, in both orders: one, the other, direction from one to other, (P,) each."""
    cells = [divmod(number, grid) for number in range(grid**2)]
    pairs = [
        (one, cells.index((row + down, column + right)), direction)
        for one, (row, column) in enumerate(cells)
        for direction, (down, right) in enumerate(DIRECTIONS)
        if (row + down, column + right) in cells
    ]
    one, other, directions = torch.tensor(pairs).unbind(1)
    return one, other, directions


def project(cut: Tensor) -> Tensor:
    """Without the direction (-1, 2, -1) of color, from magenta to green (section 3.1). (..., 3, t, t) -> the same.

    In deviations of the set, as images come.
    """
    green = cut.new_tensor((-1.0, 2.0, -1.0))[:, None, None]
    return cut - (cut * green).sum(-3, keepdim=True) * green / 6


def drop(cut: Tensor, generator: torch.Generator) -> Tensor:
    """One channel of each tile, drawn; noise in the others, of torch's own generator, so made where the tiles are.

    Section 3.1. Standardized (B, T, C, t, t) -> the same.
    """
    count, places, channels = cut.shape[:3]
    kept = torch.randint(channels, (count, places, 1), generator=generator) == torch.arange(channels)  # (B, T, C)
    return torch.where(kept.to(cut.device)[..., None, None], cut, NOISE * torch.randn_like(cut))


def ring(middle: Tensor, around: Tensor, directions: Tensor, likely: Tensor) -> Tensor:
    """A 3x3 of tiles: where two are put in one place, the likelier lies on top.

    (B, C, t, t), (B, Q, C, t, t), (B, Q), (B, Q) -> (B, 9, C, t, t).
    """
    image = torch.arange(len(around), device=around.device)
    laid = around.new_zeros(len(around), 9, *around.shape[2:])
    laid[:, 4] = middle
    places = directions + (directions > 3).long()  # nine places; the one in the middle is no direction
    for turn in likely.argsort(1).unbind(1):  # (B,)
        laid[image, places[image, turn]] = around[image, turn]
    return laid
