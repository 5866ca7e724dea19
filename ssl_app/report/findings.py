"""What a report says of a sweep's trials: the variant it is about, the one it is held against, and their answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.comparison import Answered, Trial, Variant, name_of, strategy_of
from ssl_app.evaluation.verdict import nearest_budget

Read = Callable[[Trial], "NDArray[np.float16] | None"]  # what a trial predicted, (N, K)


@dataclass(frozen=True, eq=False)
class Findings:
    """The answers of trials, and the pretrainings that count as one."""

    tested: Answered
    pooled: Sequence[str]
    read: Read

    @cached_property
    def subject(self) -> list[Variant]:
        """The verdict's variant, from each pretraining; without one the first variant there is."""
        table = self.tested.variants
        strategy = strategy_of(table, self.pooled)
        found = [(init, strategy) for init in self.pooled if strategy is not None and (init, strategy) in table]
        others = [variant for variant in table if variant[0] != SCRATCH]
        return found or others[:1] or list(table)[:1]

    @cached_property
    def baseline(self) -> Variant | None:
        """Scratch, where it is not the subject itself, and has a draw in common with it."""
        scratch = self.tested.scratch
        if scratch is None or scratch in self.subject or not self._shared([*self.subject, scratch]):
            return None
        return scratch

    @cached_property
    def per_class(self) -> int:
        """The budget that the report's details are of: the verdict's, of those that all of these have."""
        several = [*self.subject, *([] if self.baseline is None else [self.baseline])]
        return nearest_budget(self._shared(several) or sorted(self.tested.variants[several[0]]))

    def _shared(self, variants: Sequence[Variant]) -> list[int]:
        """Budgets of which all of these have a draw in common."""
        tables = [self.tested.variants[variant] for variant in variants]
        return [
            budget
            for budget in sorted(tables[0])
            if set.intersection(*(set(table.get(budget, ())) for table in tables))
        ]

    @property
    def subject_name(self) -> str:
        """For people."""
        if len(self.subject) == 1:
            return name_of(self.subject[0])
        return f"{self.subject[0][1]} from {len(self.subject)} pretrainings"

    def of(self, variants: Sequence[Variant], per_class: int | None = None) -> Iterator[Trial]:
        """Trials of some variants at one budget, by default that of the details."""
        budget = self.per_class if per_class is None else per_class
        for init, strategy in variants:
            for draw in self.tested.variants[init, strategy].get(budget, ()):
                yield init, strategy, budget, draw

    def predicted(self, variants: Sequence[Variant]) -> list[NDArray[np.float16]]:
        """What the trials of the details predicted, (N, K) each."""
        return [found for one in self.of(variants) if (found := self.read(one)) is not None]


@dataclass(frozen=True)
class ScoredImages:
    """The images that were tested on, in the order of the answers."""

    paths: Sequence[str]
    rows: Sequence[int]  # in the pack

    @classmethod
    def of(cls, data: Mapping[str, Any] | None, count: int) -> "ScoredImages | None":
        """As the summary of the data lists them; None where it does not, or lists others."""
        test = None if data is None else data.get("test")
        return None if not test or len(test["paths"]) != count else cls(test["paths"], test["rows"])
