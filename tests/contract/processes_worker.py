"""What each of two processes does for test_processes.py; one process does the same to be compared with.

Process RANK of WORLD_SIZE (as torchrun sets them) writes FOLDER/CASE-RANK.pt.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ssl_app import checkpoints
from ssl_app.clustering import sinkhorn
from ssl_app.data.loading import Loader
from ssl_app.errors import DataError, Fix, UserError
from ssl_app.models.backbones import build, small_resnet
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.colorization import Colorization, ColorizationConfig
from ssl_app.pretext.gan import GAN, PENALIZED_EVERY, GANConfig
from ssl_app.pretext.rotnet import RotNet, RotNetConfig
from ssl_app.pretraining.features import mapped
from ssl_app.training import loop
from ssl_app.training.distributed import SingleProcess, processes
from ssl_app.training.history import History
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from ssl_app.training.resume import Checkpointing
from ssl_app.training.signals import Stopped
from ssl_app.training.task import DatasetMap, Metrics, Task
from tests import toys

STEPS = 4  # of an epoch


class Work:
    """The group, and loaders and plans cut for it."""

    def __init__(self, folder: Path, pieces: int) -> None:
        self.folder, self.pieces = folder, pieces
        self.group: SingleProcess = processes(cuda=False)

    def loader(self, count: int = 32, side: int = 12, channels: int = 1) -> Loader:
        return toys.loader(
            count,
            8,
            channels,
            side=side,
            preset="standard",
            micro=self.pieces,
            rank=self.group.rank,
            world=self.group.world,
        )

    def train(
        self,
        task: Task,
        side: int = 12,
        channels: int = 1,
        checkpointing: Checkpointing | None = None,
        **more: object,
    ) -> History:
        plan = Plan(
            **{
                "rates": dict.fromkeys(task.parts(), 0.05),
                "epochs": 2,
                "batch_size": 8,
                "accumulate": self.pieces // self.group.world,
            }
            | more
        )
        hooks = Hooks(validation=self.loader(5, side, channels))
        return fit(task, self.loader(32, side, channels), plan, toys.CPU, hooks, checkpointing, self.group)


class Plain(toys.SelfLabels):
    """Relabels twice an epoch, each time by another score; no batch norm, which sees a process's own images only."""

    def __init__(self) -> None:
        super().__init__(32, at=(0.0, 0.5, 1.0, 1.5))
        self.net[1] = nn.GroupNorm(2, 8)
        self.register_buffer("past", torch.zeros(4, 32, dtype=torch.int64))

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        number = int(self.done)
        metrics = super().before_step(progress, lambda fn: map_dataset(fn).roll(number, 1))
        if metrics:
            self.past[number] = self.labels
        return metrics


class Indices(toys.Mean):
    """Maps each image to its place in the set."""

    found: Tensor

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        self.found = map_dataset(lambda batch: torch.stack([batch.index, batch.index * 10], 1))
        return {}


def rotnet(work: Work) -> dict[str, object]:
    torch.manual_seed(1)
    task = RotNet(build("small-resnet", 1, 16), RotNetConfig(), TrainingSet(32, 2))
    return {"history": work.train(task, side=16, momentum=0.0), "state": task.state_dict()}


def gan(work: Work) -> dict[str, object]:
    torch.manual_seed(1)
    task = GAN(build("small-resnet", 1, 16), GANConfig(noise=8), TrainingSet(32, 2))
    task.steps.fill_(PENALIZED_EVERY - 2)  # the second of the steps to come is penalized
    slow = dict.fromkeys(task.parts(), 5e-4)  # two players enlarge a rounding error, the faster the more
    return {"history": work.train(task, side=16, momentum=0.0, rates=slow), "state": task.state_dict()}


def colorization(work: Work) -> dict[str, object]:
    torch.manual_seed(1)
    task = Colorization(build("small-resnet", 3, 16), ColorizationConfig(), TrainingSet(32, 2))
    return {"history": work.train(task, side=16, channels=3, momentum=0.0), "state": task.state_dict()}


def duel(work: Work) -> dict[str, object]:
    torch.manual_seed(1)
    task = toys.Duel()
    return {"history": work.train(task, optimizer="adamw"), "state": task.state_dict()}


def labels(work: Work) -> dict[str, object]:
    torch.manual_seed(1)
    task = Plain()
    return {"history": work.train(task), "state": task.state_dict()}


