"""ReLabel: random crops of all training images, with labels pooled from class maps (Yun et al., 2021).

arXiv:2101.05022; here for unlabeled images too, as self-training whose labels know where in an image they hold.
"""

import torch

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Stage, fill_in, head_by_propagation
from ssl_app.transfer.semi_supervised import both
from ssl_app.transfer.soft_targets import COST, MixingConfig, PooledEverywhere, pooled_targets
from ssl_app.transfer.soft_tuning import head_first, then_all
from ssl_app.transfer.strategies.base import Budget, Strategy


class Relabel(Strategy[MixingConfig]):
    """As self-training, but a crop's label is what the teacher sees in it.

    The maps are those that the user gives. Without them, the teacher is a head on propagated labels over frozen
    features, or a network that took half of the steps before. Batches hold images of the draw as well, classes
    equally often; their targets come from the maps, too.
    """

    Config = MixingConfig
    takes_maps = True

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The teacher, or the head to begin with, then everything on the maps' labels."""
        if budget.pretrained and budget.linear:
            head = head_by_propagation(classifier, draw)
            fill_in(classifier, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
            before, steps = [Stage(f"head: {head.how}")], budget.steps
        else:
            before, steps = head_first(classifier, draw, budget, teaches=draw.maps is None)
        pooled = pooled_targets(draw, both(draw), classifier)
        task = PooledEverywhere(classifier, draw, pooled, self.config.cutmix)
        return then_all(task, draw, budget, before, steps)

    def steps(self, budget: Budget) -> int:
        """Those of the budget, with unlabeled images in each."""
        return round(COST * budget.steps)
