"""Two-stage transfer: the head first on a frozen backbone, then all at small rates.

A random head sends random gradients through the backbone; trained first, it does not wreck what
pretraining learnt (the semi-supervised article's recipe; LP-FT of Kumar et al., 2022, arXiv:2202.10054).
"""

from ssl_app.transfer.base import Budget, Phase, Strategy

HEAD_SHARE = 0.25  # of the steps
BACKBONE_SHARE = 0.1  # of the head's rate, in the second stage


class TwoStage(Strategy):
    """A quarter of the steps for the head alone, the rest for all, the backbone at a tenth of the head's rate."""

    def phases(self, budget: Budget) -> list[Phase]:
        """Head, then all; the backbone's batch-norm statistics stand still in both."""
        first = round(budget.steps * HEAD_SHARE)
        rate = budget.rate
        return [
            Phase("head", first, {"head": rate}),
            Phase(
                "all",
                budget.steps - first,
                {"head": rate, "backbone": rate * BACKBONE_SHARE},
                still=("backbone",),
            ),
        ]
