"""Jigsaw: predict the order in which an image's tiles were shuffled (Noroozi & Favaro, 2016, arXiv:1603.09246)."""

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
from ssl_app.errors import Change, Fix, Notice, Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts import tiles
from ssl_app.pretext.parts.permutations import permutation_set
from ssl_app.training.batch_norm import of_the_batch
from ssl_app.training.task import Metrics, Needs, ScoreLimits

SIZES = {2: (24,), 3: (72, 504, 1512)}  # permutations there are for a grid, the default first
FRINGE = 1 / 32  # of a tile's side, that channels are moved apart by: 2 px of the paper's 64


@dataclass(frozen=True)
class JigsawConfig:
    """Settings of Jigsaw."""

    grid: Literal["auto", "2", "3"] = option("auto", "tiles a side; auto: 2 below 64 px, else 3")
    permutations: Literal["auto", "24", "72", "504", "1512"] = option(
        "auto", "permutations to classify; auto: 24 of four tiles, 72 of nine (the paper takes 1,000)"
    )
    per_image: int = option(8, "orders that each image is shown in, for one pass of the trunk", at_least=1)
    gap: float = option(0.06, "least distance of two tiles, as a share of a cell", at_least=0, at_most=0.4)
    jitter: float = option(0.19, "room that a tile moves in, as a share of a cell", at_least=0, at_most=0.4)
    color: Literal["move", "one", "keep"] = option(
        "move",
        "against the fringes of lenses, with three channels: move shifts them by a pixel or two, as others do, which "
        "hides some; one leaves each tile one of them, on all three",
    )
    gray: float = option(0.3, "share of images shown without their colors; with color move", at_least=0, at_most=1)