def half_size(work: Work) -> dict[str, object]:
    """Five of eight steps, and their labels, at half the side."""
    torch.manual_seed(1)
    task = Plain()
    return {"history": work.train(task, half_size=0.6), "state": task.state_dict()}


def gathered(work: Work) -> dict[str, object]:
    """What map_dataset gives of so many images: two processes do not divide them, or one of the two has none."""
    found = {}
    for count in (7, 1):
        task = Indices()
        plan = Plan({"all": 0.1}, 1, batch_size=8, steps_per_epoch=1, accumulate=work.pieces // work.group.world)
        fit(task, work.loader(count), plan, toys.CPU, group=work.group)
        found[count] = task.found
    return {"rows": found}


def shared_features(work: Work) -> dict[str, object]:
    """Features of so many images, of which each process computes its share: uneven ones, and fewer than processes."""
    found = {}
    for count in (7, 1):
        rows = work.loader(count).rows
        task = _norms()
        found[count] = mapped(task, lambda images: images.flatten(1)[:, :5], rows, toys.CPU, work.group)  # type: ignore[arg-type]
    return {"rows": found}


def balanced(work: Work) -> dict[str, object]:
    """An assignment of 501 rows, of which each process holds its own."""
    rows, rank, world = 501, work.group.rank, work.group.world
    features = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(2)) * 0.3
    weight[3] -= 20.0  # on most rows it underflows
    mine = sinkhorn.Linear(features[rank * rows // world : (rank + 1) * rows // world], weight)
    found = sinkhorn.balance(mine, 25.0, tolerance=1e-5, total=work.group.all_reduce)
    labels = work.group.all_gather(sinkhorn.labels(mine, 25.0, found.potential))
    return {"potential": found.potential, "labels": labels, "error": found.error}


def resumed(work: Work) -> dict[str, object]:
    """Stopped by a SIGTERM that one process alone gets, amid an epoch, and gone on with."""
    whole, broken = _norms(), _norms()
    work.train(whole)
    path = work.folder / "resumed.safetensors"
    written = _count_writes()
    loop.SYNC_EVERY = 2
    if work.group.rank == 1:
        toys.stop_in_step(broken, 6)
    try:
        work.train(broken, checkpointing=Checkpointing(path))
    except Stopped as stopped:
        code = stopped.code
    before = written.copy()
    again = _norms(seed=5)
    work.train(again, checkpointing=Checkpointing(path, resume=True))
    return {"whole": whole.state_dict(), "again": again.state_dict(), "code": code, "written": before}


def mistakes(work: Work) -> dict[str, object]:
    """A mistake that process 0 alone meets is raised in all."""

    def fails() -> None:
        if work.group.rank == 0:
            raise DataError("the disk is gone", fix=Fix("mount it"))

    try:
        work.group.run_in_all(fails)
    except UserError as error:
        return {"error": str(error), "number": work.group.run_in_all(lambda: 3)}
    return {"error": None}


def _norms(seed: int = 1) -> Task:
    torch.manual_seed(seed)
    return toys.Mean()


def _count_writes() -> list[int]:
    written: list[int] = []
    original = checkpoints.write

    def write(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        written.append(meta["position"]["epoch"] * STEPS + meta["position"]["step"])
        original(path, tensors, meta)

    checkpoints.write = write  # type: ignore[assignment]
    return written


CASES: dict[str, Callable[[Work], dict[str, object]]] = {
    case.__name__: case
    for case in (
        rotnet,
        gan,
        colorization,
        duel,
        labels,
        half_size,
        balanced,
        shared_features,
        gathered,
        resumed,
        mistakes,
    )
}


def compute(folder: Path, pieces: int, *cases: str) -> None:
    """What each case gives, a file a case and process; `pieces` micro-batches are a step over all processes."""
    torch.set_num_threads(1)
    work = Work(folder, pieces)
    with mock.patch.object(small_resnet, "WIDTHS", toys.NARROW):
        for case in cases:
            torch.save(CASES[case](work), folder / f"{case}-{os.environ.get('RANK', '0')}.pt")
    work.group.close()


def compute_as(rank: int, world: int, port: int, folder: Path, pieces: int, *cases: str) -> None:
    """The same in a process that torchrun would have started; test_torchrun.py has it start some."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {name: str(world) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    compute(folder, pieces, *cases)
