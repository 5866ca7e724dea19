"""Strategy: how a backbone becomes a classifier, given a draw of labels and the unlabeled images beside it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from ssl_app.training.classifier import Classifier
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.fitting import Fitted

C = TypeVar("C")


@dataclass(frozen=True)
class NoSettings:
    """For strategies that have no settings of their own."""


@dataclass(frozen=True)
class Budget:
    """What a strategy may spend, the same for every strategy and for scratch."""

    steps: int  # optimizer steps in all
    per_class: float  # labels of a class, on average
    lr: float  # for parts that start from random weights
    pretrained: bool  # whether the backbone has weights worth keeping
    linear: bool  # whether the head is one linear layer, which a convex fit can fill in
    doubts: tuple[str, ...] = ()  # warnings that the pretraining ended with


class Strategy(ABC, Generic[C]):
    """Trains a classifier. The name of a strategy is its file's; its settings are the fields of `Config`.

    A strategy sees no label outside its draw: the draw holds no others. Nothing of the test part is in it.
    """

    Config: ClassVar[type] = NoSettings
    takes_maps: ClassVar[bool] = False  # whether class maps that the user gives (`draw.maps`) are its targets
    trainings: ClassVar[int] = 1  # how often it may spend the budget's steps: more for a mean of several trainings

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """Train the classifier in place; steps of all stages add up to at most the budget's, times `trainings`.

        -> what predicts, mostly `Fitted.alone(classifier, *stages)`, and the stages: what was chosen, and why.
        Helpers: `fit_head` and `train`.
        """

    def steps(self, budget: Budget) -> int:
        """What `fit` will take in steps on labeled images, for an estimate of its time; 0 for a convex fit."""
        return budget.steps
