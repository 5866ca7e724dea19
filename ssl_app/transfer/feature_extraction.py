"""Feature extraction: the backbone stays as it is; logistic regression, or the articles' three layers, on its features."""

from ssl_app.transfer.base import Budget, Phase, Strategy


class FeatureExtraction(Strategy):
    """Closed for a linear head: features once, unaugmented, then a convex fit. One phase for `--head mlp`."""

    closed = True

    def phases(self, budget: Budget) -> list[Phase]:
        """The head alone, for all steps."""
        return [Phase("head", budget.steps, {"head": budget.rate})]
