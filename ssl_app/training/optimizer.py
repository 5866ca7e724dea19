"""Optimizers and rate schedules: which parameter moves, by how much, when."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_app.training.ema import EMA
from ssl_app.training.task import Task

QUARTER = 0.25  # of the pixels, at half the side


@dataclass(frozen=True)
class Plan:
    """How to train: one call of the loop.

    A part of the task without a rate is frozen: no gradient, eval mode, so that not one weight and
    not one batch-norm statistic moves.
    """

    rates: Mapping[str, float]  # learning rate at its highest, by part
    epochs: int
    batch_size: int  # images of one optimizer step, over all processes and micro-batches
    steps_per_epoch: int | None = None  # None: one pass over the images
    accumulate: int = 1  # micro-batches of one process in one step
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # adamw: its first beta
    beta2: float = 0.999  # adamw
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.05  # share of all steps
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)  # shares of all steps, for `step`
    gamma: float = 0.2  # factor at a milestone
    clip: float | None = None  # largest norm of the gradient
    half_size: float = 0.0  # share of all steps, the first ones, on images of half the side


def at_half_size(plan: Plan, step: int, steps: int) -> bool:
    """Whether a step (from 0) of so many trains on images of half the side."""
    return step < round(plan.half_size * steps)


def factor(plan: Plan, step: int, steps: int) -> float:
    """What the rates are multiplied by at a step (from 0) of so many: linear warm-up, then the schedule.

    A step at half the side counts for a quarter, as its pixels do. Else the few steps of full size at the end would
    have hardly any rate.
    """
    small = round(plan.half_size * steps)
    weight = QUARTER if step < small else 1.0
    done = QUARTER * min(step, small) + max(0, step - small)
    total = QUARTER * small + steps - small
    warm = round(plan.warmup * total)
    if done < warm:
        return (done + weight) / warm
    if plan.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, total - warm)))
    if plan.schedule == "step":
        return plan.gamma ** sum(done >= share * total for share in plan.milestones)
    return 1.0


def freeze(task: Task, plan: Plan) -> None:
    """Put every part of a task in the mode that the plan asks for. Call after anything that called train()."""
    task.train()
    for name, part in task.parts().items():
        moves = name in plan.rates
        part.requires_grad_(moves)
        if not moves:
            part.eval()
    for module in task.modules():
        if isinstance(module, EMA):
            module.requires_grad_(False)


def build_optimizer(task: Task, player: str, plan: Plan) -> torch.optim.Optimizer:
    """One player's optimizer; each group keeps its highest rate under `peak`.

    Weight decay spares vectors (biases, batch-norm scales): they do not set the scale of a feature.
    """
    moved = {id(parameter) for parameter in task.parameters_of(player) if parameter.requires_grad}
    plain = {id(parameter) for parameter in task.without_momentum()}
    groups: list[dict[str, Any]] = []
    for name, rate in plan.rates.items():
        mine = [p for p in task.parts()[name].parameters() if id(p) in moved]
        moved -= {id(p) for p in mine}
        for heavy in (True, False):
            for decay, chosen in ((plan.weight_decay, True), (0.0, False)):
                parameters = [p for p in mine if (p.ndim > 1) == chosen and (id(p) not in plain) == heavy]
                if parameters:
                    group = {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
                    groups.append(group if heavy or plan.optimizer == "adamw" else group | {"momentum": 0.0})
    assert not moved, f"{len(moved)} parameters of player {player} belong to no part"
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(plan.momentum, plan.beta2))
    return torch.optim.SGD(groups, momentum=plan.momentum, nesterov=plan.momentum > 0)


def set_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Set every group's rate to a share of its highest."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * multiplier


def forget(optimizer: torch.optim.Optimizer, parameters: set[nn.Parameter]) -> None:
    """Drop the optimizer's memory (momentum, moments) of parameters that were begun anew."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def state_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: `<prefix>.<parameter number>.<what>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{number}.{what}": torch.as_tensor(value)
        for number, entries in state.items()
        for what, value in entries.items()
        if value is not None
    }


def restore_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what state_tensors took; rates are the schedule's to set."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            number, what = name.removeprefix(f"{prefix}.").split(".", 1)
            state.setdefault(int(number), {})[what] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
