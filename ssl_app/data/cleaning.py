"""A cleaned manifest of a set: its readable images, each picture once, with labels that can be trained on."""

import csv
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data import class_names
from ssl_app.data.checkup import Checkup
from ssl_app.data.images import Unreadable
from ssl_app.data.members import MARK, Members
from ssl_app.data.nodata import filled
from ssl_app.errors import Change, DataError, Fix
from ssl_app.runs import write_bytes


@dataclass(frozen=True)
class Cleaned:
    """What a cleaned manifest holds, and what it does not."""

    path: Path
    images: int
    copies: int  # extra copies left out
    unreadable: int  # files left out
    unlabeled: int  # labels taken away: those that stand for none, and those of copies that contradict each other
    joined: int  # labels in another spelling now
    columns: tuple[str, ...]
    split_dropped: bool  # whether a split with copies or groups on both sides is left out
    written: Path | None = None  # folder of the images, where they lay in no files of their own

    def sentence(self) -> str:
        """In words."""
        without = [f"{self.copies} extra copies", f"{self.unreadable} unreadable files"]
        more = f"; {self.unlabeled} labels removed, {self.joined} respelled" if self.unlabeled or self.joined else ""
        split = "; without its split, which has copies or groups on both sides" if self.split_dropped else ""
        beside = f", written to {self.written}" if self.written is not None else ""
        return f"{self.path}: {self.images} images{beside}, without {' and '.join(without)}{more}{split}"


def write_cleaned(path: Path, found: Checkup) -> Cleaned:
    """Write a manifest to go on with. Raises OSError, and DataError where a folder of its name holds files.

    Of exact copies a labeled one stays, of a given split the one in test. Images that lie in no files of their own
    (arrays, shards, Parquet) are written beside it, into a folder of its name.
    """
    source = found.source
    folder = None if isinstance(source, Members) else path.with_suffix("")
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"the images of {source.name} are to be written to {folder}, which holds files already",
            fix=(Fix("remove them"), Change("clean")),
        )
    before, marks = found.of_rows(source.labels), found.of_rows(source.splits)
    labels = list(class_names.without(before, class_names.standing_for_none(before), one_spelling=True))
    joined = sum(a is not None and b is not None and a != b for a, b in zip(before, labels, strict=True))
    gone = sum(a is not None and b is None for a, b in zip(before, labels, strict=True))
    left_out: set[int] = set()
    for group in found.copies.groups:
        best = min(group.tolist(), key=lambda i: (marks[i] != "test", labels[i] is None, i))
        known = {labels[i] for i in group.tolist()} - {None}
        gone += len(known) > 1
        labels[best] = known.pop() if len(known) == 1 else None
        left_out |= set(group.tolist()) - {best}
    dropped = any(one.kind == "groups across the split" for one in found.findings)
    root = path.resolve().parent
    columns = ["path"]
    columns += ["label"] if source.labels is not None else []
    columns += ["group"] if source.groups is not None else []
    columns += ["split"] if source.splits is not None and not dropped else []
    groups, text = found.of_rows(source.groups), io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    kept = np.setdiff1d(np.arange(len(found.rows)), sorted(left_out))
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {} if folder is None else write_images(folder, found, kept)
    for i in kept.tolist():
        row = int(found.rows[i])
        values = {"label": labels[i], "group": groups[i], "split": marks[i]}
        listed = _path(source, row, root) if isinstance(source, Members) else written[row]
        table.writerow([listed, *(values[name] or "" for name in columns[1:])])
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return Cleaned(
        path, len(kept), len(left_out), len(found.unreadable), gone, joined, tuple(columns), dropped, folder
    )


def write_images(folder: Path, found: Checkup, kept: NDArray[np.int64]) -> Mapping[int, str]:
    """Write images into a folder, as PNG where that holds them, else as .npy. -> row: path beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(found.rows[kept].tolist())
    listed: dict[int, str] = {}
    try:
        for row, array in found.source.each(lambda array: array):
            if row in wanted and not isinstance(array, Unreadable):
                if isinstance(array, np.ma.MaskedArray):  # no file of ours says which pixels hold nothing
                    array = filled(array, None)[0]
                name, content = encoded(array)
                write_bytes(folder / f"{row:07d}{name}", content)
                listed[row] = f"{folder.name}/{row:07d}{name}"
    except BaseException:  # a full disk, a stop: half a set is none
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return listed


def encoded(array: NDArray[Any]) -> tuple[str, bytes]:
    """An image (H, W, C) without loss: its ending, and the content of its file."""
    channels = array.shape[2]
    if array.dtype in (np.uint8, np.uint16) and channels in (1, 3):
        return ".png", cv2.imencode(".png", array[..., ::-1] if channels == 3 else array)[1].tobytes()
    file = io.BytesIO()
    np.save(file, array if channels <= 4 else array[None])  # of more channels it would be taken for a stack of images
    return ".npy", file.getvalue()


def _path(source: Members, row: int, root: Path) -> str:
    """Of an image, as a manifest in `root` lists it: relative where it lies below, else absolute."""
    member = source.members[row]
    below = member.path.is_relative_to(root)
    listed = os.path.relpath(member.path, root) if below else str(member.path)
    return listed.replace(os.sep, "/") + (f"{MARK}{member.within}" if member.within else "")
