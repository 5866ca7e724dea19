"""From a verb's settings to an opened set: which data, at what size, split how; every choice is said."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssl_app import registry
from ssl_app.data.dataset import Dataset, open_dataset
from ssl_app.data.label_files import numbered, read_labels
from ssl_app.data.packing import first_image
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.data.splits import Parts, split
from ssl_app.errors import DataError
from ssl_app.runs import Say
from ssl_app.settings import DataSettings

SMALLEST_SIDE, LARGEST_SIDE = 16, 64  # pixels, where the user names no image size
TEST_FRACTION = 0.2
MANY_CHANNELS, MOST_CLASSES = 16, 12  # above which a set is remarked on, and classes are not all named


@dataclass(frozen=True)
class Opened:
    """A packed set and its parts."""

    dataset: Dataset
    parts: Parts


def source_of(settings: DataSettings, data: str) -> Source:
    """The source that --data, --label, --group and --split name."""
    return open_source(data, Columns(settings.label, settings.group, settings.split))


def with_labels(dataset: Dataset, path: Path, say: Say) -> Dataset:
    """The set with the labels of a table instead of its own; images that it does not name have none."""
    table = read_labels(path)
    column = next(iter(table.columns))
    classes, numbers = numbered(table.of(dataset.keys)[0])
    labels = np.array(numbers, dtype=np.int64)
    known = labels >= 0
    found = f"{known.sum()} of {len(labels)} images, {len(classes)} classes, from column {column} of {path}"
    say(f"labels: {found}; they are what is tested, too")
    lost = table.unmatched(dataset.keys)
    if lost:
        say(f"note: {len(lost)} of {len(table.rows)} rows of {path} name no image, the first is '{lost[0]}'")
    if len(classes) < 2:
        only = f"the label '{classes[0]}' alone" if classes else "no label"
        raise DataError(
            f"{path} gives {only} to these images; expected two classes or more: fill its column {column}"
        )
    return replace(dataset, classes=classes, labels=np.where(known, labels, 0), labeled=known)


def default_image_size(source: Source, backbone: str, say: Say) -> int:
    """The side to train at where the user named none: that of the images, within what the backbone is made for."""
    side = min(first_image(source).shape[:2])
    ours = backbone.partition("+")[0] in registry.names("models.backbones")
    largest = LARGEST_SIDE if ours else 224
    chosen = int(min(max(side, SMALLEST_SIDE), largest))
    say(f"image size: {chosen} px (the first image's short side is {side} px; --image-size says otherwise)")
    return chosen


def open_data(
    settings: DataSettings,
    source: Source,
    out: Path,
    *,
    image_size: int,
    channels: int | None,
    intensity: str,
    say: Say,
    pack_side: int | None = None,
) -> Opened:
    """Pack a source (or find it packed) and split it."""
    dataset = open_dataset(
        source,
        image_size=image_size,
        channels=channels,
        intensity=intensity,
        cache=out / "cache",
        max_unreadable=settings.max_unreadable,
        progress=True,
        pack_side=pack_side,
    )
    tell(dataset, say)
    parts = split(dataset, fraction=settings.test_fraction or TEST_FRACTION, seed=settings.split_seed or 0)
    size = "x".join(map(str, dataset.images.shape[1:]))
    say(f"data: {dataset.name}, {len(dataset.keys)} images packed as {size} {dataset.images.dtype}")
    say(f"{parts.how}: {len(parts.train)} train, {len(parts.val)} val, {len(parts.test)} test")
    return Opened(dataset, parts)


def tell(dataset: Dataset, say: Say) -> None:
    """What the user should know of the files: what was left out, and what may not be what was meant."""
    for note in dataset.notes:
        say(f"note: {note}")
    for name, reason in dataset.unreadable:
        say(f"left out, unreadable: {name} ({reason})")
    channels = dataset.images.shape[-1]
    if channels > MANY_CHANNELS:
        say(f"note: images of {channels} channels: pages of a file count as channels, and volumes are not understood")
    if dataset.labeled.any():
        counts = np.bincount(dataset.labels[dataset.labeled], minlength=len(dataset.classes)).tolist()
        shown = [f"{name} {count}" for name, count in zip(dataset.classes, counts, strict=True)]
        more = [f"and {len(shown) - MOST_CLASSES} more"] if len(shown) > MOST_CLASSES else []
        none = int((~dataset.labeled).sum())
        unlabeled = f"; {none} without a label" if none else ""
        say(f"its labels: {', '.join(shown[:MOST_CLASSES] + more)}{unlabeled}")
