"""Two-stage transfer: the head first on a frozen backbone, then all at small rates.

A random head sends random gradients through the backbone; fitted first, it does not wreck what
pretraining learnt (the semi-supervised article's recipe; LP-FT of Kumar et al., 2022, arXiv:2202.10054).
"""

from ssl_app.transfer.strategies.base import Budget, Phase, Strategy

HEAD_SHARE = 0.25  # of the steps, for a head that has to be trained
# of the rate of random weights, in the second stage; at a rate of .15: steel, 8 per class, 2 draws, .770; 1/15: .756
SMALL = 1 / 6


class TwoStage(Strategy):
    """A linear head is fitted in closed form and all steps go to the second stage; an mlp takes a quarter of them."""

    def phases(self, budget: Budget) -> list[Phase]:
        """Head, then all.

        Batch-norm statistics stand still in the first and move in the second: frozen there, the second
        stage wrecked the head on digits (32 per class: .69 against .94 with them live).
        """
        rate = budget.rate * SMALL
        first = 0 if budget.linear else round(budget.steps * HEAD_SHARE)
        head = Phase("head", first, {"head": budget.rate}, closed=budget.linear)
        return [head, Phase("all", budget.steps - first, {"head": rate, "backbone": rate})]
