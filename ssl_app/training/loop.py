"""The training loop: one for every task, on one process or several, resumable to the same bits.

It knows nothing of what it trains. Each step's randomness is seeded by (seed, epoch, step, micro-batch).
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_app.data.batch import Batch
from ssl_app.data.loading import Loader
from ssl_app.data.seeding import mix
from ssl_app.errors import UserError
from ssl_app.training.distributed import OneProcess, running_statistics
from ssl_app.training.hardware import Hardware
from ssl_app.training.optimizer import Plan, build_optimizer, factor, forget, freeze, set_rates
from ssl_app.training.progress import Progress
from ssl_app.training.resume import Position, Row, Saver, State, arithmetic, restore, write
from ssl_app.training.signals import Stopped, StopRequest
from ssl_app.training.task import Ask, Metrics, Task

CHECK_EVERY = 50  # steps between looks at whether the loss is finite
ASK_EVERY = 10  # steps between questions to all processes whether to stop or to save: each costs a message


class Diverged(UserError):
    """The loss became nan or inf."""


def fit(
    task: Task,
    loader: Loader,
    plan: Plan,
    hardware: Hardware,
    *,
    title: str,
    group: OneProcess | None = None,
    held_out: Loader | None = None,
    watch: Callable[[int], Row] = lambda epoch: {},
    each_epoch: Callable[[list[Row]], None] = lambda rows: None,
    saver: Saver | None = None,
) -> list[Row]:
    """Train a task by a plan. -> one row of mean metrics an epoch, `val_` before those of `held_out`.

    What `watch` measures after an epoch (from 0) joins its row; `ended` is when the epoch did, in seconds since
    1970. `each_epoch` is told of a row once it is saved, and once more by a resumed training, which cannot know
    whether it was.

    Raises Diverged when the loss is not finite, Stopped after a signal (with a checkpoint written,
    where there is a saver).
    """
    run = _Run(task, loader, plan, hardware, group or OneProcess(), saver)
    position = run.restore() if saver and saver.resume else Position()
    steps = plan.steps_per_epoch or loader.steps
    if position.rows:
        each_epoch(position.rows)
    progress = Progress(title, plan.epochs * steps, position.epoch * steps + position.step)
    try:
        with StopRequest() as stop:
            while position.epoch < plan.epochs:
                seconds = run.epoch(position, steps, progress, stop)
                row = (
                    {"epoch": position.epoch + 1.0}
                    | {k: v / steps for k, v in position.sums.items()}
                    | position.begun
                )
                if held_out is not None:
                    row |= {f"val_{name}": value for name, value in run.score(held_out).items()}
                watched = watch(position.epoch)
                assert not row.keys() & watched.keys(), "a metric of the task goes by the same name"
                row |= watched
                row |= {"images_per_second": steps * plan.batch_size / max(seconds, 1e-9), "ended": time.time()}
                run.refuse_infinite(row)
                position.rows.append(row)
                position.epoch, position.step, position.sums, position.begun = position.epoch + 1, 0, {}, {}
                run.weights = None
                run.save(position)
                each_epoch(position.rows)
                shown = [f"{k} {row[k]:.3f}" for k in row if k not in ("epoch", "images_per_second", "ended")]
                pace = f"{row['images_per_second']:.0f} images/s"
                progress.line(f"epoch {position.epoch} of {plan.epochs}, {', '.join(shown)}, {pace}")
            task.finish(_OverAll(run, position))
    finally:
        progress.close()
    return position.rows


class _Run:
    """One training: the task, its optimizers and how a step is made."""

    def __init__(
        self,
        task: Task,
        loader: Loader,
        plan: Plan,
        hardware: Hardware,
        group: OneProcess,
        saver: Saver | None,
    ) -> None:
        self.task, self.loader, self.plan, self.hardware, self.group = task, loader, plan, hardware, group
        self.saver, self.saved = saver, time.monotonic()
        self.counted = self.saved  # until when position.seconds is right
        self.weights: Tensor | None = None  # sampling weights of the running epoch
        task.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
        freeze(task, plan)
        self.optimizers = {player: build_optimizer(task, player, plan) for player in task.players}
        self.moved = {
            player: [p for g in optimizer.param_groups for p in g["params"]]
            for player, optimizer in self.optimizers.items()
        }

    def epoch(self, position: Position, steps: int, progress: Progress, stop: StopRequest) -> float:
        """The steps of an epoch that are still to do; -> the seconds that they took, scaled to a whole epoch."""
        seed, plan = self.loader.seed, self.plan
        freeze(self.task, plan)  # each_epoch may have asked the task something
        if position.step == 0:
            torch.manual_seed(mix(seed, position.epoch, 2) >> 1)
            position.begun |= _numbers(self.task.start_epoch(position.epoch, _OverAll(self, position)))
            self._after_hook()
            self.weights = self.task.sampling_weights()
        started, first = time.monotonic(), position.step
        sums: dict[str, Tensor] = {}
        batches = self.loader.epoch(position.epoch, steps, position.step, self.weights)
        for micro in batches:
            torch.manual_seed(mix(seed, position.epoch, position.step, 3) >> 1)
            begun = self.task.before_step(position.epoch + position.step / steps, _OverAll(self, position))
            if begun:
                position.begun |= _numbers(begun)
                self._after_hook()
            at = position.epoch * steps + position.step
            self.step([b.to(self.hardware.device, self.hardware.memory_format) for b in micro], at, steps, sums)
            position.step += 1
            progress.step()
            if position.step % CHECK_EVERY == 0 or position.step == steps:
                self._add(position, sums)
            ended = due = False
            if self.group.world == 1 or at % ASK_EVERY == ASK_EVERY - 1 or position.step == steps:
                ended, due = self.group.any(stop.number is not None), self.group.any(self._due())
            if ended or due:
                self._add(position, sums)
                self.save(position)
            if ended:
                raise Stopped(stop.number or signal.SIGTERM)
        self.agree()
        return (time.monotonic() - started) * steps / max(1, steps - first) if plan.epochs else 0.0

    def step(self, micro: list[Batch], at: int, steps: int, sums: dict[str, Tensor]) -> None:
        """One optimizer step of each player, over this process's micro-batches of the batch."""
        for player, optimizer in self.optimizers.items():
            self._only(player)
            optimizer.zero_grad(set_to_none=True)
            for batch in micro:
                torch.manual_seed(batch.seed >> 1)
                with self.hardware.autocast():
                    loss, metrics = self.task.loss(batch, player)
                (loss / len(micro)).backward()  # type: ignore[no-untyped-call]
                key = "loss" if len(self.task.players) == 1 else f"loss_{player}"
                for name, value in (metrics | {key: loss.detach()}).items():
                    sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.double() / len(micro)
            moved = self.moved[player]
            self.group.average([p.grad for p in moved if p.grad is not None])
            if self.plan.clip is not None:
                torch.nn.utils.clip_grad_norm_(moved, self.plan.clip)
            set_rates(optimizer, factor(self.plan, at, self.plan.epochs * steps))
            optimizer.step()

    def _only(self, player: str) -> None:
        """Let gradients reach this player's parameters only: a maker learns through a judge that stands still."""
        if len(self.task.players) > 1:
            for other, parameters in self.moved.items():
                for parameter in parameters:
                    parameter.requires_grad_(other == player)

    def score(self, held_out: Loader) -> Row:
        """Mean metrics of the first player on images that are not trained on."""
        player = self.task.players[0]

        def scalars(batch: Batch) -> Tensor:
            loss, metrics = self.task.loss(batch, player)
            self._names = ["loss", *metrics]
            values = torch.stack([loss.float(), *(value.float() for value in metrics.values())])
            return torch.cat([values * len(batch.index), values.new_tensor([len(batch.index)])])[None]

        total = self.group.gather(self.unlearning(held_out, scalars)).double().sum(0)
        return dict(zip(self._names, (total[:-1] / total[-1]).tolist(), strict=True))

    def unlearning(self, loader: Loader, fn: Ask, as_in: int | None = None) -> Tensor:
        """The rows of this process's share of the images, in the views and the mode of an epoch where one is named.

        fn is never given an empty batch.
        """
        self.agree()
        if as_in is None:
            self.task.eval()
        state = torch.get_rng_state()  # a hook that asks draws on as if it had not
        with torch.no_grad(), self.hardware.autocast():
            rows, index = [], []
            for batch in loader.ordered(as_in):
                torch.manual_seed(batch.seed >> 1)
                rows.append(fn(batch.to(self.hardware.device, self.hardware.memory_format)))
                index.append(batch.index)
        torch.set_rng_state(state)
        freeze(self.task, self.plan)
        found = torch.cat(rows)
        if as_in is not None:  # shuffled; a row an image
            found = found[torch.cat(index).argsort().to(found.device)]
        return found[: loader.share]

    def refuse_infinite(self, row: Row) -> None:
        """Raise Diverged where an epoch's last step broke the weights, of which no training loss has told yet."""
        tensors = {name: tensor for name, tensor in self.task.state_dict().items() if tensor.is_floating_point()}
        for name, values in (tensors | {name: torch.tensor(value) for name, value in row.items()}).items():
            if not bool(torch.isfinite(values).all()):
                raise Diverged(
                    f"{name} became nan or infinite at the end of epoch {row['epoch']:.0f}; "
                    f"type a smaller --lr, or --clip 1"
                )

    def agree(self) -> None:
        """Let all processes hold the mean of their batch-norm statistics, which each takes from its own images."""
        self.group.average(running_statistics(self.task.named_buffers()))

    def _after_hook(self) -> None:
        renewed = set(self.task.renewed())
        for optimizer in self.optimizers.values():
            forget(optimizer, renewed)

    def _add(self, position: Position, sums: dict[str, Tensor]) -> None:
        """Move sums from the device to the position, as means over the processes, and see that they are finite."""
        self.group.average(list(sums.values()))
        values = {name: float(value) for name, value in sums.items()}
        sums.clear()
        for name, value in values.items():
            if value != value or abs(value) == float("inf"):
                last = position.step
                raise Diverged(
                    f"{name} became {value} within steps {max(0, last - CHECK_EVERY)} to {last} of epoch "
                    f"{position.epoch + 1}; type a smaller --lr, or --clip 1"
                )
            position.sums[name] = position.sums.get(name, 0.0) + value

    def _due(self) -> bool:
        return self.saver is not None and time.monotonic() - self.saved > self.saver.every

    def save(self, position: Position) -> None:
        """Write the checkpoint, in process 0. Every process calls this at the same step."""
        if self.saver is not None:
            state = State(self.task, self.optimizers, self.weights)
            now = time.monotonic()
            position.seconds, self.counted = position.seconds + now - self.counted, now
            write(self.saver.path, state, position, self.group, self.saver.about, arithmetic(self.hardware))
            self.saved = time.monotonic()

    def restore(self) -> Position:
        """Put the checkpoint back, if there is one yet."""
        assert self.saver is not None
        if not self.saver.path.is_file():
            return Position()
        state = State(self.task, self.optimizers)
        position = restore(self.saver, state, self.group, arithmetic(self.hardware))
        self.weights = state.weights
        return position


@dataclass(frozen=True)
class _OverAll:
    """tasks.OverAll: every image of the loader, across processes."""

    run: _Run
    position: Position

    def __call__(self, ask: Ask, *, as_trained: bool = False) -> Tensor:
        return self.join(self.share(ask, as_trained=as_trained))

    def share(self, ask: Ask, *, as_trained: bool = False) -> Tensor:
        return self.run.unlearning(self.run.loader, ask, self.position.epoch if as_trained else None)

    def join(self, rows: Tensor) -> Tensor:
        return self.run.group.gather(rows)

    def total(self, values: Tensor) -> Tensor:
        return self.run.group.total(values)


def _numbers(metrics: Metrics | dict[str, Any]) -> Row:
    return {name: float(value) for name, value in metrics.items()}
