"""Full fine-tuning: backbone and head are trained from the first step on."""

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Phase, train
from ssl_app.transfer.strategies.base import Budget, NoSettings, Strategy

PRETRAINED = 1 / 3  # of the rate of random weights


class FullFineTuning(Strategy[NoSettings]):
    """One phase at one rate, the full one from random weights: this is the scratch baseline."""

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """Everything, for all steps."""
        lr = budget.lr * (PRETRAINED if budget.pretrained else 1)
        done = train(classifier, draw, Phase("all", budget.steps, {"head": lr, "backbone": lr}))
        return Fitted.alone(classifier, done)