class Jigsaw(Pretext[JigsawConfig]):
    """The trunk sees each tile alone; what it finds is then put together in many orders.

    So an order costs a pass of the head, not of the trunk, and an image comes in several: no place can be learned
    by heart. Shortcuts are closed as in the paper: a gap and a random place in the cell (edges that go on), tiles of
    mean 0 and deviation 1 (light and contrast), and where there are three channels grays, and channels moved apart
    (the fringes of a lens; of wide ones too little: `color` one leaves none). Permutations are a group, not the
    paper's greedy set. The loader's views have no reflected border, as `light` has, which would give away where a
    tile is from.
    """

    Config = JigsawConfig
    needs = Needs(keeps_orientation=True)
    score = "accuracy"
    chance = 1 / 24
    limits = ScoreLimits(too_easy=0.97, no_signal=2 / 24)
    defaults = Defaults(
        epochs=60,
        augment="crop",  # a tile's brightness and contrast are taken away anyhow
    )
    # less of a whole image is border: variances of tiles were 1.8 times as large in the deepest layer (small ResNet,
    # digits), and kNN accuracy on 797 digits was .660 before and .680 after at 32 px, .640 and .642 at 64 px
    recalibrates_batch_norm = True

    permutations: Tensor

    def __init__(self, backbone: Backbone, config: JigsawConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.layout = tiles.lay_out(backbone.image_size, config.grid, config.gap, config.jitter)
        if config.color == "move" and backbone.channels == 3 and self.layout.jitter == 0:
            raise SettingsError(
                f"a jitter of {config.jitter:g} leaves no pixel to move channels by",
                fix=(Change("jitter", "a larger"), Set("color", "one")),
            )
        chosen = permutation_set(_size(config, self.layout.grid, self.layout.image))
        self.register_buffer("permutations", chosen, persistent=False)  # (K, T)
        count = len(chosen)
        if config.per_image > count:
            raise SettingsError(
                f"{config.per_image} orders per image are requested, there are {count} of {self.layout.tiles} tiles",
                fix=(Set("per_image", count), Fix("less")),
            )
        self.per_image, self.gray, self.color = config.per_image, config.gray, config.color
        self.chance = 1 / count  # type: ignore[misc]  # the base has it of the class, here it is by the settings
        self.limits = ScoreLimits(too_easy=0.97, no_signal=2 / count)  # type: ignore[misc]  # the same
        self.side = tiles.trunk_side(self.layout, backbone)
        self.notes = tiles.remarks(self.layout, self.side)
        features = int(torch.Size(backbone.shape()).numel())
        width = tiles.width_of(features)
        last = nn.Linear(4 * width, count)
        nn.init.normal_(last.weight, std=0.01)  # the loss starts at log K
        self.embed = tiles.embedding(features)
        self.head = nn.Sequential(
            nn.Linear(self.layout.tiles * width, 4 * width, bias=False),
            nn.BatchNorm1d(4 * width),
            nn.ReLU(inplace=True),
            last,
        )

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy over images and orders; the accuracy of the order, in [0, 1]."""
        cut = self._cut(batch)
        orders = self._orders(batch, self.per_image)  # (B, P)
        logits = self._logits(self._tile_features(cut, batch), orders)  # (B * P, K)
        targets = orders.flatten()
        accuracy = (logits.detach().argmax(1) == targets).float().mean()
        return functional.cross_entropy(logits, targets), {"accuracy": accuracy}

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Each image, its tiles as shuffled, and as the network puts them back."""
        cut = self._cut(batch)
        orders = self._orders(batch, 1)
        with of_the_batch(self.backbone):  # its statistics are of whole images by now
            logits = self._logits(self._tile_features(cut, batch), orders)
        shuffled = shuffle(cut, self.permutations[orders[:, 0]])
        back = shuffle(shuffled, self.permutations[logits.argmax(1)].argsort(1))
        cell, side = self.layout.cell, batch.images.shape[-1]
        rows = [batch.images, tiles.sheet(shuffled, cell, side), tiles.sheet(back, cell, side)]
        return {"puzzles": torch.stack(rows, 1)}

    @classmethod
    def check(cls, images: NDArray[np.float32], config: JigsawConfig) -> Sequence[Notice]:
        """Raise DataError where nearly all images show something in one tile at most."""
        tiles.refuse_flat(images, config.grid, "jigsaw")
        return ()

    def _cut(self, batch: Batch) -> Tensor:
        """Tiles as they are cut, before they are standardized. -> (B, T, C, t, t)."""
        images, layout = batch.images, self.layout
        offsets = tiles.draw_offsets(layout, len(images), batch.generator)
        if images.shape[1] == 3 and self.color == "move":
            gray = torch.rand(len(images), generator=batch.generator) < self.gray  # (B,)
            mean = images.mean(1, keepdim=True)
            images = torch.where(gray.to(images.device)[:, None, None, None], mean, images)
            apart = max(1, round(FRINGE * layout.tile))
            moved = torch.randint(-apart, apart + 1, (len(images), layout.tiles, 3, 2), generator=batch.generator)
            moved[gray] = 0
            offsets = (offsets + moved).clamp(0, layout.jitter)  # within the cell: the gap is kept
        return tiles.cut(images, layout, offsets)

    def _orders(self, batch: Batch, count: int) -> Tensor:
        """Numbers of permutations, for each image all different and all equally likely. -> (B, count)."""
        drawn = torch.rand(len(batch.images), len(self.permutations), generator=batch.generator)
        return drawn.topk(count, 1).indices.to(batch.images.device)

    def _tile_features(self, cut: Tensor, batch: Batch) -> Tensor:
        """What each tile is described by, whatever its place. (B, T, C, t, t) -> (B, T, E)."""
        shown = tiles.standardize(cut)
        if self.color == "one" and shown.shape[2] == 3:
            shown = tiles.one_channel(shown, batch.generator)
        images = tiles.as_images(shown, self.side, batch.images)
        features: Tensor = self.embed(self.backbone(images).flatten(1))
        return features.view(*cut.shape[:2], -1)

    def _logits(self, features: Tensor, orders: Tensor) -> Tensor:
        """(B, T, E) of tiles in their own order, (B, P) orders -> (B * P, K)."""
        count, per_image = orders.shape
        shown = self.permutations[orders]  # (B, P, T) the tile that is seen at each place
        image = torch.arange(count, device=features.device)[:, None, None]
        logits: Tensor = self.head(features[image, shown].view(count * per_image, -1))
        return logits.float()


def shuffle(cut: Tensor, permutations: Tensor) -> Tensor:
    """At place j the tile p[j]. (B, T, ...), (B, T) -> (B, T, ...); by `p.argsort()` it is undone."""
    return cut[torch.arange(len(cut), device=cut.device)[:, None], permutations]


def _size(config: JigsawConfig, grid: int, image: int) -> int:
    """How many permutations; raises SettingsError where the grid has no set of that size."""
    sizes = SIZES[grid]
    size = sizes[0] if config.permutations == "auto" else int(config.permutations)
    if size not in sizes:
        other = 5 - grid
        larger = (("image_size", tiles.THREE_FROM),) if image < tiles.THREE_FROM and other == 3 else ()
        raise SettingsError(
            f"{size} permutations are of {other**2} tiles, the grid has {grid}x{grid}",
            fix=(Set("permutations", sizes[0]), Set("grid", other, larger)),
        )
    return size
