"""How many epochs fit into a time: a few steps are tried on a copy, and timed, before training starts."""

import re
import time
from collections.abc import Callable

from ssl_app.data.loading import Loader
from ssl_app.errors import SettingsError
from ssl_app.runs import Say
from ssl_app.tasks import Task
from ssl_app.training.distributed import OneProcess
from ssl_app.training.hardware import Hardware
from ssl_app.training.loop import fit
from ssl_app.training.optimizing import Plan

FEW, MANY = 3, 12  # steps of the two trials; their difference is free of what an epoch begins and ends with
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

    Every epoch is counted with what begins and ends it: labelling, clustering, scoring.
    """
    allowed = seconds_of(budget)

    def timed(steps: int) -> float:
        started = time.monotonic()
        fit(
            make(),
            loader,
            plan(1, steps),
            hardware,
            title="",
            say=lambda sentence: None,
            group=group,
            held_out=held_out,
        )
        return time.monotonic() - started

    timed(1)  # the first step of a process is no measure
    few = timed(FEW)
    step = max(1e-6, (timed(MANY) - few) / (MANY - FEW))
    rest = max(0.0, few - FEW * step)
    epoch = loader.steps * step + rest
    epochs = max(1, int(allowed / epoch))
    say(f"--budget {budget}: {epochs} epochs, of {epoch:.1f} s each ({loader.steps} steps of {1e3 * step:.0f} ms)")
    if epoch > allowed:
        say(f"note: one epoch takes longer than --budget {budget}")
    return epochs
