"""What a sweep costs in time: predicted from a few timed steps, corrected by the trials that have finished."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ssl_app import registry
from ssl_app.checkpoints import SCRATCH
from ssl_app.training.inference import probabilities
from ssl_app.training.progressive_resizing import Resizing
from ssl_app.transfer.fitting import Phase, train
from ssl_app.transfer.strategies.base import Strategy
from ssl_app.transfer.trial import Job, TrialSetup, budget_of, draw_of, new_classifier
from ssl_app.transfer.workers import PlannedTrial

UNUSUAL, TIMED = 3, 6  # steps: the first of a process are slow
EVALUATED = 200  # test images that are timed, at most
FIT = 1.0  # seconds, of a head that is fitted and not trained


@dataclass
class SweepCost:
    """Seconds of trials, of which some may have finished."""

    step: float  # seconds of an optimizer step of the whole network, on images in full
    test: float  # and of testing on one image
    setup: TrialSetup
    workers: int
    started: float = field(default_factory=time.monotonic)
    predicted: dict[str, float] = field(default_factory=dict)  # by key of the trial
    kinds: dict[str, str] = field(default_factory=dict)  # trials of one kind have their pace in common
    taken: dict[str, float] = field(default_factory=dict)
    small: float | None = None  # seconds of a step on images of half the side; None: there are none
    resizing: Resizing = Resizing(0.0, "not measured")

    @classmethod
    def measured(cls, setup: TrialSetup, trials: Sequence[PlannedTrial], workers: int) -> "SweepCost":
        """By some steps of the last of these trials."""
        one = trials[-1]
        resizing = setup.config.resizing(new_classifier(setup, one.job.drawn, seed=0).backbone)
        in_full = replace(setup, config=replace(setup.config, progressive_resizing=0.0))
        cost = cls(_step(in_full, one), _tested(setup, one), setup, max(1, min(workers, len(trials))))
        if resizing.share:
            halved = replace(setup, config=replace(setup.config, progressive_resizing=1.0))
            cost.small, cost.resizing = _step(halved, one), resizing
        cost.plan(trials)
        return cost

    def plan(self, trials: Sequence[PlannedTrial]) -> None:
        """Add trials, or change how long they are thought to take."""
        for one in trials:
            kind: type[Strategy[object]] = registry.find("transfer.strategies", one.job.strategy)
            budget = budget_of(self.setup, one.job)
            steps = kind(kind.Config()).steps(budget)
            images = len(self.setup.opened.parts.test if one.job.tested is None else one.job.tested)
            self.predicted[one.key] = steps * self._step(budget.steps) + images * self.test if steps else FIT
            self.kinds[one.key] = f"{one.job.strategy}{' from scratch' * (one.init == SCRATCH)}" if steps else "fit"

    def finished(self, key: str, seconds: float) -> None:
        """A trial has ended."""
        self.taken[key] = seconds

    @property
    def first(self) -> float:
        """Seconds until the first trial ends, if all start in order."""
        return min(list(self.predicted.values())[: self.workers])

    @property
    def total(self) -> float:
        """Seconds from the start to the end: of finished trials as it was, of others at the pace of their kind."""
        open_keys = [key for key in self.predicted if key not in self.taken]
        work = sum(self.taken.values()) + sum(self.predicted[key] * self._pace(key) for key in open_keys)
        return max(work / self.workers, max((self.predicted[key] for key in open_keys), default=0.0))

    @property
    def left(self) -> float:
        """Seconds to the end."""
        if len(self.taken) == len(self.predicted):
            return 0.0
        return max(1.0, self.total - (time.monotonic() - self.started))

    def _step(self, steps: int) -> float:
        """Seconds of a step, the mean of so many."""
        if self.small is None:
            return self.step
        share = self.resizing.within(steps).share
        return share * self.small + (1 - share) * self.step

    def _pace(self, key: str) -> float:
        """Seconds taken by a predicted second: of trials of the same kind, else of all that were trained."""
        alike = [one for one in self.taken if self.kinds[one] == self.kinds[key]]
        if not alike and self.kinds[key] != "fit":
            alike = [one for one in self.taken if self.kinds[one] != "fit"]
        if not alike:
            return 1.0
        return sum(self.taken[one] for one in alike) / sum(self.predicted[one] for one in alike)


def _step(setup: TrialSetup, one: PlannedTrial) -> float:
    """Seconds of an optimizer step of the whole network."""
    classifier = new_classifier(setup, one.job.drawn, seed=0)
    draw = draw_of(setup, Job(one.job.strategy, one.job.drawn, 0), seed=0)
    rates = {"head": setup.config.lr, "backbone": setup.config.lr}
    train(classifier, draw, Phase("timed", UNUSUAL, rates))
    began = time.monotonic()
    train(classifier, draw, Phase("timed", TIMED, rates))
    return (time.monotonic() - began) / TIMED


def _tested(setup: TrialSetup, one: PlannedTrial) -> float:
    """Seconds of testing on an image."""
    classifier = new_classifier(setup, one.job.drawn, seed=0)
    test = setup.opened.parts.test
    some = test[np.linspace(0, len(test) - 1, min(len(test), EVALUATED)).astype(np.int64)]
    began = time.monotonic()
    probabilities(classifier, setup.rows(some), setup.hardware)
    return (time.monotonic() - began) / len(some)
