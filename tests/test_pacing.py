"""How long an epoch takes, from a few of its steps, on a clock that the test winds."""

import pytest
import torch
from torch import Tensor

from ssl_app import pacing
from ssl_app.data.batch import Batch
from ssl_app.pretraining import batch_for
from ssl_app.tasks import Metrics, OverAll, Task
from ssl_app.training.hardware import choose
from tests.toys import Everyone


class Slow(Task):
    """Thirty seconds before its first step, a tenth for each, five at the end; the first steps take longer."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.steps = clock, 0

    def before_step(self, progress: float, over_all: OverAll) -> Metrics:
        self.clock[0] += 30.0 if self.steps == 0 else 0.0
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        self.steps += 1
        self.clock[0] += 2.0 if self.steps < pacing.UNUSUAL else 0.1 + 0.01 * (self.steps % 2)
        return torch.zeros(()), {}

    def finish(self, over_all: OverAll) -> None:
        self.clock[0] += 5.0


def test_a_step_is_told_from_what_begins_and_ends_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    task = Slow(now)
    clock = pacing._Clock(task, choose(device="cpu"))
    everyone = Everyone(task, torch.zeros(1, 1, 4, 4))
    for number in range(pacing.TRIED):
        task.before_step(number / 600, everyone)
        task.loss(None, "all")
    task.finish(everyone)
    step, epoch, end = clock.read(600)
    assert 0.0999 <= step <= 0.1101
    assert epoch == pytest.approx(30 + 600 * step, abs=0.1)
    assert end == pytest.approx(5)


def test_a_training_of_few_steps_has_small_batches() -> None:
    assert batch_for(128, images=45_000, epochs=20) == 128
    assert batch_for(128, images=45_000, epochs=10) == 64  # 7,031 steps
    assert batch_for(128, images=1460, epochs=50) == 32
    assert batch_for(64, images=1460, epochs=50) == 32
    assert batch_for(48, images=1460, epochs=1) == 48, "not below 32"
    assert batch_for(128, images=20, epochs=1000) == 20
