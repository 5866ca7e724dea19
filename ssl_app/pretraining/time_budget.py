"""How many steps fit into a time: a few are tried on a copy, and timed, before training starts."""

import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from ssl_app.errors import SettingsError
from ssl_app.training.hardware import Hardware
from ssl_app.training.task import DatasetMap, Metrics, Task

logger = logging.getLogger(__name__)

UNUSUAL = 4  # steps that are no measure: a process's first are slow
PERIOD, TWICE = 16, 2  # what happens in every 16th step only is counted as well; of each place the quicker one
TRIED = UNUSUAL + TWICE * PERIOD + 1  # steps of the trial
SHARE, FEWEST = 0.5, 2  # of the time, after which a trial of slow steps ends early; with so many timed at least
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(budget: str) -> float:
    """`90s`, `5m` or `1.5h` in seconds. Raises SettingsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if found is None or float(found[1]) == 0:
        raise SettingsError(f"the budget is '{budget}'", expected="a time such as 90s, 5m or 1h")
    return float(found[1]) * UNITS[found[2]]


def described(seconds: float) -> str:
    """`90 s`, `5 min`, `1.5 h`."""
    size, unit = (1, "s") if seconds <= 90 else (60, "min") if seconds < 3600 else (3600, "h")
    return f"{seconds / size:g} {unit}"


class _Enough(Exception):
    """The trial has lasted long enough."""


@dataclass(frozen=True)
class Trial:
    """A short training that is timed: one epoch of TRIED steps of a task that is thrown away."""

    task: Task
    train: Callable[[], object]
    alone: bool = True  # one process only: several could not stop the trial together


@dataclass(frozen=True)
class Cost:
    """Seconds of a step, of what an epoch has around its steps (labeling, scoring), and of the training's end."""

    step: float
    around: float
    end: float

    @classmethod
    def timed(cls, trial: Trial, hardware: Hardware, most: float) -> "Cost":
        """Of a trial, which ends early after so many seconds; what ends an epoch is then not counted.

        But not with several processes, of which one would stop before the others.
        """
        clock = _Clock(trial.task, hardware, most if trial.alone else math.inf)
        with suppress(_Enough):
            trial.train()
        return cls(*clock.read())

    def after(self, first: "Cost", share: float) -> "Cost":
        """The mean where so large a share of the steps costs what `first` says, and the rest what this does."""
        step = share * first.step + (1 - share) * self.step
        return Cost(step, share * first.around + (1 - share) * self.around, self.end)


def length_within(seconds: float, cost: Cost, passes: int) -> tuple[int, int]:
    """Epochs that a time allows, one at least, and the steps of each: as many passes as come nearest.

    An epoch is counted with what begins and ends it, the end of the training once. Steps fill the time, so that
    methods with long epochs are not given less of it.
    """
    shown = described(seconds)
    epochs = max(1, round((seconds - cost.end) / (cost.around + passes * cost.step)))
    fitting = max(1, int(((seconds - cost.end) / epochs - cost.around) / cost.step))
    logger.info(
        f"budget of {shown}: {epochs} epoch{'s' * (epochs > 1)} of {fitting} steps, {fitting / passes:.2f} "
        f"passes each ({1e3 * cost.step:.0f} ms a step, {cost.around:.1f} s around them)"
    )
    if cost.around + cost.step + cost.end > seconds:
        logger.info(f"note: one epoch takes longer than the budget of {shown}, however few its steps")
    return epochs, fitting


class _Clock:
    """Times of what happens to a task: when training began, when its steps did, when its end did."""

    def __init__(self, task: Task, hardware: Hardware, most: float) -> None:
        self.hardware, self.most, self.whole = hardware, most, False
        self.hooks = task.before_step, task.finish
        self.times = [time.monotonic()]
        task.before_step, task.finish = self._before_step, self._finish  # type: ignore[method-assign]

    def read(self) -> tuple[float, float, float]:
        """Seconds of a step, of what an epoch has around its steps, and of the end of the training."""
        now = self._now()
        if not self.whole:
            began, *steps = self.times
            timed = np.diff(steps)
            usual = timed[UNUSUAL:]
            # of a few slow steps the quickest: a machine that is busy for a moment must not plan one step in all
            step = float(np.median(usual)) if len(usual) >= FEWEST else float(timed.min())
            return step, steps[0] - began, 0.0
        began, *steps, ended = self.times
        # of each step by itself: what begins and ends an epoch may take longer than all that are tried
        step = float(np.diff(steps[UNUSUAL:]).reshape(TWICE, PERIOD).min(0).mean())
        return step, max(0.0, steps[0] - began + ended - steps[-1] - step), now - ended

    def _before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        found = self.hooks[0](progress, map_dataset)
        self.times.append(self._now())
        timed = len(self.times) - 2  # whole steps
        if timed >= FEWEST + 1 and self.times[-1] - self.times[1] > self.most:
            raise _Enough
        return found

    def _finish(self, map_dataset: DatasetMap) -> None:
        self.times.append(self._now())
        self.whole = True
        self.hooks[1](map_dataset)

    def _now(self) -> float:
        if self.hardware.device.type == "cuda":
            torch.cuda.synchronize(self.hardware.device)
        return time.monotonic()
