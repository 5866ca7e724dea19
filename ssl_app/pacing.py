"""How many epochs fit into a time: a few steps are tried on a copy, and timed, before training starts."""

import re
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from ssl_app.data.loading import Loader
from ssl_app.errors import SettingsError
from ssl_app.runs import Say
from ssl_app.tasks import Metrics, OverAll, Task
from ssl_app.training.distributed import OneProcess
from ssl_app.training.hardware import Hardware
from ssl_app.training.loop import fit
from ssl_app.training.optimizing import Plan

TRIED, UNUSUAL = 16, 4  # steps of the trial, and how many of them are no measure: a process's first are slow
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(budget: str) -> float:
    """`90s`, `5m` or `1.5h` in seconds. Raises SettingsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if found is None or float(found[1]) == 0:
        raise SettingsError(f"--budget is '{budget}'; expected a time such as 90s, 5m or 1h")
    return float(found[1]) * UNITS[found[2]]


def epochs_within(
    budget: str,
    make: Callable[[], Task],
    loader: Loader,
    held_out: Loader | None,
    plan: Callable[[int, int | None], Plan],
    hardware: Hardware,
    group: OneProcess,
    say: Say,
) -> int:
    """Epochs that a time allows, one at least. `make` gives a task to try on; `plan` one of (epochs, steps of each).

    Every epoch is counted with what begins and ends it: labelling, clustering, scoring; the end of the training once.
    """
    allowed = seconds_of(budget)
    clock = _Clock(make(), hardware)
    fit(
        clock.task,
        loader,
        plan(1, TRIED),
        hardware,
        title="",
        say=lambda sentence: None,
        group=group,
        held_out=held_out,
    )
    step, epoch, end = clock.read(loader.steps)
    epochs = max(1, int((allowed - end) / epoch))
    say(f"--budget {budget}: {epochs} epochs, of {epoch:.1f} s each ({loader.steps} steps of {1e3 * step:.0f} ms)")
    if epoch + end > allowed:
        say(f"note: one epoch takes longer than --budget {budget}")
    return epochs


class _Clock:
    """Times of what happens to a task: when it was made, when its steps began, when its end did."""

    def __init__(self, task: Task, hardware: Hardware) -> None:
        self.task, self.hardware = task, hardware
        self.hooks = task.before_step, task.finish
        self.times = [time.monotonic()]
        task.before_step, task.finish = self._before_step, self._finish  # type: ignore[method-assign]

    def read(self, steps: int) -> tuple[float, float, float]:
        """Seconds of a step, of an epoch of so many steps, and of the end of the training."""
        now = self._now()
        made, *begun, ended = self.times
        # of each step by itself: what begins and ends an epoch may take longer than all that are tried
        step = statistics.median(b - a for a, b in pairwise(begun[UNUSUAL:]))
        return step, begun[0] - made + (steps - 1) * step + ended - begun[-1], now - ended

    def _before_step(self, progress: float, over_all: OverAll) -> Metrics:
        found = self.hooks[0](progress, over_all)
        self.times.append(self._now())
        return found

    def _finish(self, over_all: OverAll) -> None:
        self.times.append(self._now())
        self.hooks[1](over_all)

    def _now(self) -> float:
        if self.hardware.device.type == "cuda":
            torch.cuda.synchronize(self.hardware.device)
        return time.monotonic()
