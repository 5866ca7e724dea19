"""The plan of a pretraining: what the user says, and for the rest what the method and the number of images say."""

from dataclasses import replace

from ssl_app.errors import SettingsError
from ssl_app.pretext.base import Pretext
from ssl_app.settings import PretrainSettings
from ssl_app.training.optimizer import Plan

STEPS, SMALL_BATCH = 5000, 32  # of a training, below which batches are halved, and down to how many images


def batch_for(largest: int, images: int, epochs: int) -> int:
    """Images of a step, where the user names none: fewer where a training would have too few steps otherwise.

    In the same minutes on one CPU core, 32 instead of 128 gave SeLa on 20,000 images of CIFAR-10 .375 instead of
    .321 by nearest neighbors; RotNet on 1,460 of steel had .92 after 30 epochs, and .81 after 50 (one run each).
    """
    batch = min(largest, images)
    while batch >= 2 * SMALL_BATCH and epochs * images < STEPS * batch:
        batch //= 2
    return batch


def plan_of(settings: PretrainSettings, method: type[Pretext], images: int, world: int) -> Plan:
    """How to train on so many images in so many processes. Raises SettingsError for a batch that cannot be cut."""
    pieces = settings.accumulate * world
    epochs = settings.epochs or method.epochs
    batch = settings.batch_size or batch_for(method.batch_size, images, epochs) // pieces * pieces or pieces
    if batch % pieces:
        raise SettingsError(
            f"--batch-size {batch} cannot be cut into {world} processes x {settings.accumulate} micro-batches; "
            f"type --batch-size {batch // pieces * pieces or pieces}"
        )
    if batch // pieces < method.needs.smallest_batch:
        raise SettingsError(
            f"{settings.method} needs {method.needs.smallest_batch} images in each micro-batch, --batch-size {batch} "
            f"in {pieces} has {batch // pieces}; type --batch-size {pieces * method.needs.smallest_batch}, or more"
        )
    rate = method.rate if settings.lr is None else settings.lr
    optimizer = method.optimizer if settings.optimizer == "default" else settings.optimizer
    return Plan(
        rates={part: rate * share for part, share in method.shares.items()},
        epochs=epochs,
        steps_per_epoch=settings.steps_per_epoch,
        batch_size=batch,
        accumulate=settings.accumulate,
        optimizer=optimizer,  # type: ignore[arg-type]
        momentum=method.momentum if optimizer == method.optimizer else 0.9,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup=settings.warmup,
        clip=settings.clip,
    )


def resolved(settings: PretrainSettings, method: type[Pretext], plan: Plan, size: int) -> PretrainSettings:
    """The settings with what was left to us filled in, as they are saved and logged."""
    return replace(
        settings,
        data=settings.data or "digits",
        image_size=size,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        lr=method.rate if settings.lr is None else settings.lr,
        optimizer=plan.optimizer,
    )
