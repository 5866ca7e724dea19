"""A strategy is a table of phases: which parts learn, at what rate, for how many steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Phase:
    """One stretch of training. A part without a rate is frozen, batch-norm statistics included."""

    name: str
    steps: int
    rates: Mapping[str, float]
    still: tuple[str, ...] = ()  # parts that learn, but keep their batch-norm statistics


@dataclass(frozen=True)
class Budget:
    """What a strategy may spend, the same for every strategy and for scratch."""

    steps: int  # optimizer steps in all
    labels: int  # labelled images
    rate: float  # for parts that start from random weights


class Strategy(ABC):
    """How a pretrained backbone becomes a classifier."""

    closed: ClassVar[bool] = False  # a closed fit on features, with no phases where the head is linear

    @abstractmethod
    def phases(self, budget: Budget) -> list[Phase]:
        """The phases, in order; their steps add up to the budget's."""
