"""An .npz of arrays: images and labels, groups, split; or MedMNIST's train_images, train_labels and so on."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.images import Unreadable, standard, standard_depth
from ssl_app.data.sources.base import ARRAY_NAMES, SPLITS, UNUSED, Columns, Source, file_stamp
from ssl_app.errors import DataError, Fix, Set, nearest

IMAGES, LABELS, GROUPS, SPLIT = ("images", "x"), ("labels", "y"), ("groups", "group"), ("split", "splits")


class Arrays(Source):
    """Images in an .npz: (N, H, W) or (N, H, W, C), and what is known of each as (N,)."""

    def __init__(self, data: str, columns: Columns) -> None:
        self.name = data
        self.path = Path(data)
        held = load(self.path)
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
                kind: joined(data, [held[f"{part}_{name}"] for part in parts if f"{part}_{name}" in held])
                for kind, name in names.items() if name is not None
            }  # fmt: skip
            counts = [len(held[f"{part}_images"]) for part in parts]
            self.keys = tuple(f"{part}/{i}" for part, count in zip(parts, counts, strict=True) for i in range(count))
            splits = [SPLITS[part] for part, count in zip(parts, counts, strict=True) for _ in range(count)]
            self.splits = None if columns.split == UNUSED else tuple(splits)
            split_name = None if self.splits is None else ARRAY_NAMES
        else:
            names = {
                "images": chosen(data, held, IMAGES, None),
                "label": chosen(data, held, LABELS, columns.label),
                "group": chosen(data, held, GROUPS, columns.group),
                "split": chosen(data, held, SPLIT, columns.split),
            }
            if names["images"] is None:
                raise DataError(f"{data} holds {', '.join(sorted(held))}; expected images (or x), and labels (or y)")
            pieces = {kind: held[name] for kind, name in names.items() if name is not None}
            self.keys = tuple(str(i) for i in range(len(checked(data, pieces["images"]))))
            self.splits = splits_from(data, texts(data, "split", pieces, len(self.keys)))
            split_name = names["split"]
        self.images = checked(data, pieces["images"])
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
        """Image i: (H, W, C). Raises Unreadable."""
        return standard(self.images[i])

    def stamps(self) -> list[str]:
        """(N,) path, size and time of change of the file, and the position."""
        stamp = file_stamp(self.path.resolve())
        return [f"{stamp}|{key}" for key in self.keys]


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of the file; nothing is unpickled. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory ({error})", fix=Fix("save it as image files")) from error
    except Exception as error:  # zipfile's, zlib's and numpy's own kinds
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        if not zipfile.is_zipfile(path):
            reason = "it is no .npz, or cut short"
        raise DataError(
            f"{path} cannot be read ({reason}); expected plain arrays saved by numpy.savez: images, labels"
        ) from error


def chosen(data: str, held: dict[str, NDArray[Any]], usual: tuple[str, ...], requested: str | None) -> str | None:
    """The array to use: the one requested for, else the usual name that is there."""
    if requested == UNUSED:
        return None
    if requested is None:
        return next((name for name in usual if name in held), None)
    if requested not in held:
        raise DataError(f"{data} has no array '{requested}'{nearest(requested, held)}")
    return requested


def joined(data: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """The parts of a split as one array."""
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DataError(f"{data} holds parts of shapes {shapes}; expected equal ones but for the first axis"
                        ) from error  # fmt: skip


def checked(data: str, images: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W) or (N, H, W, C) in a depth of ours, decided once for the whole array. Raises DataError."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DataError(
            f"{data} holds images of shape {images.shape}, channels first; expected (N, H, W, C): "
            f"save numpy.moveaxis(images, 1, -1)"
        )
    if images.ndim not in (3, 4) or min(images.shape) < 1:
        raise DataError(f"{data} holds images of shape {images.shape}; expected (N, H, W) or (N, H, W, C)")
    try:
        return images if images.dtype.kind == "f" else standard_depth(images)
    except Unreadable as reason:
        raise DataError(f"{data} holds {reason}") from reason


def texts(data: str, kind: str, pieces: dict[str, NDArray[Any]], count: int) -> tuple[str | None, ...] | None:
    """(N,) or (N, 1) values as text; an empty one or not-a-number means unknown."""
    if kind not in pieces:
        return None
    array = pieces[kind]
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise DataError(f"{data} holds a {kind} array of shape {array.shape}; expected ({count},), one an image")
    if array.dtype.kind == "f":
        if np.isinf(array).any():
            raise DataError(f"{data} holds an infinite {kind}; expected numbers, or nan where it is unknown")
        return tuple(None if np.isnan(v) else str(int(v)) if v == int(v) else str(v) for v in array.tolist())
    try:
        values = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{data} holds a {kind} that is no UTF-8 text; save it as an array of str") from error
    return tuple(value.strip() or None for value in values)


def splits_from(data: str, found: tuple[str | None, ...] | None) -> tuple[str | None, ...] | None:
    """train, val or test, by their usual names. Raises DataError for any other value."""
    for value in found or ():
        if value is not None and value.lower() not in SPLITS:
            raise DataError(
                f"{data} holds the split '{value}'", expected="train, val or test", fix=Set("split", UNUSED)
            )
    return None if found is None else tuple(None if v is None else SPLITS[v.lower()] for v in found)
