"""Several processes under torchrun, or one: the same methods, so that the loop reads straight."""

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_app.errors import UserError

T = TypeVar("T")
BUCKET = 4 << 20  # bytes of gradients of one message: a small ResNet's make three
PATIENCE = timedelta(days=1)  # others wait while process 0 packs; torchrun, not a time limit, ends them if it dies


class Gradients:
    """Gradients of one process: nothing to average."""

    def last_backward(self) -> None:
        """Called before the last backward pass of a step: what it adds to is the step's gradient."""

    def averaged(self) -> None:
        """Until every gradient is the mean over the processes."""


class SharedGradients(Gradients):
    """Gradients that are averaged in buckets while the backward pass goes on, as DistributedDataParallel does.

    That class wraps one forward pass, and a task has several. Parameters come in reverse order, as their gradients
    do. A bucket is sent when all its gradients are there and every bucket before it is sent, so that all processes
    send in one order; one that waits for a parameter without a gradient is sent at the end.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: int) -> None:
        self.world = world
        self.buckets = [_Bucket(members) for members in _in_buckets(list(parameters)[::-1])]
        self.next = 0  # bucket to send
        self.listening = False
        for bucket in self.buckets:
            for parameter in filter(lambda one: one.requires_grad, bucket.parameters):
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))  # type: ignore[no-untyped-call]

    def _hook(self, bucket: "_Bucket") -> Callable[[Tensor], None]:
        def arrived(parameter: Tensor) -> None:
            if self.listening:
                bucket.arrived.add(id(parameter))
                self._send_complete()

        return arrived

    def _send_complete(self) -> None:
        while self.next < len(self.buckets) and self.buckets[self.next].complete:
            self.buckets[self.next].send()
            self.next += 1

    def last_backward(self) -> None:
        """Listen from here on: gradients of earlier passes have waited in their parameters."""
        self.listening = True

    def averaged(self) -> None:
        """Send the rest, and put the means in the place of the gradients."""
        self.listening = False
        for bucket in self.buckets[self.next :]:
            bucket.send()
        for bucket in self.buckets:
            bucket.receive(self.world)
        self.next = 0


@dataclass(eq=False)
class _Bucket:
    """Parameters whose gradients travel in one message."""

    parameters: list[nn.Parameter]
    arrived: set[int] = field(default_factory=set)
    sent: list[Tensor] = field(default_factory=list)  # gradients, those that there are
    flat: Tensor | None = None
    work: Any = None

    @property
    def complete(self) -> bool:
        """Whether every gradient is there."""
        return len(self.arrived) == len(self.parameters)

    def send(self) -> None:
        """Start summing what is there over the processes."""
        self.sent = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.sent:
            self.flat = torch.cat([gradient.reshape(-1) for gradient in self.sent])
            self.work = dist.all_reduce(self.flat, async_op=True)

    def receive(self, world: int) -> None:
        """Wait for the sums; gradients become means."""
        if self.flat is not None:
            self.work.wait()
            _put_back(self.flat / world, self.sent)
        self.arrived, self.sent, self.flat, self.work = set(), [], None, None


def _in_buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in order, of one dtype each, some megabytes together."""
    found: list[list[nn.Parameter]] = []
    room = 0
    for one in parameters:
        size = one.numel() * one.element_size()
        if not found or size > room or found[-1][0].dtype != one.dtype:
            found.append([])
            room = BUCKET
        found[-1].append(one)
        room -= size
    return found


def _put_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Fill tensors from the numbers of all of them in one row."""
    for tensor, piece in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))


class SingleProcess:
    """A run of one process: nothing to agree on."""

    rank = 0
    world = 1

    def gradients(self, parameters: Sequence[nn.Parameter]) -> Gradients:
        """What averages the gradients of some parameters over the processes; made once for a training."""
        return Gradients()

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

    def leader_first(self, work: Callable[[], T]) -> T:
        """What `work` returns here, once it has ended in process 0: what that one keeps is not made twice."""
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
        store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # after a restart on one machine the store holds dead addresses
            store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=world)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")

    def gradients(self, parameters: Sequence[nn.Parameter]) -> Gradients:
        """Averaged while the backward pass goes on."""
        return SharedGradients(parameters, self.world)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """One flat all_reduce for all of them."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        _put_back(flat / self.world, tensors)

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

    def leader_first(self, work: Callable[[], T]) -> T:
        """The others wait for process 0."""
        if self.rank:
            self.barrier()
        try:
            return work()
        finally:
            if not self.rank:
                self.barrier()

    def barrier(self) -> None:
        """A barrier."""
        dist.barrier()

    def close(self) -> None:
        """Destroy the group."""
        dist.destroy_process_group()


@dataclass(frozen=True)
class Launch:
    """The torchrun that started this process."""

    name: str  # the same for all processes of it, and after a restart
    restarts: int  # how often it has started them anew
    leads: bool  # whether this is process 0

    @classmethod
    def here(cls) -> "Launch | None":
        """None where torchrun has not started this process."""
        name = os.environ.get("TORCHELASTIC_RUN_ID")
        if name is None:
            return None
        if name == "none":  # torchrun's own where the user names none: then its process tells one from another
            name = f"{socket.gethostname()} {os.getppid()}"
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        return cls(name, restarts, os.environ.get("RANK", "0") == "0")


def processes(cuda: bool) -> SingleProcess:
    """The group that torchrun started, or the one process that this is."""
    return ProcessGroup(cuda) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()


def running_statistics(buffers: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """The batch-norm statistics among named buffers: what processes see differently, and agree on each epoch."""
    return [tensor for name, tensor in buffers if name.endswith(("running_mean", "running_var"))]
