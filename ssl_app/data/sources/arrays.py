"""An .npz of arrays: images and labels, groups, split; or MedMNIST's train_images, train_labels and so on."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from sys import intern
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import Limit
from ssl_app.data.images import Unreadable, standard, standard_depth
from ssl_app.data.npz import Stored, read_headers
from ssl_app.data.sources.base import ARRAY_NAMES, SPLITS, UNUSED, Columns, Source, file_stamp, in_order
from ssl_app.data.sources.npy import channels_first
from ssl_app.errors import DataError, Set, nearest

T = TypeVar("T")
MOST_IMAGES = 5_000_000  # in one file: their names alone take a gigabyte

IMAGES, LABELS, GROUPS, SPLIT = ("images", "x"), ("labels", "y"), ("groups", "group"), ("split", "splits")


class Arrays(Source):
    """Images in an .npz: (N, H, W) or (N, H, W, C), and what is known of each as (N,)."""

    def __init__(self, data: str, columns: Columns) -> None:
        self.name = data
        self.path = Path(data)
        held = read_headers(self.path)
        parts = [part for part in SPLITS if f"{part}_images" in held]
        if parts:
            names: dict[str, str | None] = {"images": "images", "label": None, "group": None}
            for kind, usual in (("label", LABELS), ("group", GROUPS)):
                requested = getattr(columns, kind)
                candidates = usual if requested is None else (requested,)
                names[kind] = next((c for c in candidates if f"{parts[0]}_{c}" in held), None)
            if columns.split not in {None, UNUSED}:
                raise DataError(
                    f"the split is array {columns.split}, and {data} is split by its arrays' names",
                    fix=Set("split", UNUSED),
                )
            pieces = {
                kind: [held[f"{part}_{name}"] for part in parts if f"{part}_{name}" in held]
                for kind, name in names.items() if name is not None
            }  # fmt: skip
        else:
            names = {
                "images": chosen(data, held, IMAGES, None),
                "label": chosen(data, held, LABELS, columns.label),
                "group": chosen(data, held, GROUPS, columns.group),
                "split": chosen(data, held, SPLIT, columns.split),
            }
            if names["images"] is None:
                raise DataError(f"{data} holds {', '.join(sorted(held))}; expected images (or x), and labels (or y)")
            pieces = {kind: [held[name]] for kind, name in names.items() if name is not None}
        self.images = Pictures(data, pieces["images"])
        counts = [len(stored) for stored in self.images.parts]
        if parts:
            self.keys = tuple(f"{part}/{i}" for part, count in zip(parts, counts, strict=True) for i in range(count))
            splits = [SPLITS[part] for part, count in zip(parts, counts, strict=True) for _ in range(count)]
            self.splits = None if columns.split == UNUSED else tuple(splits)
            split_name = None if self.splits is None else ARRAY_NAMES
        else:
            self.keys = tuple(map(str, range(sum(counts))))
            self.splits = splits_from(data, texts(data, "split", pieces, len(self.keys)))
            split_name = names["split"]
        self.file_names = (self.path.name,) * len(self.keys)
        self.labels = texts(data, "label", pieces, len(self.keys))
        self.groups = texts(data, "group", pieces, len(self.keys))
        for kind in ("label", "group"):
            requested = getattr(columns, kind)
            if requested not in {None, UNUSED} and names[kind] is None:
                raise DataError(f"{data} has no array '{requested}'{nearest(requested, held)}")
        group = "group" if names["group"] == "groups" else names["group"]
        self.columns = Columns(label=names["label"], group=group, split=split_name)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is an .npz file."""
        return Path(data).suffix.lower() == ".npz" and Path(data).is_file()

    def read(self, i: int) -> NDArray[Any]:
        """Image i, found by reading all before it: slow. Raises Unreadable."""
        with Limit(self.max_image_mb) as limit:
            limit.admit(self.images.shape, self.images.itemsize)
            return self.images.standard(self.images.item(i))

    def each(self, work: Callable[[NDArray[Any]], T]) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) in order: the arrays are read as streams, and never held whole."""
        try:
            with Limit(self.max_image_mb) as limit:
                limit.admit(self.images.shape, self.images.itemsize)
        except Unreadable as reason:
            yield from ((i, reason) for i in range(len(self.keys)))
            return

        def done(item: tuple[int, NDArray[Any]]) -> tuple[int, T | Unreadable]:
            i, array = item
            try:
                return i, work(self.images.standard(array))
            except Unreadable as reason:
                return i, reason

        yield from in_order(done, enumerate(self.images.items()), size=lambda item: item[1].nbytes)

    def stamps(self) -> Iterator[str]:
        """(N,) path, size and time of change of the file, and the position."""
        stamp = file_stamp(self.path.resolve())
        return (f"{stamp}|{key}" for key in self.keys)


def chosen(data: str, held: dict[str, Stored], usual: tuple[str, ...], requested: str | None) -> str | None:
    """The array to use: the one requested for, else the usual name that is there."""
    if requested == UNUSED:
        return None
    if requested is None:
        return next((name for name in usual if name in held), None)
    if requested not in held:
        raise DataError(f"{data} has no array '{requested}'{nearest(requested, held)}")
    return requested


class Pictures:
    """Images (N, H, W) or (N, H, W, C), in one array or in the parts of a split, and the depth that they share."""

    def __init__(self, data: str, parts: list[Stored]) -> None:
        """Raises DataError for other shapes and types, and where the parts differ."""
        self.parts = parts
        for stored in parts:
            refuse_shape(data, stored.shape)
        if len({stored.shape[1:] for stored in parts}) > 1:
            shapes = ", ".join(str(stored.shape) for stored in parts)
            raise DataError(f"{data} holds parts of shapes {shapes}; expected equal ones but for the first axis")
        count = sum(map(len, parts))
        if count > MOST_IMAGES:
            raise DataError(f"{data} holds {count} images", expected=f"{MOST_IMAGES} or fewer")
        try:
            self.dtype = np.result_type(*(stored.dtype for stored in parts))
            standard_depth(np.zeros(1, self.dtype))
        except (Unreadable, TypeError) as reason:
            raise DataError(f"{data} holds {reason}") from reason
        self.shape, self.itemsize = parts[0].shape[1:], self.dtype.itemsize
        if (
            self.dtype.kind in "iu" and self.itemsize > 2
        ):  # one answer for all: the values of one image say too little
            deep = all(int(image.min()) >= 0 and int(image.max()) <= 65535 for image in self.items())
            self.dtype = np.dtype(np.uint16 if deep else np.float32)

    def items(self) -> Iterator[NDArray[Any]]:
        """One after the other, as they are stored."""
        return chain.from_iterable(stored.items() for stored in self.parts)

    def item(self, i: int) -> NDArray[Any]:
        """One of them."""
        for stored in self.parts:
            if i < len(stored):
                return stored.item(i)
            i -= len(stored)
        raise IndexError(i)

    def standard(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W) or (H, W, C) as stored -> (H, W, C) in a depth of ours. Raises Unreadable."""
        return standard(image.astype(self.dtype, copy=False))


