"""LabelPooling: fine-tuning on crops whose labels are pooled from class maps (ReLabel; Yun et al., 2021).

arXiv:2101.05022, section 3.2.
"""

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted
from ssl_app.transfer.soft_targets import MixingConfig, PooledLabels, pooled_targets
from ssl_app.transfer.soft_tuning import head_first, then_all
from ssl_app.transfer.strategies.base import Budget, Strategy


class LabelPooling(Strategy[MixingConfig]):
    """As two-stage from pretrained weights and as full fine-tuning from random ones, on the same crops.

    The maps are those that the user gives. Without them the classifier as it is before its last stage makes them, and
    all that targets come from is the draw.
    """

    Config = MixingConfig
    takes_maps = True

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The head where there are features to fit it on, then everything on the maps' labels."""
        before, steps = head_first(classifier, draw, budget, teaches=draw.maps is None)
        task = PooledLabels(classifier, pooled_targets(draw, draw.labeled, classifier), self.config.cutmix)
        return then_all(task, draw, budget, before, steps)
