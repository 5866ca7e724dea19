"""SimCLR: contrastive learning, NT-Xent on two views of an image (Chen et al., 2020, arXiv:2002.05709)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Augmentation, Frame
from ssl_app.errors import Notice
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.contrastive import (
    LEAST_STEPS,
    collapsed,
    embedding_std,
    nearest_pictures,
    nt_xent,
    projector,
    retrieval,
    views_of,
)
from ssl_app.training.task import Metrics, Needs


@dataclass(frozen=True)
class SimCLRConfig:
    """Settings of SimCLR."""

    views: Literal["mixed", "light", "medium", "strong"] = option(
        "mixed", "strength of the random views; mixed: of half of the images strong, of half light"
    )
    temperature: float = option(0.2, "of the softmax; smaller looks at near images", at_least=0.01)


class SimCLR(Pretext[SimCLRConfig]):
    """NT-Xent on a projection of the features; the features before it are transferred.

    The negatives are the other images of one micro-batch: batches are not halved below 128, and with gradient
    accumulation or more processes the negatives are fewer. Validation images are scored in two views as well.
    """

    Config = SimCLRConfig
    needs = Needs(views=2, scoring_views=2, smallest_batch=2)
    score = "retrieval"
    progressive_resizing = True
    defaults = Defaults(
        epochs=100,
        batch_size=128,
        smallest_batch=128,
        least_steps=LEAST_STEPS,
        lr=0.1,
        weight_decay=1e-4,
        warmup=0.03,
        augment=None,
    )

    def __init__(self, backbone: Backbone, config: SimCLRConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.head = projector(backbone)

    def augmentation(self, frame: Frame) -> Augmentation:
        """Both views of an image from the same distribution."""
        return views_of(frame, self.config.views)

    def chance_at(self, batch_size: int) -> float:
        """One of the images of the batch."""
        return 1 / batch_size

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """NT-Xent; the share of views whose nearest view of the other kind is their partner, in [0, 1]."""
        embedding = self._embed(torch.cat([batch.views[0], batch.views[-1]]))  # (2B, E)
        with torch.autocast(embedding.device.type, enabled=False):
            metrics = {
                "retrieval": retrieval(embedding.detach(), batch.index),
                "embedding_std": embedding_std(embedding.detach()),
            }
            return nt_xent(embedding, batch.index, self.config.temperature), metrics

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of embeddings that lie in one point."""
        return collapsed("simclr", history)

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """In each row an image, and those of the others that lie nearest to it, nearest first."""
        found = nearest_pictures(batch.images, self._embed(batch.images))
        return {} if found is None else {"nearest": found}

    def _embed(self, images: Tensor) -> Tensor:
        """Of length 1, float32. (B, C, S, S) -> (B, E)."""
        return functional.normalize(self.head(self.backbone(images).flatten(1)).float(), dim=1)
