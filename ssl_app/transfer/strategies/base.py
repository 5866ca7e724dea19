"""A strategy is a table of phases: which parts learn, at what rate, for how many steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One stretch of training. A part without a rate is frozen, batch-norm statistics included."""

    name: str
    steps: int
    rates: Mapping[str, float]
    closed: bool = False  # a convex fit of a linear head on unaugmented features, which takes no steps


@dataclass(frozen=True)
class Budget:
    """What a strategy may spend, the same for every strategy and for scratch."""

    steps: int  # optimizer steps in all
    labels: int  # labeled images
    rate: float  # for parts that start from random weights
    pretrained: bool  # whether the backbone has weights worth keeping
    linear: bool  # whether the head is one linear layer, which a closed fit can fill in


class Strategy(ABC):
    """How a pretrained backbone becomes a classifier."""

    @abstractmethod
    def phases(self, budget: Budget) -> list[Phase]:
        """The phases, in order; their steps add up to the budget's."""
