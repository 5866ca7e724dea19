"""Label propagation: labels spread over a graph of the frozen features (Iscen et al., 2019, arXiv:1904.04717)."""

from dataclasses import dataclass

import torch

from ssl_app.config import option
from ssl_app.errors import Set, SettingsError
from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Stage, fill_in, head_by_propagation
from ssl_app.transfer.strategies.base import Budget, Strategy


@dataclass(frozen=True)
class LabelPropagationConfig:
    """Settings of label propagation."""

    neighbors: int = option(15, "nearest neighbors of an image in the graph", at_least=1)
    alpha: float = option(0.95, "share of an image's label that comes from its neighbors", at_least=0, at_most=0.999)


class LabelPropagation(Strategy[LabelPropagationConfig]):
    """A linear head is fitted on the features of all training images, unlabeled ones by their propagated label.

    An unlabeled image counts by the certainty of its label, one that no label reaches not at all. The backbone is
    frozen. Best at few labels: with 32 and more per class on textures it costs points (docs/results.md).
    """

    Config = LabelPropagationConfig

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The head alone. Raises SettingsError for a head that has to be trained in steps."""
        if not budget.linear:
            raise SettingsError("label propagation fits a linear head, the head is an mlp", fix=Set("head", "linear"))
        found = head_by_propagation(classifier, draw, self.config.neighbors, self.config.alpha)
        fill_in(classifier, torch.as_tensor(found.weight), torch.as_tensor(found.bias))
        return Fitted.alone(classifier, Stage(f"head: {found.how}"))

    def steps(self, budget: Budget) -> int:
        """None where the head is linear."""
        return 0 if budget.linear else budget.steps
