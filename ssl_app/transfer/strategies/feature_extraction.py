"""Feature extraction (linear evaluation, linear probing): the backbone is frozen, a classifier fitted on it."""

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Phase, fit_head, train
from ssl_app.transfer.strategies.base import Budget, NoSettings, Strategy


class FeatureExtraction(Strategy[NoSettings]):
    """A linear head is fitted to its optimum on features taken once; an mlp head is trained for all steps."""

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The head alone."""
        if budget.linear:
            return Fitted.alone(classifier, fit_head(classifier, draw))
        return Fitted.alone(classifier, train(classifier, draw, Phase("head", budget.steps, {"head": budget.lr})))

    def steps(self, budget: Budget) -> int:
        """None where the head is linear."""
        return 0 if budget.linear else budget.steps
