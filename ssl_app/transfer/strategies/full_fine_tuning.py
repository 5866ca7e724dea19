"""Full fine-tuning: everything learns from the first step on."""

from ssl_app.transfer.strategies.base import Budget, Phase, Strategy

PRETRAINED = 1 / 3  # of the rate of random weights


class FullFineTuning(Strategy):
    """One phase at one rate, the full one from random weights: this is the scratch baseline."""

    def phases(self, budget: Budget) -> list[Phase]:
        """Everything, for all steps."""
        rate = budget.rate * (PRETRAINED if budget.pretrained else 1)
        return [Phase("all", budget.steps, {"head": rate, "backbone": rate})]
