"""EMA: an average by hand, which nothing but its update moves."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_app.data.batch import Batch
from ssl_app.training.ema import EMA
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from ssl_app.training.resume import Checkpointing
from ssl_app.training.signals import Stopped
from ssl_app.training.task import DatasetMap, Metrics
from tests import toys


class Averaged(toys.Mean):
    """Follows its network by an average, whose predictions are a second target."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.average, self.decay = EMA(self.net), decay

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        self.average.update(self.net, self.decay)
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(batch, player)
        return loss + (self.net(batch.images) - self.average(batch.images)).square().mean(), metrics


def task_of(decay: float = 0.5) -> Averaged:
    torch.manual_seed(1)
    return Averaged(decay)


def train(task: Averaged, checkpointing: Checkpointing | None = None) -> None:
    fit(task, toys.loader(), Plan({"all": 0.05}, 2, 8), toys.CPU, checkpointing=checkpointing)


def test_an_average_is_that_of_the_equation_statistics_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = EMA(network)
    expected = toys.bits(network)
    for decay in (0.9, 0.5):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(1)
        average.update(network, decay)
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])


def test_a_copy_shares_nothing_with_what_it_follows() -> None:
    network = nn.Linear(3, 2)
    average = EMA(network)
    images = torch.randn(4, 3)
    before = average(images)
    nn.init.zeros_(network.weight)
    assert torch.equal(average(images), before)


def test_no_optimizer_moves_it() -> None:
    still = task_of(decay=1.0)
    before = {name: p.detach().clone() for name, p in still.average.named_parameters()}
    train(still)
    for name, parameter in still.average.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    moving = task_of()
    train(moving)
    assert not torch.equal(moving.average.module[0].weight, before["module.0.weight"])


def test_it_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    whole, broken, resumed = task_of(), task_of(), task_of()
    train(whole)
    toys.stop_in_step(broken, 4)
    path = tmp_path / "state.safetensors"
    with pytest.raises(Stopped):
        train(broken, Checkpointing(path))
    train(resumed, Checkpointing(path, resume=True))
    toys.assert_same_bits(toys.bits(whole), toys.bits(resumed))
