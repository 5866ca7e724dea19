"""FixMatch: what a network is sure of in a weak view, it learns from a strong one (Sohn et al., 2020).

arXiv:2001.07685; with distribution alignment (Berthelot et al., 2020, arXiv:1911.09785, section 3.1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.config import option
from ssl_app.evaluation import class_mix
from ssl_app.training.classifier import Classifier
from ssl_app.training.task import Metrics
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted, Phase, Stage, convex, fill_in, propagated, train
from ssl_app.transfer.semi_supervised import COST, SemiSupervised
from ssl_app.transfer.strategies.base import Budget, Strategy
from ssl_app.transfer.strategies.two_stage import HEAD_SHARE, SMALL

SURE = {True: 0.8, False: 0.95}  # the threshold from pretrained weights and from random ones, as in the paper
MEMORY = 0.95  # of running means over steps
FEW = 0.1  # share of the unlabeled images above the threshold, below which they teach nothing
FAR = 3.0  # factor between the shares of a class in pseudo-labels and in the estimated mix


@dataclass(frozen=True)
class FixmatchConfig:
    """Settings of FixMatch."""

    threshold: float | None = option(
        None,
        "probability from which a prediction is learned; default: 0.8 from pretrained weights, 0.95 from random ones",
        at_least=0,
        at_most=1,
    )


class Confident(SemiSupervised):
    """The class that averaged weights give a weak view, where its probability is high enough, is the target."""

    predicted: Tensor
    taught: Tensor
    passing: Tensor

    def __init__(self, classifier: Classifier, draw: Draw, threshold: float, mix: NDArray[np.float64] | None) -> None:
        """`mix` (K,) are the shares of the classes that predictions are aligned to; None: they are not."""
        super().__init__(classifier, draw)
        self.threshold, self.mix = threshold, None if mix is None else torch.from_numpy(mix).float()
        self.register_buffer("predicted", torch.zeros(draw.classes))  # (K,) running mean of predictions
        self.register_buffer("taught", torch.zeros(draw.classes))  # (K,) running share of each pseudo-label
        self.register_buffer("passing", torch.zeros(()))  # running share of images above the threshold

    def unlabeled_loss(self, logits: Tensor, weak: Tensor, index: Tensor) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the strong views, its mean over all of them; the share of images that it counts."""
        target = self.aligned(self.teach(weak))
        sure, label = target.max(1)
        taken = (sure >= self.threshold).float()  # (U,)
        self._remember(self.taught, (functional.one_hot(label, logits.shape[1]) * taken[:, None]).mean(0))
        self._remember(self.passing, taken.mean())
        loss = (taken * functional.cross_entropy(logits, label, reduction="none")).mean()
        return loss, {"confident": taken.mean()}

    def aligned(self, target: Tensor) -> Tensor:
        """Predictions times target mix over their running mean, as probabilities. (U, K) -> (U, K)."""
        self._remember(self.predicted, target.mean(0))
        if self.mix is None:
            return target
        scaled = target * self.mix.to(target.device) / self.predicted.clamp_min(1e-6)
        return scaled / scaled.sum(1, keepdim=True).clamp_min(1e-12)

    def warnings(self) -> tuple[str, ...]:
        """What speaks against the result, by the running means at the end."""
        found = []
        passing = float(self.passing)
        if passing < FEW:
            found.append(
                f"fixmatch: only {100 * passing:.0f} % of the unlabeled images were above the threshold of "
                f"{self.threshold:g} at the end; they taught little"
            )
        elif self.mix is not None:
            share = self.taught.cpu() / self.taught.sum().cpu()
            ratio = share.clamp_min(1e-6) / self.mix.clamp_min(1e-6)
            worst = int(ratio.log().abs().argmax())
            if not 1 / FAR <= float(ratio[worst]) <= FAR:
                ours, theirs = 100 * float(share[worst]), 100 * float(self.mix[worst])
                found.append(
                    f"fixmatch: {ours:.0f} % of the pseudo-labels are of class number {worst}, which has "
                    f"an estimated {theirs:.0f} % of the images"
                )
        return tuple(found)

    def _remember(self, mean: Tensor, new: Tensor) -> None:
        """Move a running mean; the first value is taken whole."""
        mean.copy_(torch.where(mean.sum() > 0, MEMORY * mean + (1 - MEMORY) * new, new))


class Fixmatch(Strategy[FixmatchConfig]):
    """From a head on propagated labels where the backbone is pretrained, else from random weights.

    Not as in the paper: 1.25 unlabeled images to a labeled one in place of 7, which a CPU could not pay, and targets
    by averaged weights. Draws are class-balanced and say nothing of the mix of the unlabeled images, so predictions
    are aligned to an estimate of it, and not at all where two estimates disagree.
    """

    Config = FixmatchConfig

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The head where there are features to fit it on, then everything."""
        before: list[Stage] = []
        mix, about = None, ""
        steps = budget.steps
        if budget.pretrained and budget.linear:
            mix, about = self._start(classifier, draw, before)
        elif budget.pretrained:
            steps = round(budget.steps * (1 - HEAD_SHARE))
            before.append(train(classifier, draw, Phase("head", budget.steps - steps, {"head": budget.lr})))
        threshold = self.config.threshold
        if threshold is None:
            threshold = SURE[budget.pretrained]
        task = Confident(classifier, draw, threshold, mix)
        lr = budget.lr * (SMALL if budget.pretrained else 1)
        done = train(classifier, draw, Phase("all", steps, {"head": lr, "backbone": lr}, 1), task)
        if not len(draw.unlabeled.indices):
            return Fitted.alone(classifier, *before, done)
        passing = f", {100 * float(task.passing):.0f} % of the unlabeled images above {threshold:g} at the end"
        return Fitted.alone(classifier, *before, Stage(f"{done.how}{passing}{about}", done.history, task.warnings()))

    def steps(self, budget: Budget) -> int:
        """Those of the budget, which look at unlabeled images too."""
        return round(COST * budget.steps)

    def _start(
        self, classifier: Classifier, draw: Draw, before: list[Stage]
    ) -> tuple[NDArray[np.float64] | None, str]:
        """A head on propagated labels. -> the estimated class mix, None where it is unsure, and words for it."""
        assert draw.labeled.labels is not None
        drawn = np.bincount(draw.labeled.labels, minlength=draw.classes) / len(draw.labeled.labels)
        by_labels = convex(classifier, draw).probabilities(draw.features(classifier, draw.unlabeled))
        head, found = propagated(classifier, draw)
        fill_in(classifier, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
        before.append(Stage(f"head: {head.how}"))
        mix = class_mix.agreed(class_mix.estimate(by_labels, drawn), found.mass)
        if mix is None:
            return None, ", not aligned: two estimates of the class mix disagree"
        return mix, f", aligned to a mix of {' '.join(f'{100 * share:.0f}' for share in mix)} %"
