"""Two-stage transfer (LP-FT): the head first on a frozen backbone, then everything at small rates.

A random head sends random gradients through the backbone; fitted first, it does not wreck what
pretraining learned (the semi-supervised article's recipe; LP-FT of Kumar et al., 2022, arXiv:2202.10054).
"""

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Phase, fit_head, train
from ssl_app.transfer.strategies.base import Budget, NoSettings, Strategy

HEAD_SHARE = 0.25  # of the steps, for a head that has to be trained
# of the rate of random weights, in the second stage; at a rate of .15: steel, 8 per class, 2 draws, .770; 1/15: .756
SMALL = 1 / 6


class TwoStage(Strategy[NoSettings]):
    """A linear head is fitted to its optimum and all steps go to the second stage; an mlp takes a quarter of them."""

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """Head, then all.

        Batch-norm statistics stand still in the first stage and move in the second: frozen there, the second
        stage wrecked the head on digits (32 per class: .69 against .94 with them live).
        """
        steps = 0 if budget.linear else round(budget.steps * HEAD_SHARE)
        lr = budget.lr * SMALL
        if budget.linear:
            head = fit_head(classifier, draw)
        else:
            head = train(classifier, draw, Phase("head", steps, {"head": budget.lr}))
        done = train(classifier, draw, Phase("all", budget.steps - steps, {"head": lr, "backbone": lr}, 1))
        return Fitted.alone(classifier, head, done)
