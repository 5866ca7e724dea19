"""What `finetune`, `sweep` and `predict` prepare and leave in the same way."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_app import handover, runs
from ssl_app.data import splits
from ssl_app.data.dataset import Dataset
from ssl_app.data.leaks import Leaks, count_leaks
from ssl_app.data.pixels import measure
from ssl_app.data.splits import Parts
from ssl_app.errors import DataError
from ssl_app.handover import Initialization
from ssl_app.opening import default_image_size, open_data, source_of, with_labels
from ssl_app.runs import Say
from ssl_app.settings import DataSettings, StageTwoSettings
from ssl_app.training.hardware import Hardware
from ssl_app.trial import Bench, Outcome, Recipe

VALIDATION_FRACTION = 0.2  # of the training part, where --validation held-out finds no val rows
JUDGE_SEED = 2_000_003  # added likewise, so that what is tested on is not what is selected on
VALIDATION_SEED = 1_000_003  # added to the split seed, so that this hash is another


def bench(settings: StageTwoSettings, start: Initialization, recipe: Recipe, hardware: Hardware, say: Say) -> Bench:
    """Open the labeled set as the initialization wants it. Raises DataError where no trial could be run on it."""
    start.refuse_other_pixels(settings.channels, settings.intensity, settings.image_size)
    asked = with_data_of(settings, start, say)
    source = source_of(asked, asked.data or "digits")
    size = settings.image_size or start.image_size or default_image_size(source, start.backbone, say)
    opened = open_data(
        asked, source, settings.out, image_size=size, channels=settings.channels or start.channels,
        intensity=start.intensity or settings.intensity or "range", say=say,
        pack_side=start.pack_side if size == start.image_size else None,
    )  # fmt: skip
    if settings.labels is not None:
        opened = replace(opened, dataset=with_labels(opened.dataset, settings.labels, say))
    dataset = opened.dataset
    if not dataset.labeled.any():
        if settings.data is None and start.settings:
            raise DataError(
                f"run {start.name} was trained on {dataset.name}, which has no labels; "
                f"add --label COLUMN, --labels FILE, or other --data"
            )
        raise DataError(
            f"{dataset.name} has no labels; type --label COLUMN or --labels FILE, "
            f"or put images into one folder a class"
        )
    parts = opened.parts
    if settings.judge == "held-out":
        parts = _judged_on_train(dataset, parts, (asked.split_seed or 0) + JUDGE_SEED)
        say(f"{parts.how}: {len(parts.train)} train, {len(parts.test)} in the place of test")
    if recipe.validation == "held-out" and not len(parts.val):
        parts = hold_out(dataset, parts, asked.split_seed or 0)
    kept = {name: getattr(parts, name)[dataset.labeled[getattr(parts, name)]] for name in ("train", "val", "test")}
    parts = replace(parts, **kept)
    try:
        splits.check_classes(dataset, parts)
    except DataError as error:
        if start.seen is None or "--split-seed" not in str(error):
            raise
        raise DataError(f"{error} (and pretrain with the same: {start.name} has seen what is test then)") from error
    if recipe.validation == "held-out" and not len(parts.val):
        raise DataError(f"{dataset.name} has no labeled image to hold out beside the draw; type --validation within")
    opened = replace(opened, parts=parts)
    pixels = start.pixels or measure(dataset.images, parts.train, settings.intensity or "range", settings.seed)
    pixels.refuse_other_depth(dataset.images.dtype, dataset.name)
    backbone, loaded = start.build(dataset.images.shape[-1], size, settings.seed)
    backbone.shape(recipe.layer)  # refuses a layer that is not there
    say(f"backbone: {loaded}")
    if start.image_size not in (None, size):
        say(f"image size: {size} px, and {start.image_size} px in pretraining")
    return Bench(opened, start, pixels, recipe, hardware)


def hold_out(dataset: Dataset, parts: Parts, seed: int) -> Parts:
    """The parts with a fifth of the training groups moved to val, by hash as the test part was."""
    again = splits.split(replace(dataset, splits=None), fraction=VALIDATION_FRACTION, seed=seed + VALIDATION_SEED)
    val = np.intersect1d(parts.train, again.test)
    return replace(
        parts, train=np.setdiff1d(parts.train, val), val=val, how=f"{parts.how}; a fifth of train held out"
    )


def _judged_on_train(dataset: Dataset, parts: Parts, seed: int) -> Parts:
    """A fifth of the training part in the place of test, by the first seed that gives both sides every class."""
    absent = None
    for tried in range(seed, seed + splits.SEEDS_TRIED):
        found = hold_out(dataset, replace(parts, val=parts.val[:0]), tried)
        found = replace(found, val=found.val[:0], test=found.val, how=f"{found.how}, to be tested on")
        absent = splits.absent(dataset, found)
        if absent is None:
            return found
    assert absent is not None
    raise DataError(
        f"class '{absent[0]}' has too few images in the training part to test on some: {len(absent[2])}, or of one "
        f"group; expected more of it, or leave it out"
    )


def with_data_of(settings: StageTwoSettings, start: Initialization, say: Say) -> StageTwoSettings:
    """The settings, with the pretraining's data where the user named none, and its split; a flag given beats it."""
    if not start.settings:
        return settings
    if settings.data is not None:  # the split is by content: of the same images it is the same, in another list too
        asked = [name for name in ("test_fraction", "split_seed") if getattr(settings, name) is None]
        split = {name: start.settings[name] for name in asked if start.settings.get(name) is not None}
        if split:
            shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in split.items())
            say(f"{shown}, as in {start.name}")
        return replace(settings, **split)
    theirs = {name: start.settings.get(name) for name in DataSettings.__dataclass_fields__}
    ours = {
        n: getattr(settings, n)
        for n, f in DataSettings.__dataclass_fields__.items()
        if getattr(settings, n) != f.default
    }
    merged: dict[str, Any] = theirs | ours
    merged["data"] = merged["data"] or "digits"
    say(f"data: {merged['data']}, as in {start.name} (--data says otherwise)")
    return replace(settings, **merged)


