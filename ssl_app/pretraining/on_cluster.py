"""Pretrainings on a Ray cluster: each trains on a node, and comes back as its files and its curves."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssl_app import runs
from ssl_app.pretraining.inputs import Inputs
from ssl_app.pretraining.run import TRAINING, Pretraining
from ssl_app.tracking import Run as TrackedRun
from ssl_app.tracking.nowhere import NowhereRun
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.hardware import Hardware
from ssl_app.training.initialization import BACKBONE
from ssl_app.training.optimizer import Plan
from ssl_app.training.ray_cluster import Call, Cluster, Packed
from ssl_app.training.resume import Checkpointing


@dataclass(frozen=True)
class Trained:
    """What a pretraining leaves on its node."""

    files: Mapping[str, bytes]  # of the run's folder, by name
    pictures: list[str]  # those that tracking keeps
    epochs: list[tuple[Mapping[str, float], int, float | None]]  # what tracking is told: values, step, time
    more: dict[str, Any]  # of result.json
    seconds: float

    def keep(self, folder: Path, tracked: TrackedRun) -> dict[str, Any]:
        """Write it where the run lies, and track it. -> what result.json adds."""
        for name, content in self.files.items():
            runs.write_bytes(folder / name, content)
        for values, step, at in self.epochs:
            tracked.metrics(values, step, at)
        for name in self.pictures:
            tracked.artifact(folder / name)
        return self.more | {"checkpoint": str(folder / BACKBONE)}


def train_all(
    cluster: Cluster, works: Mapping[str, tuple[Pretraining, Mapping[str, Any]]]
) -> Generator[tuple[str, Trained]]:
    """Train pretrainings, each with the settings of its run, as nodes come free. -> (name, what it left).

    Raises RunError where a process is killed again and again, or a node computes otherwise than this one.
    """
    calls = []
    for name, (work, stored) in works.items():
        packed = cluster.pack((work.inputs, work.plan, work.hardware, dict(stored)))
        calls.append(Call(f"pretraining {name}", _train, (packed,)))
    names = dict(zip(map(id, calls), works, strict=True))
    for call, found in cluster.run(calls, "the finished pretrainings are kept"):
        yield names[id(call)], found


def _train(packed: Packed) -> Trained:
    """Train in a process of a node. The task is built there: not every network can be sent."""
    began = time.monotonic()
    sent: tuple[Inputs, Plan, Hardware, dict[str, Any]] = packed.unpacked()
    inputs, plan, hardware, stored = sent
    work = Pretraining.of(inputs, hardware, SingleProcess())
    work = Pretraining(work.inputs, work.task, plan, hardware, work.group)
    recorder = _Recorder()
    with TemporaryDirectory() as place:
        folder = Path(place)
        more = work.train(folder, Checkpointing(folder / TRAINING), recorder, stored)
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != TRAINING}
    return Trained(files, recorder.pictures, recorder.epochs, more, time.monotonic() - began)


@dataclass
class _Recorder(NowhereRun):
    """Notes what tracking is told, to be told again where the run is recorded."""

    epochs: list[tuple[Mapping[str, float], int, float | None]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def metrics(self, values: Mapping[str, float], step: int, timestamp: float | None = None) -> None:
        """Note an epoch."""
        self.epochs.append((dict(values), step, timestamp))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Note a picture."""
        self.pictures.append(path.name)
