"""Exact copies within a set: extra ones, and those whose labels contradict each other."""

from dataclasses import dataclass
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset
from ssl_app.errors import Notice, Run

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Copies:
    """Images that are there more than once, pixel by pixel; the files may differ."""

    groups: list[Indices]  # of indices, two or more each, in the order of the first

    @property
    def extra(self) -> int:
        """How many could be left out."""
        return sum(len(group) - 1 for group in self.groups)

    def conflicting(self, labels: NDArray[np.int64], labeled: NDArray[np.bool_]) -> list[Indices]:
        """The groups with two labels or more. labels, labeled: (N,)."""
        return [group for group in self.groups if len(np.unique(labels[group][labeled[group]])) > 1]


def copies(content: NDArray[np.int64]) -> Copies:
    """The images with equal pixels, by their hashes. (N,)."""
    order = np.argsort(content, kind="stable")
    starts = np.flatnonzero(np.diff(content[order], prepend=content[order[:1]] - 1))
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    return Copies(sorted(groups, key=lambda group: int(group[0])))


def notices(dataset: Dataset) -> list[Notice]:
    """What is to be said of the copies in a set; nothing where there are none."""
    found = copies(dataset.content)
    if not found.groups:
        return []
    first, second = (dataset.keys[i] for i in found.groups[0][:2])
    many = "1 image is an exact extra copy" if found.extra == 1 else f"{found.extra} images are exact extra copies"
    sentence = f"{many} of others ({second} of {first}{' the first' * (found.extra > 1)})"
    conflicts = found.conflicting(dataset.labels, dataset.labeled)
    if conflicts:
        names = sorted({dataset.classes[dataset.labels[i]] for i in conflicts[0] if dataset.labeled[i]})
        pictures = "1 picture has" if len(conflicts) == 1 else f"{len(conflicts)} pictures have"
        sentence += f"; {pictures} several labels ({dataset.keys[conflicts[0][0]]} is {' and '.join(names)})"
    return [Notice(sentence, fixes=(Run(f"doctor {quote(dataset.name)}", (("clean", "FILE.csv"),)),))]
