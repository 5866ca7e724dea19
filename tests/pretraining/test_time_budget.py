"""How long an epoch takes, from a few of its steps, on a clock that the test winds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ssl_app.data.batch import Batch
from ssl_app.pretraining import time_budget
from ssl_app.pretraining.schedule import batch_for
from ssl_app.pretraining.time_budget import SHARE, Cost, Trial, length_within, seconds_of
from ssl_app.training.task import DatasetMap, Metrics, Task
from tests.toys import CPU, MapInMemory


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


def tried(task: Slow) -> None:
    images = MapInMemory(task, torch.zeros(1, 1, 4, 4))
    for number in range(time_budget.TRIED):
        task.before_step(number / time_budget.TRIED, images)
        task.loss(None, "all")
    task.finish(images)


def length(task: Slow, budget: str, train: Callable[[], None] | None = None, alone: bool = True) -> tuple[int, int]:
    """Epochs and steps of each within a budget; 600 steps are a pass."""
    seconds = seconds_of(budget)
    trial = Trial(task, train or (lambda: tried(task)), alone)
    return length_within(seconds, Cost.timed(trial, CPU, SHARE * seconds), 600)


def seconds(epochs: int, steps: int, step: float) -> float:
    return epochs * (30 + steps * step) + 5


@pytest.mark.parametrize(
    ("budget", "shown", "epochs"),
    [("40s", "40 s", 1), ("2m", "2 min", 1), ("5m", "5 min", 3), ("1h", "1 h", 37)],
)
def test_epochs_fill_the_time_and_are_near_a_pass(
    slow: Slow, messages: list[str], budget: str, shown: str, epochs: int
) -> None:
    found = length(slow, budget)
    assert found[0] == epochs
    allowed = seconds_of(budget)
    assert seconds(*found, step=0.1099) <= allowed
    assert seconds(found[0], found[1] + 2, step=0.1101) > allowed
    assert messages[0].startswith(f"budget of {shown}: {epochs} epoch")


def test_a_trial_of_slow_steps_ends_early(slow: Slow) -> None:
    def crawl() -> None:
        for number in range(time_budget.TRIED):
            slow.before_step(number / time_budget.TRIED, MapInMemory(slow, torch.zeros(1, 1, 4, 4)))
            slow.clock[0] += 20.0
            slow.steps += 1

    assert length(slow, "5m", crawl) == (1, 13), "30 s before the first step, and 20 s each"
    assert slow.steps == 8, "half of the time"


def test_processes_stop_together(slow: Slow) -> None:
    length(slow, "1s", alone=False)
    assert slow.steps == time_budget.TRIED


def test_an_epoch_longer_than_the_budget_is_noted(slow: Slow, messages: list[str]) -> None:
    assert length(slow, "20s") == (1, 1)
    assert messages[1] == "note: one epoch takes longer than the budget of 20 s, however few its steps"


def test_a_training_of_few_steps_has_small_batches() -> None:
    assert batch_for(128, images=45_000, epochs=20) == 128
    assert batch_for(128, images=45_000, epochs=10) == 64  # 7,031 steps
    assert batch_for(128, images=1460, epochs=50) == 32
    assert batch_for(64, images=1460, epochs=50) == 32
    assert batch_for(48, images=1460, epochs=1) == 48, "not below 32"
    assert batch_for(128, images=20, epochs=1000) == 20


def test_as_many_passes_as_come_nearest(slow: Slow) -> None:
    assert length(slow, "255s")[0] == 3


def test_both_kinds_of_step_fill_the_time() -> None:
    """Steps of half the side for the first 92 %, at a third of the cost, and epochs around them at half of it."""
    small, full = Cost(0.1, 2.0, 7.0), Cost(0.3, 4.0, 5.0)
    epochs, steps = length_within(600.0, full.after(small, 0.92), 100)
    total, around = epochs * steps, epochs * (0.92 * 2 + 0.08 * 4)
    spent = 0.1 * round(0.92 * total) + 0.3 * (total - round(0.92 * total)) + around + 5
    assert spent == pytest.approx(600, rel=0.01)
    in_full = length_within(600.0, full, 100)
    assert total / (in_full[0] * in_full[1]) > 2.4


def test_what_ends_an_epoch_is_counted(slow: Slow) -> None:
    def longer() -> None:
        images = MapInMemory(slow, torch.zeros(1, 1, 4, 4))
        for number in range(time_budget.TRIED):
            slow.before_step(number / time_budget.TRIED, images)
            slow.loss(None, "all")
        slow.clock[0] += 20.0
        slow.finish(images)

    epochs, steps = length(slow, "5m", longer)
    assert 299 < epochs * (50 + 0.11 * steps) + 5 < 300.5
