"""Several processes under torchrun, or one: the same methods, so that the loop reads straight."""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_app.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # others wait while process 0 packs; torchrun, not a time limit, ends them if it dies


class SingleProcess:
    """A run of one process: nothing to agree on."""

    rank = 0
    world = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their mean over the processes."""

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        return values

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of every process, in order of rank. (n, ...) -> (N, ...)."""
        return rows

    def any(self, flag: bool) -> bool:
        """Whether the flag stands in any process."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """What process 0 holds."""
        return value

    def run_in_all(self, work: Callable[[], T]) -> T:
        """What `work` returns here. Raises UserError in every process where one raises it, so that none waits."""
        return work()

    def barrier(self) -> None:
        """Until all are here."""

    def close(self) -> None:
        """Leave the group."""


class ProcessGroup(SingleProcess):
    """One of several processes started by torchrun."""

    def __init__(self, cuda: bool) -> None:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if cuda:
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")

    def average(self, tensors: Sequence[Tensor]) -> None:
        """One flat all_reduce for all of them."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, piece in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(piece.view_as(tensor))

    def all_reduce(self, values: Tensor) -> Tensor:
        """One all_reduce, on the device that the group talks over."""
        summed = values.to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(values.device)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Rows may differ in number between processes: padded, gathered, cut."""
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        longest = int(max(int(count) for count in counts))
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        everyone = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(everyone, padded)
        return torch.cat([piece[: int(count)] for piece, count in zip(everyone, counts, strict=True)])

    def any(self, flag: bool) -> bool:
        """Any process's flag, seen by all."""
        seen = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(seen)
        return bool(seen.item() > 0)

    def broadcast(self, value: Any) -> Any:
        """Process 0's value, sent to all."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def run_in_all(self, work: Callable[[], T]) -> T:
        """Where one fails, all raise the error of the first."""
        result: T | None = None
        mine: UserError | None = None
        try:
            result = work()
        except UserError as error:
            mine = error
        errors: list[UserError | None] = [None] * self.world
        dist.all_gather_object(errors, mine)
        for one in errors:
            if one is not None:
                raise one
        return result  # type: ignore[return-value]  # work ended well here, so this is its T

    def barrier(self) -> None:
        """A barrier."""
        dist.barrier()

    def close(self) -> None:
        """Destroy the group."""
        dist.destroy_process_group()


def processes(cuda: bool) -> SingleProcess:
    """The group that torchrun started, or the one process that this is."""
    return ProcessGroup(cuda) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()


def running_statistics(buffers: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """The batch-norm statistics among named buffers: what processes see differently, and agree on each epoch."""
    return [tensor for name, tensor in buffers if name.endswith(("running_mean", "running_var"))]
