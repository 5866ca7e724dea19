"""A set of images as every verb sees it: packed pixels, what is known of each, and how that came about."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ssl_app.data.packing import pack
from ssl_app.data.prints import SIDE, frequencies, thumbnail
from ssl_app.data.sources.base import Columns, Source
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import Notice

MOST_LOOKS = 500_000  # images of a set that near copies are looked for in: 128 bytes of a checkpoint each
LOOKS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Dataset:
    """N packed images with labels, groups and splits; parts of it are passed around as indices."""

    name: str  # as typed
    images: NDArray[Any]  # (N, P, P, C) memory-mapped, read-only
    keys: tuple[str, ...]  # (N,)
    content: NDArray[np.int64]  # (N,) equal for equal pictures
    classes: tuple[str, ...]  # sorted, as numbers where all are; empty where nothing is labeled
    labels: NDArray[np.int64]  # (N,) position in classes; means nothing where labeled is False
    labeled: NDArray[np.bool_]  # (N,)
    groups: tuple[str, ...] | None  # (N,) never split; an image without one is its own
    splits: tuple[str | None, ...] | None  # (N,) train, val or test, as given with the data
    columns: Columns  # those used
    notes: tuple[Notice, ...]
    unreadable: tuple[tuple[str, str], ...]  # key and reason
    mirrors: bool
    image_size: int
    key: str  # of the packed pixels
    value_units: str = ""  # "modality" where values mean the same in every type

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits over content, labels and groups, in order: the data of a run, for its log."""
        state = hashlib.blake2b(self.content.tobytes(), digest_size=8)
        for i, labeled in enumerate(self.labeled):
            label = self.classes[self.labels[i]] if labeled else ""
            group = self.groups[i] if self.groups is not None else ""
            state.update(f"{label}\0{group}\n".encode("utf-8", "surrogateescape"))
        return state.hexdigest()

    @cached_property
    def state(self) -> dict[str, str]:
        """A hash of the images, of what is never split, and of the given split, in any order; labels do not count."""
        marks = [""] * len(self.content) if self.splits is None else [mark or "train" for mark in self.splits]
        contents = self.content.tolist()
        of_images = {
            "images": contents,
            "groups": zip(contents, self.units, strict=True),
            "split": zip(contents, marks, strict=True),
        }
        return {what: _digest(sorted(map(str, values))) for what, values in of_images.items()}

    @cached_property
    def looks(self) -> NDArray[np.int8] | None:
        """(N, 128) what near copies are found by, of the packed pixels; None for a set of more than MOST_LOOKS."""
        if len(self.content) > MOST_LOOKS:
            return None
        parts = np.array_split(np.arange(len(self.content)), len(self.content) // LOOKS_AT_ONCE + 1)
        return np.concatenate([self._looks(part) for part in parts])

    def _looks(self, indices: NDArray[np.int64]) -> NDArray[np.int8]:
        thumbs = [thumbnail(self.images[i]) for i in indices]
        return frequencies(np.stack(thumbs) if thumbs else np.empty((0, SIDE * SIDE), np.int8))

    @cached_property
    def units(self) -> list[str]:
        """(N,) what is never split, by name: the group, or the content; joined where they share an image."""
        if self.groups is None:
            return [alone(int(content)) for content in self.content]
        names, group = np.unique(np.array(self.groups), return_inverse=True)
        contents, content = np.unique(self.content, return_inverse=True)
        size = len(names) + len(contents)  # a graph of groups and pictures; an image joins the two
        edges = coo_array((np.ones(len(group)), (group, content + len(names))), shape=(size, size))
        component = connected_components(edges, directed=False)[1].astype(np.int64)
        smallest: dict[int, str] = {}
        for number, name in sorted(
            zip(component.tolist(), map(str, names), strict=False),
            key=lambda pair: (named_alone(pair[1]), pair[1]),
        ):
            smallest.setdefault(number, name)
        return [smallest[number] for number in component[group].tolist()]

    def grouped(self) -> NDArray[np.bool_]:
        """(N,) whether the image has a group that the data name."""
        if self.groups is None:
            return np.zeros(len(self.content), dtype=bool)
        pairs = zip(self.groups, self.content, strict=True)
        return np.array([group != alone(int(content)) for group, content in pairs], dtype=bool)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What two states of a set have in common no more, in words: other images, else other groups, another split."""
    if before["images"] != now["images"]:
        return "other images"
    words = {"groups": "other groups", "split": "another given split"}
    return " and ".join(words[what] for what in words if before[what] != now[what]) or None


def _digest(lines: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def alone(content: int) -> str:
    """The group of an image that is in none: its content, so that exact copies stay together."""
    return f"image {content & (2**64 - 1):016x}"


def named_alone(unit: str) -> bool:
    """True for the unit of an image without a group: a group it is joined with goes first."""
    return unit.startswith("image ")


def open_dataset(source: Source, pixels: PixelSpec, cache: Path, max_unreadable: int = 0) -> Dataset:
    """A source, packed in the form of `pixels`. Raises DataError for all that cannot be used."""
    packed = pack(source, pixels, cache, max_unreadable=max_unreadable, progress=True)
    return replace(
        described(source, packed.rows, packed.content, packed.images),
        notes=(*source.notes, *packed.notes),
        unreadable=packed.unreadable,
        image_size=pixels.size,
        key=packed.key,
    )


def described(source: Source, rows: NDArray[np.int64], content: NDArray[np.int64], images: NDArray[Any]) -> Dataset:
    """The readable images of a source with what it says of them."""
    classes, labels, labeled = label_arrays(source, rows)
    groups = None
    if source.groups is not None:
        groups = tuple(source.groups[row] or alone(int(of)) for row, of in zip(rows, content, strict=True))
    return Dataset(
        name=source.name,
        images=images,
        keys=tuple(source.keys[row] for row in rows),
        content=content,
        classes=classes,
        labels=labels,
        labeled=labeled,
        groups=groups,
        splits=None if source.splits is None else tuple(source.splits[row] for row in rows),
        columns=source.columns,
        notes=source.notes,
        unreadable=(),
        mirrors=source.mirrors,
        value_units=source.value_units,
        image_size=int(images.shape[1]),
        key="",
    )


def label_arrays(
    source: Source, rows: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.bool_]]:
    """Classes, labels and labeled of the source's rows; a class without a readable image is none."""
    found = [None] * len(rows) if source.labels is None else [source.labels[row] for row in rows]
    classes = in_class_order({label for label in found if label is not None})
    position = {name: i for i, name in enumerate(classes)}
    labels = np.array([0 if label is None else position[label] for label in found], dtype=np.int64)
    return classes, labels, np.array([label is not None for label in found], dtype=bool)


def in_class_order(names: set[str]) -> tuple[str, ...]:
    """Sorted: 2 before 10 where all are whole numbers, by letters elsewhere."""
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numbers else (0, name)))
