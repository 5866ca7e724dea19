"""The training loop: one for every task, on one process or several, resumable to the same bits.

It knows nothing of what it trains. Each step's randomness is seeded by (seed, epoch, step, micro-batch).
"""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_app.data.batch import Batch
from ssl_app.data.loading import Loader
from ssl_app.data.seeding import mix
from ssl_app.errors import Change, Set, UserError
from ssl_app.training.distributed import SingleProcess, running_statistics
from ssl_app.training.hardware import Hardware
from ssl_app.training.history import EpochMetrics, History, Progress
from ssl_app.training.optimizer import Plan, at_half_size, build_optimizer, factor, forget, freeze, set_rates
from ssl_app.training.resume import Checkpointing, Position, State, arithmetic, restore, write
from ssl_app.training.rows import empty_rows
from ssl_app.training.signals import Stopped, StopRequest
from ssl_app.training.task import BatchFunction, Metrics, Task

CHECK_EVERY = 50  # steps between checks of whether the loss is finite
SYNC_EVERY = 10  # steps between questions to all processes whether to stop or to save: each costs a message


class Diverged(UserError):
    """The loss became nan or inf."""

    def __init__(self, found: str) -> None:
        super().__init__(found, fix=(Change("lr", "a smaller"), Set("clip", 1)))


@dataclass(frozen=True)
class Hooks:
    """What happens beside the steps of a training."""

    title: str = "training"
    validation: Loader | None = None  # images that each epoch is scored on
    measure: Callable[[int], EpochMetrics] = lambda epoch: {}  # after an epoch (from 0); joins its metrics
    each_epoch: Callable[[History], None] = lambda history: None  # once an epoch is saved


