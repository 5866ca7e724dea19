"""A training under way, written down so that it goes on to the same bits.

Each step's randomness is a function of its place in the training, so no generator's state is kept:
weights, optimizers, position and sums are all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ssl_app import checkpoints
from ssl_app.errors import CheckpointError, Fix, Set, Switch
from ssl_app.training.distributed import SingleProcess, running_statistics
from ssl_app.training.hardware import Hardware
from ssl_app.training.history import EpochMetrics, History
from ssl_app.training.optimizer import restore_state, state_tensors
from ssl_app.training.task import Task


@dataclass
class Position:
    """Where a training stands: everything of a checkpoint that is not a tensor."""

    epoch: int = 0
    step: int = 0  # within the epoch
    seconds: float = 0.0  # that it took so far
    sums: EpochMetrics = field(default_factory=dict)  # of the metrics of this epoch's steps
    reported: EpochMetrics = field(default_factory=dict)  # what start_epoch and before_step reported
    history: History = field(default_factory=list)


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a training is saved, and whether it goes on from there."""

    path: Path
    every: float = 60.0  # seconds; the end of an epoch and a signal save too
    resume: bool = False
    any_threads: bool = False  # go on under other threads, versions or arithmetic, where bits may differ
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # what must be as it was: the images, say


@dataclass
class State:
    """Everything of a training that is a tensor."""

    task: Task
    optimizers: Mapping[str, torch.optim.Optimizer]  # of each player
    weights: Tensor | None = None  # sampling weights of the running epoch


def arithmetic(hardware: Hardware) -> dict[str, str]:
    """What the bits depend on beside the settings; threads count on a CPU only."""
    found = {
        "device": hardware.device.type,
        "precision": "bf16" if hardware.bf16 else "fp32",
        "torch": torch.__version__,
    }
    return found | ({"threads": str(hardware.threads)} if hardware.device.type == "cpu" else {})


def seconds_so_far(path: Path) -> float:
    """What a training took until it was saved; 0 where it was not yet. Raises CheckpointError."""
    return float(checkpoints.read(path)[1]["position"].get("seconds", 0.0)) if path.is_file() else 0.0


def write(
    checkpointing: Checkpointing,
    state: State,
    position: Position,
    group: SingleProcess,
    arithmetic: Mapping[str, str],
) -> None:
    """Write the checkpoint, in process 0; every process calls this at the same step. Raises OSError."""
    own = [tensor.reshape(-1) for tensor in running_statistics(state.task.named_buffers())]
    statistics = group.all_gather(torch.cat(own)[None]) if own else None  # (processes, numbers)
    if group.rank == 0:
        tensors = {f"task.{name}": tensor for name, tensor in state.task.state_dict().items()}
        for player, optimizer in state.optimizers.items():
            tensors |= state_tensors(optimizer, f"optimizer.{player}")
        if state.weights is not None:
            tensors["loader.weights"] = state.weights
        if statistics is not None and group.world > 1:
            tensors["statistics"] = statistics
        meta = {
            "position": vars(position),
            "processes": group.world,
            "fingerprints": dict(checkpointing.fingerprints),
        }
        checkpoints.write(checkpointing.path, tensors, meta | {"arithmetic": dict(arithmetic)})
    group.barrier()  # a process that ends has torchrun end all, in the midst of writing too


def restore(
    checkpointing: Checkpointing, state: State, group: SingleProcess, arithmetic: Mapping[str, str]
) -> Position:
    """Put a checkpoint back into the state. Raises CheckpointError where it would not go on to the same bits."""
    tensors, meta = checkpoints.read(checkpointing.path)
    if meta["processes"] != group.world:
        raise CheckpointError(
            f"{checkpointing.path} was trained by {meta['processes']} processes, here are {group.world}",
            fix=Fix(f"start {meta['processes']} processes again with torchrun"),
        )
    for what, before in meta["fingerprints"].items():
        if checkpointing.fingerprints.get(what) != before:
            raise CheckpointError(
                f"the {what} are not those that {checkpointing.path} was trained on",
                fix=(Fix("put them back as they were"), Fix("start a new run")),
            )
    for what, here in arithmetic.items():
        before = meta["arithmetic"].get(what)  # a GPU's has no threads
        if before is not None and before != here and not checkpointing.any_threads:
            raise CheckpointError(
                f"{checkpointing.path} was trained with {what} {before}, here it is {here}: the bits would differ",
                fix=(Fix(f"install torch {before}") if what == "torch" else Set(what, before), Switch("any_threads")),
            )
    own = {name.removeprefix("task."): t for name, t in tensors.items() if name.startswith("task.")}
    state.task.load_state_dict(own)
    if "statistics" in tensors:
        mine = running_statistics(state.task.named_buffers())
        pieces = torch.split(tensors["statistics"][group.rank], [tensor.numel() for tensor in mine])
        for tensor, piece in zip(mine, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))
    for player, optimizer in state.optimizers.items():
        restore_state(optimizer, tensors, f"optimizer.{player}")
    state.weights = tensors.get("loader.weights")
    return Position(**meta["position"])
