"""The schedule of a pretraining: what the user chose, and for the rest what the method and the images say."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Literal

from ssl_app.errors import Change, Fix, Notice, Set, SettingsError
from ssl_app.models.backbones import Backbone, PreferredOptimizer
from ssl_app.pretext.base import Defaults, Pretext
from ssl_app.training.optimizer import Plan
from ssl_app.training.progressive_resizing import Resizing, Usual

logger = logging.getLogger(__name__)

STEPS = 5000  # of a training, below which batches are halved
# share of the steps on images of half the side. They take 79 to 82 % of the time: a view of the small ResNet takes
# .86 ms at 32 px and 2.71 ms at 64 (bf16, one core of an AMD EPYC), .4 of the time in a whole training beside others.
# At 32 px: SimCLR on CIFAR-10 for eight minutes of one core, logistic head on validation images at 8 and 32 labels
# per class: 32.1 and 38.1 in full (2.4 passes), 36.2 and 43.5 with nine tenths of the steps at 16 px (4.8 passes)
HALF_SIZE = Usual(share=0.92, least_side=32)
OTHER_LR = {"sgd": 0.05, "adamw": 1e-3}  # where the user takes another optimizer than the method's


@dataclass(frozen=True)
class Schedule:
    """What the user chose of a training; None is left to the method."""

    epochs: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: Literal["cosine", "step", "constant"] | None = None
    warmup: float | None = None
    clip: float | None = None
    progressive_resizing: float | None = None  # share of the steps


def batch_for(largest: int, images: int, epochs: int, smallest: int = 32) -> int:
    """Images of a step, where the user names none: fewer where a training would have too few steps otherwise.

    In the same minutes on one CPU core, 32 instead of 128 gave SeLa on 20,000 images of CIFAR-10 .375 instead of
    .321 kNN accuracy; RotNet on 1,460 of steel had .92 after 30 epochs, and .81 after 50 (one run each).
    """
    batch = min(largest, images)
    while batch >= 2 * smallest and epochs * images < STEPS * batch:
        batch //= 2
    return batch


def resizing_of(schedule: Schedule, name: str, method: type[Pretext[object]], backbone: Backbone) -> Resizing:
    """Which share of the steps is at half the side. Raises SettingsError where a request cannot be met."""
    against = None if method.progressive_resizing else f"{name} depends on the size of its images"
    return Resizing.decide(schedule.progressive_resizing, HALF_SIZE, backbone, against)


def defaults_of(method: type[Pretext[object]], preferred: PreferredOptimizer | None) -> Defaults:
    """The method's defaults, with the optimizer that the backbone prefers where the method has plain SGD."""
    own = method.defaults
    if preferred is None or own.optimizer != "sgd" or preferred.name == "sgd":
        return own
    return replace(own, optimizer=preferred.name, lr=preferred.lr, weight_decay=preferred.weight_decay)


def plan_of(
    schedule: Schedule,
    method: type[Pretext[object]],
    images: int,
    world: int = 1,
    preferred: PreferredOptimizer | None = None,
) -> Plan:
    """How to train on so many images in so many processes. Raises SettingsError for a batch that cannot be cut.

    `preferred` is the backbone's optimizer.
    """
    own = defaults_of(method, preferred)
    pieces = schedule.accumulate * world
    epochs = schedule.epochs or own.epochs
    fitting = batch_for(own.batch_size, images, epochs, own.smallest_batch)
    batch = schedule.batch_size or fitting // pieces * pieces or pieces
    if batch % pieces:
        raise SettingsError(
            f"a batch of {batch} cannot be cut into {world} processes x {schedule.accumulate} micro-batches",
            fix=Set("batch_size", batch // pieces * pieces or pieces),
        )
    if batch // pieces < method.needs.smallest_batch:
        raise SettingsError(
            f"{method.__name__} needs {method.needs.smallest_batch} images in each micro-batch, a batch of {batch} "
            f"in {pieces} has {batch // pieces}",
            fix=(Set("batch_size", pieces * method.needs.smallest_batch), Fix("more")),
        )
    optimizer = schedule.optimizer or own.optimizer
    same = optimizer == own.optimizer
    lr = schedule.lr if schedule.lr is not None else own.lr if same else OTHER_LR[optimizer]
    return Plan(
        rates={part: lr * scale for part, scale in own.lr_scale.items()},
        epochs=epochs,
        steps_per_epoch=schedule.steps_per_epoch,
        batch_size=batch,
        accumulate=schedule.accumulate,
        optimizer=optimizer,
        momentum=own.momentum if same else 0.9,
        beta2=own.beta2 if same else 0.999,
        weight_decay=own.weight_decay if schedule.weight_decay is None else schedule.weight_decay,
        schedule=schedule.schedule or own.schedule,
        warmup=own.warmup if schedule.warmup is None else schedule.warmup,
        clip=schedule.clip,
    )


def resolved(schedule: Schedule, own: Defaults, plan: Plan) -> Schedule:
    """The schedule with what was left to the method filled in, as it is saved."""
    lr = schedule.lr
    if lr is None:
        lr = own.lr if plan.optimizer == own.optimizer else OTHER_LR[plan.optimizer]
    return Schedule(
        plan.epochs,
        plan.steps_per_epoch,
        plan.batch_size,
        plan.accumulate,
        plan.optimizer,
        lr,
        plan.weight_decay,
        plan.schedule,
        plan.warmup,
        plan.clip,
    )


def too_short(name: str, own: Defaults, planned: int, budget: float | None, epochs: int) -> Notice | None:
    """The warning of too few optimizer steps, in so many seconds or epochs; None where they are enough."""
    if planned >= own.least_steps:
        return None
    longer = own.least_steps / planned
    fix = Set("epochs", math.ceil(longer * epochs)) if budget is None else Set("budget", minutes(longer * budget))
    return Notice(
        f"{planned:,} steps are planned; in fewer than {own.least_steps:,} the loss of {name} may stay at chance",
        fixes=(fix, Change("method")),
    )


def minutes(seconds: float) -> str:
    """Whole minutes as they are typed, rounded up: `12m`."""
    return f"{math.ceil(seconds / 60)}m"


def describe(schedule: Schedule, own: Defaults, plan: Plan, images: int) -> None:
    """Log what was decided for the user: a batch smaller than the method's, the rate of another optimizer."""
    if schedule.batch_size is None and plan.batch_size < min(own.batch_size, images):
        logger.info(
            f"batch size: {plan.batch_size} (of {own.batch_size}, {plan.epochs} epochs of {images} images would be "
            f"too few steps)"
        )
    if schedule.lr is None and plan.optimizer != own.optimizer:
        logger.info(f"learning rate: {OTHER_LR[plan.optimizer]:g} (the default of {plan.optimizer})")