def fit(
    task: Task,
    loader: Loader,
    plan: Plan,
    hardware: Hardware,
    hooks: Hooks | None = None,
    checkpointing: Checkpointing | None = None,
    group: SingleProcess | None = None,
) -> History:
    """Train a task by a plan. -> mean metrics of each epoch, `val_` before those of the validation images.

    `ended` of an epoch is in seconds since 1970. A resumed training calls `each_epoch` once more for the epoch it
    was stopped after, since it cannot know whether it did. Raises Diverged when the loss is not finite, Stopped
    after a signal (with a checkpoint written, where there is `checkpointing`).
    """
    hooks = hooks or Hooks()
    run = _Run(task, loader, plan, hardware, group or SingleProcess(), checkpointing)
    steps = run.steps
    position = run.restore()
    if position.history:
        hooks.each_epoch(position.history)
    progress = Progress(hooks.title, plan.epochs * steps, position.epoch * steps + position.step)
    with progress, StopRequest() as stop:
        while position.epoch < plan.epochs:
            run.begin_epoch(position)
            for micro_batches in loader.epoch(position.epoch, steps, position.step, run.weights):
                run.begin_step(position, steps)
                # once for all players: a batch's generator draws on from one player to the next
                batches = [run.placed(batch, position) for batch in micro_batches]
                for player in task.players:
                    run.begin_player(player)
                    for number, batch in enumerate(batches, 1):
                        hardware.seed(batch.seed >> 1)
                        with hardware.autocast():
                            loss, metrics = task.loss(batch, player)
                        if number == len(batches):
                            run.gradients[player].last_backward()
                        (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
                        run.add(player, loss.detach(), metrics, len(batches))
                    run.update(player, position, steps)
                progress.step()
                run.end_step(position, steps, stop)
            run.end_epoch(position, steps, hooks)
            progress.line(described(position.history[-1], plan.epochs))
        task.finish(_DatasetMap(run, position))
    return position.history


def described(metrics: EpochMetrics, epochs: int) -> str:
    """An epoch's line for people."""
    shown = [f"{k} {metrics[k]:.3f}" for k in metrics if k not in ("epoch", "images_per_second", "ended")]
    return (
        f"epoch {metrics['epoch']:.0f} of {epochs}, {', '.join(shown)}, {metrics['images_per_second']:.0f} images/s"
    )


class _Run:
    """The state of one training, and what surrounds the loss in a step and in an epoch."""

    def __init__(
        self,
        task: Task,
        loader: Loader,
        plan: Plan,
        hardware: Hardware,
        group: SingleProcess,
        checkpointing: Checkpointing | None,
    ) -> None:
        self.task, self.loader, self.plan, self.hardware, self.group = task, loader, plan, hardware, group
        self.steps = plan.steps_per_epoch or loader.steps  # of an epoch
        self.checkpointing, self.saved = checkpointing, time.monotonic()
        self.counted = self.saved  # until when position.seconds is right
        self.weights: Tensor | None = None  # sampling weights of the running epoch
        self.sums: dict[str, Tensor] = {}  # of metrics, on the device, since the last check
        self.began, self.first_step = 0.0, 0  # of this epoch, in this process
        task.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
        freeze(task, plan)
        self.optimizers = {player: build_optimizer(task, player, plan) for player in task.players}
        self.moved = {
            player: [p for g in optimizer.param_groups for p in g["params"]]
            for player, optimizer in self.optimizers.items()
        }
        self.gradients = {player: self.group.gradients(moved) for player, moved in self.moved.items()}

    def begin_epoch(self, position: Position) -> None:
        """Modes, seed, the task's own hook and sampling weights."""
        freeze(self.task, self.plan)  # each_epoch may have put the task into another mode
        if position.step == 0:
            self.hardware.seed(mix(self.loader.seed, position.epoch, 2) >> 1)
            position.reported |= _numbers(self.task.start_epoch(position.epoch, _DatasetMap(self, position)))
            self._forget_reinitialized()
            self.weights = self.task.sampling_weights()
        self.began, self.first_step = time.monotonic(), position.step

    def begin_step(self, position: Position, steps: int) -> None:
        """Seed, and the task's own hook."""
        self.hardware.seed(mix(self.loader.seed, position.epoch, position.step, 3) >> 1)
        reported = self.task.before_step(position.epoch + position.step / steps, _DatasetMap(self, position))
        if reported:
            position.reported |= _numbers(reported)
            self._forget_reinitialized()

    def placed(self, batch: Batch, position: Position | None = None) -> Batch:
        """A batch on the device; with a position, of the size that is trained on there."""
        found = batch.to(self.hardware.device, self.hardware.memory_format)
        if position is None:
            return found
        at = position.epoch * self.steps + position.step
        return found.halved() if at_half_size(self.plan, at, self.plan.epochs * self.steps) else found

    def begin_player(self, player: str) -> None:
        """Let gradients reach this player's parameters only: a generator learns through a frozen discriminator."""
        if len(self.task.players) > 1:
            for other, parameters in self.moved.items():
                for parameter in parameters:
                    parameter.requires_grad_(other == player)
        self.optimizers[player].zero_grad(set_to_none=True)

    def add(self, player: str, loss: Tensor, metrics: Metrics, pieces: int) -> None:
        """Add the metrics of one of so many micro-batches to the sums, without waiting for the device."""
        key = "loss" if len(self.task.players) == 1 else f"loss_{player}"
        for name, value in (metrics | {key: loss}).items():
            before = self.sums.get(name, torch.zeros((), device=value.device))
            self.sums[name] = before + value.double() / pieces

    def update(self, player: str, position: Position, steps: int) -> None:
        """One step of the player's optimizer, on the mean gradient of all processes."""
        moved, optimizer = self.moved[player], self.optimizers[player]
        self.gradients[player].averaged()
        if self.plan.clip is not None:
            torch.nn.utils.clip_grad_norm_(moved, self.plan.clip)
        set_rates(optimizer, factor(self.plan, position.epoch * steps + position.step, self.plan.epochs * steps))
        optimizer.step()

    def end_step(self, position: Position, steps: int, stop: StopRequest) -> None:
        """Check the loss, save where it is time, stop where a signal came. Raises Diverged, Stopped."""
        at = position.epoch * steps + position.step
        position.step += 1
        last = position.step == steps
        if position.step % CHECK_EVERY == 0 or last:
            self._check(position)
        ended = due = False
        if self.group.world == 1 or at % SYNC_EVERY == SYNC_EVERY - 1 or last:
            ended, due = self.group.any(stop.number is not None), self.group.any(self._due())
        if ended or due:
            self._check(position)
            self.save(position)
        if ended:
            raise Stopped(stop.number or signal.SIGTERM)

    def end_epoch(self, position: Position, steps: int, hooks: Hooks) -> None:
        """Score, measure, save, and move on to the next epoch. Raises Diverged."""
        self.average_statistics()
        made = steps - self.first_step  # 0 where it was stopped after the last step
        seconds = time.monotonic() - self.began
        metrics = (
            {"epoch": position.epoch + 1.0} | {k: v / steps for k, v in position.sums.items()} | position.reported
        )
        if hooks.validation is not None:
            metrics |= {f"val_{name}": value for name, value in self.score(hooks.validation, position).items()}
        measured = hooks.measure(position.epoch)
        assert not metrics.keys() & measured.keys(), "a metric of the task goes by the same name"
        metrics |= measured
        rate = made * self.plan.batch_size / max(seconds, 1e-9)
        if not made:
            rate = position.history[-1]["images_per_second"] if position.history else 0.0
        metrics |= {"images_per_second": rate, "ended": time.time()}
        self._refuse_infinite(metrics)
        position.history.append(metrics)
        position.epoch, position.step, position.sums, position.reported = position.epoch + 1, 0, {}, {}
        self.weights = None
        self.save(position)
        hooks.each_epoch(position.history)

    def score(self, validation: Loader, position: Position) -> EpochMetrics:
        """Mean metrics of the first player on images that are not trained on, of the size that is trained on.

        In full a network that was trained at half the side would look worse than it is, and warnings would be false.
        """
        player = self.task.players[0]
        names: list[str] = []

        def scalars(batch: Batch) -> Tensor:
            loss, metrics = self.task.loss(batch, player)
            names[:] = ["loss", *metrics]
            values = torch.stack([loss.float(), *(value.float() for value in metrics.values())])
            return torch.cat([values * len(batch.index), values.new_tensor([len(batch.index)])])[None]

        views = self.task.needs.scoring_views or None
        rows = torch.cat([row for _, row in self.each_batch(validation, scalars, position, views=views)])
        total = self.group.all_gather(rows[: validation.share]).double().sum(0)
        return dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True))

    def map_images(self, fn: BatchFunction, position: Position, as_in: int | None = None) -> Tensor:
        """The results of this process's share of the training images, in dataset order, a row an image.

        Those of many images lie in a file of the run's folder that is mapped. Else as `each_batch`.
        """
        loader, one = self.loader, self.checkpointing
        found: Tensor | None = None
        for index, rows in self.each_batch(loader, fn, position, as_in):
            if found is None:
                found = empty_rows(max(1, loader.share), rows, None if one is None else one.path.parent)
            found.index_copy_(0, (index - loader.first).to(found.device), rows)
        assert found is not None, "no images"
        return found[: loader.share]

    def each_batch(
        self,
        loader: Loader,
        fn: BatchFunction,
        position: Position | None = None,
        as_in: int | None = None,
        views: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Places and results of this process's images, without gradients; see Loader.ordered for the views.

        In eval mode, or in the mode of the epoch `as_in`; at full size, or at that of a position. To be read to its
        end. fn is never given an empty batch.
        """
        self.average_statistics()
        if as_in is None:
            self.task.eval()
        state = torch.get_rng_state()  # what a hook computes changes no later draw
        for batch in loader.ordered(as_in, views):
            with torch.no_grad(), self.hardware.autocast():
                self.hardware.seed(batch.seed >> 1)
                rows = fn(self.placed(batch, position))
            yield batch.index, rows
        torch.set_rng_state(state)
        freeze(self.task, self.plan)

    def average_statistics(self) -> None:
        """Let all processes hold the mean of their batch-norm statistics, which each takes from its own images."""
        self.group.average(running_statistics(self.task.named_buffers()))

    def save(self, position: Position) -> None:
        """Write the checkpoint, in process 0. Every process calls this at the same step."""
        if self.checkpointing is not None:
            state = State(self.task, self.optimizers, self.weights)
            now = time.monotonic()
            position.seconds, self.counted = position.seconds + now - self.counted, now
            write(self.checkpointing, state, position, self.group, arithmetic(self.hardware))
            self.saved = time.monotonic()

    def restore(self) -> Position:
        """Where the training stands: at its begin, or where its checkpoint says."""
        one = self.checkpointing
        if one is None or not one.resume or not one.path.is_file():
            return Position()
        state = State(self.task, self.optimizers)
        position = restore(one, state, self.group, arithmetic(self.hardware))
        self.weights = state.weights
        return position

    def _due(self) -> bool:
        return self.checkpointing is not None and time.monotonic() - self.saved > self.checkpointing.every

    def _forget_reinitialized(self) -> None:
        reinitialized = set(self.task.reinitialized())
        for optimizer in self.optimizers.values():
            forget(optimizer, reinitialized)

    def _check(self, position: Position) -> None:
        """Move sums from the device to the position, as means over the processes, and see that they are finite."""
        self.group.average(list(self.sums.values()))
        values = {name: float(value) for name, value in self.sums.items()}
        self.sums.clear()
        for name, value in values.items():
            if value != value or abs(value) == float("inf"):
                last = position.step
                raise Diverged(
                    f"{name} became {value} within steps {max(0, last - CHECK_EVERY)} to {last} of epoch "
                    f"{position.epoch + 1}"
                )
            position.sums[name] = position.sums.get(name, 0.0) + value

    def _refuse_infinite(self, metrics: EpochMetrics) -> None:
        """Raise Diverged where an epoch's last step broke the weights, which no training loss has shown yet."""
        tensors = {name: tensor for name, tensor in self.task.state_dict().items() if tensor.is_floating_point()}
        for name, values in (tensors | {name: torch.tensor(value) for name, value in metrics.items()}).items():
            if not bool(torch.isfinite(values).all()):
                raise Diverged(f"{name} became nan or infinite at the end of epoch {metrics['epoch']:.0f}")


@dataclass(frozen=True)
class _DatasetMap:
    """task.DatasetMap: every image of the loader, across processes, of the size that is trained on."""

    run: _Run
    position: Position

    def __call__(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        return self.all_gather(self.local(fn, as_trained=as_trained))

    def local(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        return self.run.map_images(fn, self.position, self.position.epoch if as_trained else None)

    def all_gather(self, rows: Tensor) -> Tensor:
        return self.run.group.all_gather(rows)

    def all_reduce(self, values: Tensor) -> Tensor:
        return self.run.group.all_reduce(values)


def _numbers(metrics: Metrics | dict[str, Any]) -> EpochMetrics:
    return {name: float(value) for name, value in metrics.items()}
