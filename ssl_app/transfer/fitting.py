"""Fitting: the two things that strategies are made of, a convex fit of the head and a stretch of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ssl_app import console
from ssl_app.clustering.label_propagation import ALPHA, NEIGHBORS, Propagated
from ssl_app.errors import SettingsError
from ssl_app.evaluation import logistic, propagated_head
from ssl_app.evaluation.metrics import classification
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.history import History
from ssl_app.training.inference import probabilities
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from ssl_app.transfer.draw import CHECKS, Draw
from ssl_app.transfer.draw_task import DrawTask


@dataclass(frozen=True)
class Phase:
    """One stretch of training. A part without a rate is frozen, batch-norm statistics included."""

    name: str
    steps: int
    rates: Mapping[str, float]  # learning rate at its highest, by part: backbone, head
    number: int = 0  # among the stages of a strategy; seeds the batches


@dataclass(frozen=True)
class Stage:
    """What a stage of a strategy did."""

    how: str  # what was fitted, what was chosen and by what
    history: History = field(default_factory=list)  # empty where no step was taken
    warnings: tuple[str, ...] = ()  # what went wrong, a sentence each


@dataclass(frozen=True)
class Fitted:
    """What a strategy has made: what predicts, and how it came about."""

    predictor: Ensemble
    stages: Sequence[Stage]

    @classmethod
    def alone(cls, classifier: Classifier, *stages: Stage) -> "Fitted":
        """One classifier, in the stages that it went through."""
        return cls(Ensemble([classifier]), stages)


def fit_head(classifier: Classifier, draw: Draw) -> Stage:
    """Fill a linear head in by a convex fit."""
    found = convex(classifier, draw)
    fill_in(classifier, torch.as_tensor(found.weight), torch.as_tensor(found.bias))
    return Stage(f"head: {found.how}")


def convex(classifier: Classifier, draw: Draw) -> logistic.Logistic:
    """A linear head on features of center crops; C is chosen on validation images, else by folds of the draw.

    Fitted once for all strategies of a draw.
    """
    labels, held = draw.labeled.labels, draw.validation
    assert labels is not None
    folds = None if held is not None else draw.folds()

    def fitted() -> logistic.Logistic:
        validation = None
        if held is not None:
            assert held.labels is not None
            validation = (draw.features(classifier, held), held.labels)
        features = draw.features(classifier, draw.labeled)
        return logistic.fit(features, labels, draw.classes, folds=folds, validation=validation)

    by = ["folds", *(part for pair in folds or () for part in pair)] if held is None else [held.indices, held.labels]
    return draw.head(classifier, ["convex", *by], fitted)


def fill_in(classifier: Classifier, weight: Tensor, bias: Tensor) -> None:
    """Set the last layer of the head. (K, d), (K,)."""
    with torch.no_grad():
        classifier.head.last.weight.copy_(weight)
        classifier.head.last.bias.copy_(bias)


def propagated(
    classifier: Classifier, draw: Draw, neighbors: int = NEIGHBORS, alpha: float = ALPHA
) -> tuple[logistic.Logistic, Propagated]:
    """A linear head on labels spread to the unlabeled images, and these labels: of the draw first, as in `both`."""
    labels = draw.labeled.labels
    assert labels is not None
    rows = (draw.labeled, draw.unlabeled)
    features = np.concatenate([draw.features(classifier, some) for some in rows])
    drawn = np.arange(len(labels))
    graph = draw.graph(classifier, np.concatenate([some.indices for some in rows]), neighbors)
    return propagated_head.fit(features, drawn, labels, draw.classes, neighbors=neighbors, alpha=alpha, graph=graph)


def head_by_propagation(
    classifier: Classifier, draw: Draw, neighbors: int = NEIGHBORS, alpha: float = ALPHA
) -> logistic.Logistic:
    """The head of `propagated` alone, fitted once for all strategies of a draw."""
    what = ["propagated", draw.unlabeled.indices, neighbors, alpha]
    return draw.head(classifier, what, lambda: propagated(classifier, draw, neighbors, alpha)[0])


def train(classifier: Classifier, draw: Draw, phase: Phase, task: DrawTask | None = None) -> Stage:
    """Train parts of a classifier on the labels; with validation images, keep the best weights.

    A task of the classifier's trains it on other images or targets than these, and says which weights are the result.
    Raises SettingsError where the phase names a part that is not there.
    """
    unknown = phase.rates.keys() - classifier.parts().keys()
    if unknown:
        raise SettingsError(f"phase {phase.name} trains '{min(unknown)}'", expected=", ".join(classifier.parts()))
    config, validation = draw.config, draw.validation
    checks = 1 if validation is None else _checks(phase.steps)
    loader = draw.loader(draw.labeled, stage=phase.number) if task is None else task.loader(draw, phase.number)
    result = classifier if task is None else task.result
    resizing = config.resizing(classifier.backbone).within(phase.steps)
    half_size = resizing.share if "backbone" in phase.rates else 0.0
    plan = Plan(
        rates=phase.rates,
        epochs=checks,
        steps_per_epoch=phase.steps // checks,
        batch_size=loader.batch_size,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        clip=config.clip,
        half_size=half_size,
    )
    best_score: float = -1.0
    best_state: dict[str, Tensor] | None = None

    def check(history: History) -> None:
        nonlocal best_score, best_state
        if validation is None or validation.labels is None:
            return
        found = probabilities(result, validation, draw.hardware)
        classes = tuple(str(number) for number in range(draw.classes))
        score = cast(float, classification(found, validation.labels, classes)["balanced_accuracy"])
        history[-1]["val_balanced_accuracy"] = score
        if score > best_score:
            best_score = score
            best_state = {name: tensor.clone() for name, tensor in result.state_dict().items()}

    with console.muted():
        history = fit(task or classifier, loader, plan, draw.hardware, Hooks(phase.name, each_epoch=check))
    if best_state is not None or result is not classifier:
        classifier.load_state_dict(best_state or result.state_dict())
    last = "the last weights" if task is None else task.weights
    kept = last if validation is None else f"best of {checks} checks on separate labels"
    smaller = f" ({100 * half_size:.3g} % of them on images of half the side)" if half_size else ""
    return Stage(
        f"{phase.name}: {phase.steps} steps{smaller}, {kept}", [one | {f"phase_{phase.name}": 1.0} for one in history]
    )


def _checks(steps: int) -> int:
    """How often separate labels are evaluated: at most CHECKS times, in stretches of equal length."""
    return next(checks for checks in range(CHECKS, 0, -1) if steps % checks == 0)
