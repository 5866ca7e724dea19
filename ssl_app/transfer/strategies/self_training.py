"""Self-training: fine-tuning on labels that the unlabeled images were given, by certainty (Iscen et al., 2019,
arXiv:1904.04717, section 3.3; pseudo-labels: Lee, 2013).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering.label_propagation import certainty
from ssl_app.config import option
from ssl_app.training.classifier import Classifier
from ssl_app.training.inference import probabilities
from ssl_app.training.task import Metrics
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Phase, Stage, fill_in, propagated, train
from ssl_app.transfer.semi_supervised import SemiSupervised
from ssl_app.transfer.strategies.base import Budget, Strategy
from ssl_app.transfer.strategies.two_stage import SMALL


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of self-training."""

    neighbors: int = option(15, "nearest neighbors of an image in the graph", at_least=1)
    alpha: float = option(0.95, "share of an image's label that comes from its neighbors", at_least=0, at_most=0.999)


class GivenLabels(SemiSupervised):
    """Unlabeled images with a label each, and how sure it is."""

    def __init__(self, classifier: Classifier, draw: Draw, labels: Tensor, sure: Tensor) -> None:
        """`labels` (N,) and `sure` (N,) in [0, 1] are those of `both`."""
        super().__init__(classifier, draw)
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("sure", sure, persistent=False)

    labels: Tensor
    sure: Tensor

    def unlabeled_loss(self, logits: Tensor, weak: Tensor, index: Tensor) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the strong views, its mean weighted by certainty."""
        sure = self.sure[index]
        loss = functional.cross_entropy(logits, self.labels[index], reduction="none")
        return (sure * loss).sum() / sure.sum().clamp_min(1e-6), {}


class SelfTraining(Strategy[SelfTrainingConfig]):
    """Labels come by propagation over frozen features, else by a network that took half of the steps before.

    Every batch holds images of the draw as well; an unlabeled image counts by the certainty of its label.
    """

    Config = SelfTrainingConfig

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Sequence[Stage]:
        """Labels for the unlabeled images, then training on all."""
        if budget.pretrained and budget.linear:
            head, found = propagated(classifier, draw, self.config.neighbors, self.config.alpha)
            fill_in(classifier, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
            return self._learned(classifier, draw, budget, [Stage(f"head: {head.how}")], found.targets, found.certainty)
        half = budget.steps // 2
        lr = budget.lr * (SMALL if budget.pretrained else 1)
        first = train(classifier, draw, Phase("labels", half, {"head": budget.lr, "backbone": lr}))
        guessed = probabilities(classifier, draw.unlabeled, draw.hardware).reshape(-1, draw.classes)
        assert draw.labeled.labels is not None
        targets = np.concatenate([np.eye(draw.classes)[draw.labeled.labels], guessed])
        return self._learned(classifier, draw, budget, [first], targets, certainty(targets))

    def _learned(
        self,
        classifier: Classifier,
        draw: Draw,
        budget: Budget,
        before: list[Stage],
        targets: np.ndarray,
        sure: np.ndarray,
    ) -> Sequence[Stage]:
        """The stages before, and that of training on all images by these targets, (N, K) and (N,)."""
        labels, weights = torch.from_numpy(targets.argmax(1)), torch.from_numpy(sure).float()
        lr = budget.lr * (SMALL if budget.pretrained else 1)
        steps = budget.steps - (budget.steps // 2 if before[0].history else 0)
        phase = Phase("all", steps, {"head": lr, "backbone": lr}, 1)
        return [*before, train(classifier, draw, phase, GivenLabels(classifier, draw, labels, weights))]
