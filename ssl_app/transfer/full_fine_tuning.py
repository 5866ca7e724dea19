"""Full fine-tuning: everything learns from the first step on."""

from ssl_app.transfer.base import Budget, Phase, Strategy


class FullFineTuning(Strategy):
    """One phase at one rate; from random weights this is the scratch baseline."""

    def phases(self, budget: Budget) -> list[Phase]:
        """Everything, for all steps."""
        return [Phase("all", budget.steps, {"head": budget.rate, "backbone": budget.rate})]
