"""The stages of strategies on soft targets, which are those of two-stage and of full fine-tuning on plain labels."""

from collections.abc import Sequence

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.draw_task import DrawTask
from ssl_app.transfer.fitting import Fitted, Phase, Stage, fit_head, train
from ssl_app.transfer.strategies.base import Budget
from ssl_app.transfer.strategies.two_stage import HEAD_SHARE, SMALL


def head_first(classifier: Classifier, draw: Draw, budget: Budget, teaches: bool) -> tuple[list[Stage], int]:
    """What comes before everything is trained on soft targets, and the steps that are left for that.

    From pretrained weights the head on frozen features; from random ones nothing, or, where the classifier `teaches`
    itself, half of the steps on plain labels.
    """
    if budget.pretrained and budget.linear:
        return [fit_head(classifier, draw)], budget.steps
    if budget.pretrained:
        steps = round(budget.steps * HEAD_SHARE)
        return [train(classifier, draw, Phase("head", steps, {"head": budget.lr}))], budget.steps - steps
    if not teaches:
        return [], budget.steps
    steps = budget.steps // 2
    rates = {"head": budget.lr, "backbone": budget.lr}
    return [train(classifier, draw, Phase("labels", steps, rates))], budget.steps - steps


def then_all(task: DrawTask, draw: Draw, budget: Budget, before: Sequence[Stage], steps: int) -> Fitted:
    """Backbone and head on the task's targets: at the rate of a second stage, or at the full one from random weights.

    The crops are those of two-stage and of full fine-tuning.
    """
    lr = budget.lr * (SMALL if budget.pretrained else 1)
    phase = Phase("all", steps, {"head": lr, "backbone": lr}, 1 if before else 0)
    return Fitted.alone(task.classifier, *before, train(task.classifier, draw, phase, task))
