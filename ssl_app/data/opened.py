"""Opening a set: images packed, labels and split known, every decision in the log."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssl_app.data import class_names, copies
from ssl_app.data.dataset import Dataset, open_dataset
from ssl_app.data.label_tables import numbered, read_labels, root_of
from ssl_app.data.packing import first_image
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import Parts, group_overlap, split
from ssl_app.errors import DataError, Fix, Notice, Run, UserError, count_of, together

logger = logging.getLogger(__name__)

SMALLEST_SIDE = 16  # pixels, where the user names no image size
MOST_NOTES, MOST_UNREADABLE = 12, 5  # lines about a set
MANY_CHANNELS, MOST_CLASSES = 16, 12  # above which a set is remarked on, and classes are not all named


@dataclass(frozen=True)
class Opened:
    """A packed set and its parts."""

    dataset: Dataset
    parts: Parts


def open_data(spec: DataSpec, pixels: PixelSpec, source: Source | None = None) -> Opened:
    """Pack what a spec names (or find it packed), split it, and take its labels. Raises DataError."""
    dataset = open_images(spec, pixels, source)
    describe(dataset)
    parts = split(dataset, fraction=spec.test_fraction, seed=spec.split_seed, allow_leak=spec.allow_leak)
    size = "x".join(map(str, dataset.images.shape[1:]))
    logger.info(
        f"data: {dataset.name}, {count_of(len(dataset.keys), 'image')} packed as {size} {dataset.images.dtype}"
    )
    logger.info(f"{parts.how}: {len(parts.train)} train, {len(parts.val)} val, {len(parts.test)} test")
    if spec.labels is not None:
        dataset = with_labels(dataset, spec.labels, spec.columns, spec.label)
    return Opened(dataset, parts)


def open_images(spec: DataSpec, pixels: PixelSpec, source: Source | None = None) -> Dataset:
    """Pack what a spec names (or find it packed), without a split. Raises DataError."""
    source = source or open_source(spec.data, spec.columns, spec.max_image_mb)
    try:
        return open_dataset(source, pixels, spec.cache, spec.max_unreadable)
    except UserError as error:  # of what is wrong with a set all is said together
        log_notes((*source.notes, *error.beside))
        further = None if spec.allow_leak else group_overlap(source)
        raise together([error, *([] if further is None else [further])]) from error


def with_labels(dataset: Dataset, path: Path, columns: Columns, label: str | None = None) -> Dataset:
    """The set with the labels of a table instead of its own. Raises DataError unless it has two classes or more."""
    relabeled, column = labeled_by(dataset, path, columns, label)
    logger.info("the test uses the labels of the table, too")
    classes = relabeled.classes
    if len(classes) < 2:
        only = f"the label '{classes[0]}' alone" if classes else "no label"
        raise DataError(
            f"{path} gives {only} to these images",
            expected="two classes or more",
            fix=Fix(f"fill its column {column}"),
        )
    return relabeled


def labeled_by(dataset: Dataset, path: Path, columns: Columns, label: str | None = None) -> tuple[Dataset, str]:
    """The set with the labels of a table, and the column they stand in; images that it does not name have none.

    Labels may be few, or none at all. Raises DataError.
    """
    unread = [key for key, _ in dataset.unreadable]
    table, notes = read_labels(
        path, [*dataset.keys, *unread], label, root_of(dataset.name), dataset.groups is not None
    )
    log_notes(notes)
    column = next(iter(table.columns))
    named = class_names.without(table.of(dataset.keys)[0], columns.unlabeled, columns.one_spelling)
    classes, numbers = numbered(named)
    labels = np.array(numbers, dtype=np.int64)
    known = labels >= 0
    found = f"{known.sum()} of {len(labels)} images, {len(classes)} classes, from column {column} of {path}"
    logger.info(f"labels: {found}")
    log_notes(class_names.notices(named))
    lost = table.unmatched([*dataset.keys, *unread])
    if broken := [key for key in unread if table.row_of(key) is not None]:
        rows = "1 row names an image" if len(broken) == 1 else f"{len(broken)} rows name images"
        first = f"'{broken[0]}'" if len(broken) == 1 else f"the first is '{broken[0]}'"
        logger.info(f"note: in {path} {rows} that could not be read, {first}")
    if lost:
        logger.info(f"note: {len(lost)} of {len(table.rows)} rows of {path} name no image, the first is '{lost[0]}'")
    return replace(dataset, classes=classes, labels=np.where(known, labels, 0), labeled=known), column


def default_image_size(source: Source, fitting: Callable[[int], int]) -> int:
    """The side to train at where the user names none: the first image's, at least 16 px, as `fitting` makes of it."""
    side = int(min(first_image(source).shape[:2]))
    chosen = fitting(max(side, SMALLEST_SIDE))
    logger.info(f"image size: {chosen} px (the first image's short side is {side} px)")
    return chosen


def log_notes(notes: Sequence[Notice]) -> None:
    """Log what should be known of a set, in MOST_NOTES lines at most."""
    shown = notes if len(notes) <= MOST_NOTES else notes[: MOST_NOTES - 1]
    for note in shown:
        logger.info(note.prefixed("note: "))
    if len(shown) < len(notes):
        logger.info(Notice(f"note: {len(notes) - len(shown)} more", fixes=(Run("doctor DATA"),)))


def describe(dataset: Dataset) -> None:
    """Log what the user should know of the files: what was left out, and what may not be what was meant."""
    log_notes((*dataset.notes, *copies.notices(dataset)))
    for name, reason in dataset.unreadable[:MOST_UNREADABLE]:
        logger.info(f"left out, unreadable: {name} ({reason})")
    if len(dataset.unreadable) > MOST_UNREADABLE:
        logger.info(f"left out, unreadable: {len(dataset.unreadable) - MOST_UNREADABLE} more")
    channels = dataset.images.shape[-1]
    if channels > MANY_CHANNELS:
        logger.info(
            f"note: images of {channels} channels: a picture's bands, and no volume of which each slice is an image"
        )
    if dataset.labeled.any():
        counts = np.bincount(dataset.labels[dataset.labeled], minlength=len(dataset.classes)).tolist()
        shown = [f"{name} {count}" for name, count in zip(dataset.classes, counts, strict=True)]
        few = int(np.argmin(counts))
        least = f", the smallest {shown[few]}" if few >= MOST_CLASSES else ""
        more = [f"and {len(shown) - MOST_CLASSES} more{least}"] if len(shown) > MOST_CLASSES else []
        none = int((~dataset.labeled).sum())
        unlabeled = f"; {none} without a label" if none else ""
        logger.info(f"labels of the data: {', '.join(shown[:MOST_CLASSES] + more)}{unlabeled}")
