"""Triplet: an image and its altered copy lie closer than any other image (Schroff et al., 2015, arXiv:1503.03832)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Change, DataError, Fix, Notice, Set, SettingsError, Switch
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.contrastive import (
    EMBEDDING,
    WIDEST,
    collapsed,
    embedding_std,
    nearest_pictures,
    partners,
    projector,
    retrieval,
    same_image,
)
from ssl_app.training.task import Metrics, Needs

TURN, SCALE, SHEAR, SHIFT = 15.0, 1.2, 8.0, 0.1  # largest of an affine copy: degrees, factor, degrees, share of side
FEWEST_ACTIVE = 0.05  # of the triplets, below which there is a warning
LEAST_DISTANCE = 1e-6  # below it, distances have no gradient: that of a root grows without bound at 0


@dataclass(frozen=True)
class TripletConfig:
    """Settings of the triplet network."""

    mining: Literal["semi-hard", "batch-hard"] = option(
        "semi-hard", "which negative a triplet takes, as FaceNet mines it"
    )
    margin: float = option(0.5, "by how much a negative must be farther than the positive, of 2 at most", at_least=0)
    affine: bool = option(False, "also turn, scale, shear and shift both views a little, filled by reflection")


class Triplet(Pretext[TripletConfig]):
    """Two views of an image are anchor and positive, each in turn; the negatives are the batch's other images.

    Both views are altered and go through the network in one batch, so that neither a border nor batch statistics
    tell which is which. A random negative is soon far enough away and teaches nothing more, so negatives are mined
    in the micro-batch: accumulated gradients and more processes make them fewer. A validation image comes in one
    view; its positive is an affine copy, the same each time. All negatives at once are SimCLR.
    """

    Config = TripletConfig
    needs = Needs(views=2, smallest_batch=2)
    score = "accuracy"
    defaults = Defaults(
        epochs=60,
        augment="strong",
    )

    def __init__(self, backbone: Backbone, config: TripletConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.compared_views = False
        self.head = projector(backbone, EMBEDDING, min(WIDEST, max(EMBEDDING, math.prod(backbone.shape()))))

    @classmethod
    def check(cls, images: NDArray[np.float32], config: TripletConfig) -> Sequence[Notice]:
        """Raise DataError where half of the images are copies of others: a copy is no negative."""
        pixels = np.rint(images * 255).astype(np.uint8).reshape(len(images), -1)
        copies = len(pixels) - len(np.unique(pixels, axis=0))
        if 2 * copies >= len(pixels):
            raise DataError(
                f"{copies} of {len(pixels)} images looked at are copies of others of them",
                expected="images that differ",
                fix=(Fix("take the copies out"), Change("method")),
            )
        return ()

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean hinge; the share of views whose nearest of the other views is their partner, and std of the embedding.

        `active` is the share of triplets that still teach: near 0, the margin is kept and nothing more is learned.
        """
        first, second = self._views(batch)
        embedding = self._embed(torch.cat([first, second]))  # (2B, 128)
        index = batch.index
        with torch.autocast(embedding.device.type, enabled=False):
            hinge = mined(embedding, index, self.config.margin, hardest=self.config.mining == "batch-hard")
            return hinge.mean(), {
                "accuracy": retrieval(embedding.detach(), index),
                "embedding_std": embedding_std(embedding.detach()),
                "active": (hinge.detach() > 0).float().mean(),
            }

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of embeddings that lie in one point, and of triplets that teach nothing any more."""
        notice = collapsed("triplet", history, Set("method", "simclr"))
        if notice is not None:
            return notice
        last = history[-1]
        if last["active"] < FEWEST_ACTIVE:
            return Notice(
                f"{last['active']:.0%} of the triplets still teach after epoch {len(history)}: the margin is kept",
                fixes=(Change("margin", "a larger"), Set("mining", "batch-hard"), Set("method", "simclr")),
            )
        return None

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """In each row an image, and those of the others that lie nearest to it, nearest first."""
        found = nearest_pictures(batch.images, self._embed(batch.images))
        return {} if found is None else {"nearest": found}

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Anchors and positives, each (B, C, S, S)."""
        first, second = batch.images, batch.views[-1]
        if len(batch.views) == 1:
            return first, warp(second, random_affine(len(second), batch.generator))
        if self.config.affine:
            first, second = (warp(view, random_affine(len(view), batch.generator)) for view in (first, second))
        if not self.compared_views:
            self.compared_views = True
            if len(first) > 1 and torch.equal(first, second):  # one may be of one value
                raise SettingsError(
                    "both views of every image are the same", fix=(Switch("affine"), Change("augment"))
                )
        return first, second

    def _embed(self, images: Tensor) -> Tensor:
        """Of length 1, float32. (B, C, S, S) -> (B, 128)."""
        return functional.normalize(self.head(self.backbone(images).flatten(1)).float(), dim=1)


