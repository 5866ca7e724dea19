"""Label smoothing: fine-tuning on labels that leave a share to all classes alike (Szegedy et al., 2016).

arXiv:1512.00567, section 7.
"""

from dataclasses import dataclass

from ssl_app.config import option
from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted
from ssl_app.transfer.soft_targets import MixingConfig, SmoothedLabels
from ssl_app.transfer.soft_tuning import head_first, then_all
from ssl_app.transfer.strategies.base import Budget, Strategy


@dataclass(frozen=True)
class LabelSmoothingConfig(MixingConfig):
    """Settings of label smoothing."""

    smoothing: float = option(0.1, "share of a label that all classes have alike", at_least=0, at_most=1)


class LabelSmoothing(Strategy[LabelSmoothingConfig]):
    """As two-stage from pretrained weights and as full fine-tuning from random ones, on the same crops."""

    Config = LabelSmoothingConfig

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The head where there are features to fit it on, then everything."""
        before, steps = head_first(classifier, draw, budget, teaches=False)
        task = SmoothedLabels(classifier, self.config.smoothing, self.config.cutmix)
        return then_all(task, draw, budget, before, steps)