def refuse_shape(data: str, shape: tuple[int, ...]) -> None:
    """Raise DataError for what are not images."""
    if channels_first(shape):
        raise DataError(
            f"{data} holds images of shape {shape}, channels first; expected (N, H, W, C): "
            f"save numpy.moveaxis(images, 1, -1)"
        )
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{data} holds images of shape {shape}; expected (N, H, W) or (N, H, W, C)")


def texts(data: str, kind: str, pieces: dict[str, list[Stored]], count: int) -> tuple[str | None, ...] | None:
    """(N,) or (N, 1) values as text; an empty one or not-a-number means unknown."""
    if kind not in pieces:
        return None
    shapes = [stored.shape for stored in pieces[kind]]
    flat = all(len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) for shape in shapes)
    if not flat or sum(shape[0] for shape in shapes) != count:
        shape = shapes[0] if len(shapes) == 1 else shapes
        raise DataError(f"{data} holds a {kind} array of shape {shape}; expected ({count},), one an image")
    array = np.concatenate([stored.whole().reshape(-1) for stored in pieces[kind]])
    if array.dtype.kind == "f":
        if np.isinf(array).any():
            raise DataError(f"{data} holds an infinite {kind}; expected numbers, or nan where it is unknown")
        written = {v: str(int(v)) if v == int(v) else str(v) for v in np.unique(array[~np.isnan(array)]).tolist()}
        return tuple(written.get(v) for v in array.tolist())
    try:
        values = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{data} holds a {kind} that is no UTF-8 text; save it as an array of str") from error
    return tuple(intern(value.strip()) or None for value in values)


def splits_from(data: str, found: tuple[str | None, ...] | None) -> tuple[str | None, ...] | None:
    """train, val or test, by their usual names. Raises DataError for any other value."""
    for value in found or ():
        if value is not None and value.lower() not in SPLITS:
            raise DataError(
                f"{data} holds the split '{value}'", expected="train, val or test", fix=Set("split", UNUSED)
            )
    return None if found is None else tuple(None if v is None else SPLITS[v.lower()] for v in found)
