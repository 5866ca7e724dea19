"""BYOL: predict a slow teacher's embedding of another view, no negatives (Grill et al., 2020, arXiv:2006.07733)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Augmentation, Frame
from ssl_app.errors import Change, Notice
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.contrastive import (
    LEAST_STEPS,
    collapsed,
    embedding_std,
    nearest_pictures,
    projector,
    retrieval,
    views_of,
)
from ssl_app.training.ema import EMA
from ssl_app.training.task import DatasetMap, Metrics, Needs

EMBEDDING, HIDDEN = 128, 512  # the paper's 256 and 4096 are for ResNet-50


@dataclass(frozen=True)
class BYOLConfig:
    """Settings of BYOL."""

    views: Literal["mixed", "light", "medium", "strong"] = option(
        "mixed", "strength of the random views; mixed: of half of the images strong, of half light"
    )
    decay: float = option(
        0.99, "of the teacher's moving average at the start; rises to 1 by a cosine", at_least=0, at_most=1
    )


class BYOL(Pretext[BYOLConfig]):
    """A student's prediction of one view is compared with the teacher's embedding of the other, both ways round.

    The teacher is a moving average of the student and has no gradient. Its batch norm goes by the batch, as the
    student's does: in eval mode features collapse. There are no negatives, so that batches may be small.
    """

    Config = BYOLConfig
    needs = Needs(views=2, scoring_views=2, smallest_batch=2)
    score = "retrieval"
    progressive_resizing = True
    defaults = Defaults(
        epochs=100,
        batch_size=128,
        smallest_batch=64,
        least_steps=LEAST_STEPS,
        lr=0.1,
        weight_decay=1e-4,
        warmup=0.03,
        augment=None,
    )

    progress: Tensor

    def __init__(self, backbone: Backbone, config: BYOLConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.epochs = data.epochs
        self.projector = projector(backbone, EMBEDDING, HIDDEN)
        self.predictor = nn.Sequential(
            nn.Linear(EMBEDDING, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, EMBEDDING),
        )
        self.teacher = EMA(nn.ModuleList([self.backbone, self.projector]))
        self.register_buffer("progress", torch.full((), -1.0, dtype=torch.float64))  # of the last step begun

    def augmentation(self, frame: Frame) -> Augmentation:
        """Both views of an image from the same distribution."""
        return views_of(frame, self.config.views)

    def chance_at(self, batch_size: int) -> float:
        """One of the images of the batch."""
        return 1 / batch_size

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """All but the teacher's."""
        modules = (self.backbone, self.projector, self.predictor)
        return (parameter for module in modules for parameter in module.parameters())

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Move the teacher towards the student that the step before has left."""
        if self.progress >= 0:
            self.update_teacher(float(self.progress))
        self.progress.fill_(progress)
        return {}

    def update_teacher(self, progress: float) -> None:
        """teacher = decay * teacher + (1 - decay) * student, decay as it is after so many epochs."""
        self.teacher.update(nn.ModuleList([self.backbone, self.projector]), self.decay_at(progress))

    def decay_at(self, progress: float) -> float:
        """1 - (1 - decay) (cos(pi t) + 1) / 2 at a share t of the training (section 3.2)."""
        share = min(1.0, progress / self.epochs)
        return 1 - (1 - self.config.decay) * (math.cos(math.pi * share) + 1) / 2

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """2 - 2 cosine, mean of both ways round; retrieval by the teacher's embeddings, in [0, 1]."""
        first, second = batch.views[0], batch.views[-1]
        with torch.no_grad():
            targets = [self._teach(view) for view in (second, first)]
        guesses = [self.predictor(self.projector(self.backbone(view).flatten(1))) for view in (first, second)]
        loss = torch.stack([distance(guess, target) for guess, target in zip(guesses, targets, strict=True)]).mean()
        embedding = torch.cat(targets[::-1])
        metrics = {"retrieval": retrieval(embedding, batch.index), "embedding_std": embedding_std(embedding)}
        return loss, metrics

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of embeddings that lie in one point, BYOL's own way to fail."""
        return collapsed("byol", history, Change("decay", "a larger"))

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """In each row an image, and those of the others that lie nearest to it, nearest first."""
        found = nearest_pictures(batch.images, self._teach(batch.images))
        return {} if found is None else {"nearest": found}

    def _teach(self, images: Tensor) -> Tensor:
        """The teacher's embedding, of length 1, float32. (B, C, S, S) -> (B, E)."""
        backbone, head = self.teacher.module.children()
        return functional.normalize(head(backbone(images).flatten(1)).float(), dim=1)


def distance(guess: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cosine, mean over the batch; in [0, 4]. (B, E), (B, E) of length 1 -> ()."""
    return (2 - 2 * (functional.normalize(guess.float(), dim=1) * target).sum(1)).mean()