def mined(embedding: Tensor, index: Tensor, margin: float, *, hardest: bool) -> Tensor:
    """max(0, d(a, p) - d(a, n) + margin) of every view as an anchor, d Euclidean; 0 without negatives. -> (2B,).

    n is the nearest negative (batch-hard, arXiv:1703.07737), or the nearest of those farther than the positive
    (semi-hard; FaceNet, section 3.2), and where there is none, the farthest. Arguments as for `nt_xent`.
    """
    partner = partners(len(index), index.device)
    with torch.no_grad():
        nearness = embedding @ embedding.t()  # falls as the distance rises
        same = same_image(index)
        if hardest:
            negative = nearness.masked_fill(same, -math.inf).argmax(1)
        else:
            too_near = nearness >= nearness.gather(1, partner[:, None])
            semi_hard = nearness.masked_fill(same | too_near, -math.inf)
            farthest = nearness.masked_fill(same, math.inf).argmin(1)
            negative = torch.where((~(same | too_near)).any(1), semi_hard.argmax(1), farthest)
    hinge = distance(embedding, embedding[partner]) - distance(embedding, embedding[negative]) + margin
    return hinge.clamp_min(0) * (~same).any(1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean, at least a millionth, with no gradient there. (B, D), (B, D) -> (B,)."""
    return (one - other).square().sum(1).clamp_min(LEAST_DISTANCE**2).sqrt()


def random_affine(count: int, generator: torch.Generator) -> Tensor:
    """Maps from a copy's places to its image's, about the center, in half sides. -> (count, 2, 3), on the CPU."""
    turn, scale, shear, right, down = torch.rand(5, count, generator=generator) * 2 - 1
    turn, shear = turn * math.radians(TURN), (shear * math.radians(SHEAR)).tan()
    cosine, sine, scale = turn.cos(), turn.sin(), SCALE**scale
    rows = [
        torch.stack([cosine, cosine * shear - sine], 1) * scale[:, None],
        torch.stack([sine, sine * shear + cosine], 1) * scale[:, None],
    ]
    shift = 2 * SHIFT * torch.stack([right, down], 1)
    return torch.cat([torch.stack(rows, 1), shift[:, :, None]], 2)


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Each image seen through its affine map; what lies outside is its reflection, so no wedge is filled in.

    (B, C, S, S), (B, 2, 3) -> (B, C, S, S), in the memory format that it came in. The identity copies.
    """
    side = images.shape[-1]
    # our own grid: torch's is rounded twice, and the identity would mix a millionth of the neighbors in
    place = (2 * torch.arange(side, device=images.device) + 1) / side - 1
    x, y = place[None, :, None], place[:, None, None]
    of_x, of_y, shift = maps.to(images.device, non_blocking=True)[:, None, None].unbind(4)  # each (B, 1, 1, 2)
    grid = of_x * x + of_y * y + shift  # (B, S, S, 2); no matrix product, which autocast would round to bf16
    warped = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return warped.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
