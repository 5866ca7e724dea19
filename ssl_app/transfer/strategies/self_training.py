"""Self-training: fine-tuning on labels that unlabeled images were given, by certainty (Iscen et al., 2019).

arXiv:1904.04717, section 3.3; pseudo-labels: Lee, 2013.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering.label_propagation import certainty
from ssl_app.config import option
from ssl_app.training.classifier import Classifier
from ssl_app.training.inference import probabilities
from ssl_app.training.task import Metrics
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Phase, Stage, fill_in, propagated, train
from ssl_app.transfer.semi_supervised import COST, SemiSupervised, targets_of_both
from ssl_app.transfer.strategies.base import Budget, Strategy
from ssl_app.transfer.strategies.two_stage import SMALL


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of self-training."""

    neighbors: int = option(15, "nearest neighbors of an image in the graph", at_least=1)
    alpha: float = option(0.95, "share of an image's label that comes from its neighbors", at_least=0, at_most=0.999)


class GivenTargets(SemiSupervised):
    """Unlabeled images with class probabilities each, and how much they count."""

    targets: Tensor
    counted: Tensor

    def __init__(
        self, classifier: Classifier, draw: Draw, targets: NDArray[np.float64], counted: NDArray[np.float64]
    ) -> None:
        """`targets` (N, K) and `counted` (N,) in [0, 1] are those of `both`."""
        super().__init__(classifier, draw)
        self.register_buffer("targets", torch.from_numpy(targets).float(), persistent=False)
        self.register_buffer("counted", torch.from_numpy(counted).float(), persistent=False)

    def unlabeled_loss(self, logits: Tensor, weak: Tensor, index: Tensor) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the strong views, its mean weighted by what counts."""
        counted = self.counted[index]
        loss = functional.cross_entropy(logits, self.targets[index], reduction="none")
        return (counted * loss).sum() / counted.sum().clamp_min(1e-6), {}


class SelfTraining(Strategy[SelfTrainingConfig]):
    """Labels come by propagation over frozen features, else by a network that took half of the steps before.

    Every batch holds images of the draw as well; an unlabeled image counts by the certainty of its label.
    """

    Config = SelfTrainingConfig

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """Labels for the unlabeled images, then training on all."""
        lr = budget.lr * (SMALL if budget.pretrained else 1)
        rates, steps = {"head": lr, "backbone": lr}, budget.steps
        if budget.pretrained and budget.linear:
            head, found = propagated(classifier, draw, self.config.neighbors, self.config.alpha)
            fill_in(classifier, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
            first, targets, sure = Stage(f"head: {head.how}"), found.targets, found.certainty
        else:
            steps = budget.steps - budget.steps // 2
            first = train(classifier, draw, Phase("labels", budget.steps // 2, rates | {"head": budget.lr}))
            targets = targets_of_both(draw, probabilities(classifier, draw.unlabeled, draw.hardware))
            sure = certainty(targets)
        task = GivenTargets(classifier, draw, np.eye(draw.classes)[targets.argmax(1)], sure)
        return Fitted.alone(classifier, first, train(classifier, draw, Phase("all", steps, rates, 1), task))

    def steps(self, budget: Budget) -> int:
        """Those of the budget, which look at unlabeled images too; half of them where a network gives the labels."""
        alone = 0 if budget.pretrained and budget.linear else budget.steps // 2
        return round(alone + COST * (budget.steps - alone))
