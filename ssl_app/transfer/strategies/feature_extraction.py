"""Feature extraction: the backbone stays as it is, a classifier is fitted on its features."""

from ssl_app.transfer.strategies.base import Budget, Phase, Strategy


class FeatureExtraction(Strategy):
    """A linear head is fitted in closed form on features taken once; `--head mlp` is trained for all steps."""

    def phases(self, budget: Budget) -> list[Phase]:
        """The head alone."""
        if budget.linear:
            return [Phase("head", 0, {}, closed=True)]
        return [Phase("head", budget.steps, {"head": budget.rate})]
