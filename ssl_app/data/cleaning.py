"""A cleaned manifest of a set: its readable images, each picture once, with labels that can be trained on."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_app.data import class_names
from ssl_app.data.checkup import Checkup
from ssl_app.data.members import MARK, Members
from ssl_app.errors import DataError, Fix
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

    def sentence(self) -> str:
        """In words."""
        without = [f"{self.copies} extra copies", f"{self.unreadable} unreadable files"]
        more = f"; {self.unlabeled} labels removed, {self.joined} respelled" if self.unlabeled or self.joined else ""
        split = "; without its split, which has copies or groups on both sides" if self.split_dropped else ""
        return f"{self.path}: {self.images} images, without {' and '.join(without)}{more}{split}"


def write_cleaned(path: Path, found: Checkup) -> Cleaned:
    """Write a manifest to go on with. Raises DataError where the images are no files of their own, OSError.

    Of exact copies a labeled one stays, of a given split the one in test.
    """
    source = found.source
    if not isinstance(source, Members):
        raise DataError(
            f"the images of {source.name} lie in no files of their own", fix=Fix("write them as PNG first")
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
    for i in kept.tolist():
        values = {"label": labels[i], "group": groups[i], "split": marks[i]}
        table.writerow([_path(source, int(found.rows[i]), root), *(values[name] or "" for name in columns[1:])])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))
    return Cleaned(path, len(kept), len(left_out), len(found.unreadable), gone, joined, tuple(columns), dropped)


def _path(source: Members, row: int, root: Path) -> str:
    """Of an image, as a manifest in `root` lists it: relative where it lies below, else absolute."""
    member = source.members[row]
    below = member.path.is_relative_to(root)
    listed = os.path.relpath(member.path, root) if below else str(member.path)
    return listed.replace(os.sep, "/") + (f"{MARK}{member.within}" if member.within else "")