def leaks_of(bench: Bench) -> Leaks | None:
    """How many test images pretraining saw; None where it is not known (another's weights, random ones)."""
    if bench.start.seen is None:
        return None
    return count_leaks(bench.start.seen, bench.opened.dataset, bench.opened.parts.test)


def leak_sentence(bench: Bench) -> str | None:
    """What the test part has in common with the images that the weights come from, or that it is not known."""
    found = leaks_of(bench)
    told = found.sentence() if found else None
    if not bench.start.ancestry_known:
        unknown = f"what {bench.start.name} was trained on is not known"
        return f"{told}; {unknown}" if told else unknown
    return told


def write_classifier(folder: Path, bench: Bench, outcome: Outcome) -> None:
    """The classifier with all that predict needs, into a run."""
    dataset = bench.opened.dataset
    handover.write_classifier(
        folder / handover.CLASSIFIER,
        outcome.classifier,
        bench.pixels,
        {
            "backbone": bench.start.backbone,
            "channels": int(dataset.images.shape[-1]),
            "image_size": dataset.image_size,
            "pack_side": int(dataset.images.shape[1]),
            "classes": list(dataset.classes),
            "head": bench.recipe.head,
            "layer": bench.recipe.layer,
            "bf16": bench.hardware.bf16,
        },
    )


def write_predictions(path: Path, dataset: Dataset, outcome: Outcome) -> None:
    """CSV of path, label, predicted class and probabilities of the test images."""
    keys = [dataset.keys[row] for row in outcome.rows]
    truth = [dataset.classes[label] for label in outcome.labels]
    write_table(path, keys, dataset.classes, outcome.probabilities, truth)


def write_table(
    path: Path,
    keys: list[str],
    classes: tuple[str, ...],
    probabilities: np.ndarray,
    truth: list[str] | None = None,
) -> None:
    """CSV of path, label (the predicted class) and one probability a class; `truth` adds a column."""
    with (
        runs.draft(path) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "label", *(["truth"] if truth else []), *(f"p_{name}" for name in classes)])
        for row, (key, values) in enumerate(zip(keys, probabilities, strict=True)):
            known = [truth[row]] if truth else []
            writer.writerow([key, classes[int(values.argmax())], *known, *(f"{value:.6f}" for value in values)])
