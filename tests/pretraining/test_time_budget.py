"""How long an epoch takes, from a few of its steps, on a clock that the test winds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssl_app.data.batch import Batch
from ssl_app.pretraining import time_budget
from ssl_app.pretraining.schedule import batch_for
from ssl_app.training.hardware import choose
from ssl_app.training.task import DatasetMap, Metrics, Task
from tests.toys import MapInMemory


class Slow(Task):
    """Thirty seconds before its first step, a tenth for each, five at the end; the first steps take longer.

    Every 16th takes .26 more, and one is held up by something else.
    """

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.steps = clock, 0

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        self.clock[0] += 30.0 if self.steps == 0 else 0.0
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        self.steps += 1
        self.clock[0] += 2.0 if self.steps < time_budget.UNUSUAL else 0.1
        self.clock[0] += 0.16 * (self.steps % 16 == 0) + 3.0 * (self.steps == 20)
        return torch.zeros(()), {}

    def finish(self, map_dataset: DatasetMap) -> None:
        self.clock[0] += 5.0


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    now = [100.0]
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: now[0])
    return Slow(now)


def train(task: Slow) -> None:
    everyone = MapInMemory(task, torch.zeros(1, 1, 4, 4))
    for number in range(time_budget.TRIED):
        task.before_step(number / time_budget.TRIED, everyone)
        task.loss(None, "all")
    task.finish(everyone)


def length(budget: str, task: Slow, work: Callable[[], None], alone: bool = True) -> tuple[int, int]:
    tried = time_budget.Trial(task, work, 600, alone)
    return time_budget.length_within(time_budget.seconds_of(budget), tried, choose(device="cpu"))


def seconds(epochs: int, steps: int, step: float) -> float:
    return epochs * (30 + steps * step) + 5


@pytest.mark.parametrize(("budget", "epochs"), [("40s", 1), ("2m", 1), ("5m", 3), ("1h", 37)])
def test_epochs_fill_the_time_and_are_near_a_pass(slow: Slow, messages: list[str], budget: str, epochs: int) -> None:
    found = length(budget, slow, lambda: train(slow))
    assert found[0] == epochs
    allowed = time_budget.seconds_of(budget)
    assert seconds(*found, step=0.1099) <= allowed
    assert seconds(found[0], found[1] + 2, step=0.1101) > allowed
    shown = time_budget.described(allowed)
    assert messages[0] == f"budget of {shown}: a few steps are timed first"
    assert messages[1].startswith(f"budget of {shown}: {epochs} epoch")


def test_a_trial_of_slow_steps_ends_early(slow: Slow) -> None:
    def crawl() -> None:
        for number in range(time_budget.TRIED):
            slow.before_step(number / time_budget.TRIED, MapInMemory(slow, torch.zeros(1, 1, 4, 4)))
            slow.clock[0] += 20.0
            slow.steps += 1

    found = length("5m", slow, crawl)
    assert found == (1, 13), "30 s before the first step, and 20 s each"
    assert slow.steps == 8, "half of the time"


def test_processes_stop_together(slow: Slow) -> None:
    length("1s", slow, lambda: train(slow), alone=False)
    assert slow.steps == time_budget.TRIED


def test_what_fits_no_time_is_said(slow: Slow, messages: list[str]) -> None:
    found = length("20s", slow, lambda: train(slow))
    assert found == (1, 1)
    assert messages[2] == "note: one epoch takes longer than the budget of 20 s, however few its steps"


def test_a_training_of_few_steps_has_small_batches() -> None:
    assert batch_for(128, images=45_000, epochs=20) == 128
    assert batch_for(128, images=45_000, epochs=10) == 64  # 7,031 steps
    assert batch_for(128, images=1460, epochs=50) == 32
    assert batch_for(64, images=1460, epochs=50) == 32
    assert batch_for(48, images=1460, epochs=1) == 48, "not below 32"
    assert batch_for(128, images=20, epochs=1000) == 20


def test_as_many_passes_as_come_nearest(slow: Slow) -> None:
    found = length("255s", slow, lambda: train(slow))
    assert found[0] == 3


def test_what_ends_an_epoch_is_counted(slow: Slow) -> None:
    def longer() -> None:
        everyone = MapInMemory(slow, torch.zeros(1, 1, 4, 4))
        for number in range(time_budget.TRIED):
            slow.before_step(number / time_budget.TRIED, everyone)
            slow.loss(None, "all")
        slow.clock[0] += 20.0
        slow.finish(everyone)

    epochs, steps = length("5m", slow, longer)
    assert 299 < epochs * (50 + 0.11 * steps) + 5 < 300.5
