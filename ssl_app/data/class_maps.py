"""Class maps: what a teacher says of each place of an image, for many images in one memory-mapped file.

After ReLabel (Yun et al., 2021, arXiv:2101.05022), which keeps the five highest logits of each place. Here a place
also keeps the mass of the rest: a class that is not among the highest has its share of it, not a logit of 0. The
logits of a place are shifted so that their exponentials add up to 1: no softmax changes, and half precision is finer.

The file is a safetensors file. Its cells are (N, 2 k + 1, h, w) numbers of 16 bits: k class ids, k logits in half
precision, and the logarithm of the mass of the rest in half precision: 4 k + 2 bytes a place. Images are found by the
hash of their pixels, in ascending order.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.errors import DataError, Fix, RunError
from ssl_app.runs import sync

FILE = "maps.safetensors"  # in the folder of the run that made it
FORMAT = "ssl-app class maps 1"
MOST_CLASSES = 2**16  # that an id of 16 bits can tell apart
LOWEST = -60_000.0  # a logit in half precision; what is lower has no mass
DTYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "F32": np.dtype("<f4"), "U16": np.dtype("<u2")}
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the part of a map that an image covers, where it is not said


@dataclass(frozen=True)
class MapForm:
    """What all maps of a file have in common."""

    classes: tuple[str, ...]  # K
    k: int  # of them that a place keeps
    grid: tuple[int, int]  # h, w
    about: Mapping[str, Any]  # where the maps come from, in JSON

    @property
    def bytes_per_image(self) -> int:
        """4 k + 2 a place."""
        return (4 * self.k + 2) * self.grid[0] * self.grid[1]


@dataclass(frozen=True, eq=False)
class Index:
    """Which images have maps."""

    content: NDArray[np.int64]  # (N,) hashes of the pixels, ascending
    frames: NDArray[np.float32] | None = None  # (N, 4) x0, y0, x1, y1: part of the map that the packed square covers
    labeled: NDArray[np.int64] | None = None  # (L,) hashes of the images whose labels the teacher has seen


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Maps of N images."""

    form: MapForm
    index: Index
    cells: NDArray[np.uint16]  # (N, 2 k + 1, h, w)
    name: str = "the maps"  # of the file, for messages
    order: NDArray[np.int64] | None = None  # (K,) place of each id's class among those wanted; None: as they are

    def rows_of(self, content: NDArray[np.int64]) -> NDArray[np.int64]:
        """The map of each image, -1 where there is none. (n,) hashes -> (n,)."""
        if not len(self.index.content):
            return np.full(len(content), -1)
        places = np.searchsorted(self.index.content, content).clip(max=len(self.index.content) - 1)
        return np.where(self.index.content[places] == content, places, -1)

    def frames(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The part of its map that each image covers. (n,) -> (n, 4)."""
        if self.index.frames is None:
            return np.tile(np.array(WHOLE, np.float32), (len(rows), 1))
        return self.index.frames[rows]

    def for_classes(self, classes: Sequence[str]) -> "ClassMaps":
        """The maps with ids in the order of these classes. Raises DataError where they are not the same ones."""
        if tuple(classes) == self.form.classes:
            return self
        if set(classes) != set(self.form.classes):
            raise DataError(
                f"{self.name} are of the classes {_listed(self.form.classes)}, the labels of {_listed(classes)}",
                expected="the same classes",
                fix=Fix("make maps with a teacher of these classes"),
            )
        order = np.array([list(classes).index(name) for name in self.form.classes])
        return replace(self, form=replace(self.form, classes=tuple(classes)), order=order)

    def at(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Some maps, as `unpacked` gives them."""
        ids, values, rest = unpacked(self.cells[rows], self.form.k)
        return ids if self.order is None else self.order[ids], values, rest

    @cached_property
    def digest(self) -> str:
        """Of where the maps come from, of their form, and of which images they are."""
        form = [dict(self.form.about), self.form.k, list(self.form.classes), list(self.cells.shape[2:])]
        state = hashlib.blake2b(json.dumps(form, sort_keys=True).encode(), digest_size=8)
        state.update(self.index.content.tobytes())
        return state.hexdigest()


def packed(logits: NDArray[np.float32], k: int) -> NDArray[np.uint16]:
    """The k highest logits of each place and the mass of the rest, as a file holds them. (B, K, h, w) -> cells."""
    classes = logits.shape[1]
    assert k <= classes <= MOST_CLASSES, (k, classes)
    shifted = logits - _log_sum(logits)  # (B, K, h, w), exponentials add up to 1
    order = np.argsort(-shifted, axis=1, kind="stable")
    ids, others = order[:, :k], order[:, k:]
    values = np.take_along_axis(shifted, ids, axis=1)
    rest = np.full_like(values[:, :1], LOWEST)
    if classes > k:
        rest = _log_sum(np.take_along_axis(shifted, others, axis=1))
    halves = np.concatenate([values, rest], axis=1).clip(LOWEST, 0).astype("<f2").view("<u2")
    return np.concatenate([ids.astype("<u2"), halves], axis=1)


def unpacked(cells: NDArray[np.uint16], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Class ids (B, k, h, w), their logits (B, k, h, w) and the logarithm of the rest's mass (B, h, w)."""
    halves = np.ascontiguousarray(cells[:, k:]).view("<f2").astype(np.float32)
    return cells[:, :k].astype(np.int64), halves[:, :k], halves[:, k]


def dense(cells: NDArray[np.uint16], k: int, classes: int) -> NDArray[np.float32]:
    """The logits of all classes: those that are not kept share the rest alike. cells -> (B, K, h, w)."""
    ids, values, rest = unpacked(cells, k)
    share = rest - (math.log(classes - k) if classes > k else 0.0)
    found = np.repeat(share[:, None], classes, axis=1)
    np.put_along_axis(found, ids, values, axis=1)
    return found


def size_of(form: MapForm, index: Index) -> int:
    """Bytes of a file of such maps."""
    return len(_head(form, index)) + form.bytes_per_image * len(index.content)


class MapWriter:
    """Writes maps from front to back, and goes on from where a stopped one ended.

    They lie beside the file that they become, which is there when all of them are. Raises RunError where other maps
    were begun there, or the disk has no room.
    """

    def __init__(self, path: Path, form: MapForm, index: Index) -> None:
        assert (np.diff(index.content) > 0).all(), "hashes ascend"
        self.path, self.form, self.count = path, form, len(index.content)
        self.part = part_of(path)
        head = _head(form, index)
        begun = self.part.stat().st_size if self.part.is_file() else 0
        self.file = self.part.open("r+b" if begun else "w+b")
        if begun >= len(head):
            if self.file.read(len(head)) != head:
                self.file.close()
                raise RunError(
                    f"{self.part} holds maps of other images or of another teacher", fix=Fix(f"remove {path.parent}")
                )
            self.done = min(self.count, (begun - len(head)) // form.bytes_per_image)
        else:
            with runs.named(self.part):
                self.file.seek(0)
                self.file.write(head)
                self.file.flush()
            self.done = 0
        left = form.bytes_per_image * (self.count - self.done)
        if shutil.disk_usage(path.parent).free < left:
            self.file.close()
            raise RunError(f"{path.parent} has no room for {left:,} bytes of class maps", fix=Fix("make room there"))
        self.file.seek(len(head) + form.bytes_per_image * self.done)
        self.file.truncate()

    def add(self, cells: NDArray[np.uint16]) -> None:
        """The maps of the next images. (B, 2 k + 1, h, w)."""
        assert cells.shape[1:] == (2 * self.form.k + 1, *self.form.grid), cells.shape
        with runs.named(self.part):
            self.file.write(np.ascontiguousarray(cells, "<u2").data)
            self.file.flush()
        self.done += len(cells)

    def __enter__(self) -> "MapWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.file.close()
        if kind is None:
            assert self.done == self.count, (self.done, self.count)
            sync(self.part)
            self.part.replace(self.path)
            sync(self.path.parent)


def part_of(path: Path) -> Path:
    """Where maps lie that are not complete."""
    return path.with_name(f"{path.name}.part")


def read(path: Path) -> ClassMaps:
    """The maps of a file, memory-mapped. Raises DataError for one that is cut short, or holds something else."""
    other = DataError(f"{path} holds no class maps", expected="a file that ssl-app relabel wrote")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                raise other
            header: dict[str, dict[str, Any]] = json.loads(file.read(length))
        meta = header.pop("__metadata__", {})
        if meta.get("format") != FORMAT:
            raise other
        end = 8 + length + max(one["data_offsets"][1] for one in header.values())
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise other from error
    if size != end:
        raise DataError(
            f"{path} is cut short: it has {size:,} of {end:,} bytes", fix=Fix("copy it again, or make the maps anew")
        )
    tensors: dict[str, NDArray[Any]] = {
        name: np.memmap(path, DTYPES[one["dtype"]], "r", 8 + length + one["data_offsets"][0], tuple(one["shape"]))
        for name, one in header.items()
        if math.prod(one["shape"])
    }
    about = json.loads(meta["about"])
    cells = tensors["cells"]
    form = MapForm(
        tuple(about["classes"]), (cells.shape[1] - 1) // 2, (cells.shape[2], cells.shape[3]), about["about"]
    )
    small: dict[str, NDArray[Any]] = {
        name: np.array(tensors[name]) for name in ("content", "frames", "labeled") if name in tensors
    }
    return ClassMaps(form, Index(**small), cells, str(path))


def _head(form: MapForm, index: Index) -> bytes:
    """All that stands before the cells."""
    count = len(index.content)
    small: dict[str, NDArray[Any]] = {"content": index.content.astype("<i8")}
    if index.labeled is not None:
        small["labeled"] = index.labeled.astype("<i8")
    if index.frames is not None:
        small["frames"] = index.frames.astype("<f4")
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "about": json.dumps({"classes": form.classes, "about": dict(form.about)}, sort_keys=True),
        }
    }
    start = 0
    for name, array in small.items():
        entry = {"dtype": kinds[array.dtype], "shape": list(array.shape)}
        header[name] = entry | {"data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    shape = [count, 2 * form.k + 1, *form.grid]
    header["cells"] = {"dtype": "U16", "shape": shape, "data_offsets": [start, start + 2 * math.prod(shape)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that every array begins where its numbers may
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in small.values())


def _log_sum(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm of the sum of exponentials over the classes. (B, K, h, w) -> (B, 1, h, w)."""
    highest = logits.max(axis=1, keepdims=True)
    total: NDArray[np.float32] = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    return total


def _listed(classes: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(classes[:most])
    return shown if len(classes) <= most else f"{shown} and {len(classes) - most} more"
