"""Test images that pretraining has seen: exact copies, and others of a group it has seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset
from ssl_app.data.splits import hashed

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a training has seen, for the checkpoint: hashes, sorted, each once."""

    content: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """How many of the test images were seen: as exact copies, or else through their group."""

    images: int
    groups: int
    of: int
    noun: str = "group"
    groups_known: bool = True  # False: the test part has groups, and what pretraining saw had none

    @property
    def total(self) -> int:
        """Seen either way; no image counts twice."""
        return self.images + self.groups

    def sentence(self) -> str | None:
        """For the result and the verdict; None where nothing was seen, by images and by groups."""
        unknown = None if self.groups_known else f"which {self.noun}s pretraining saw is not known"
        return "; ".join(clause for clause in (self._seen(), unknown) if clause) or None

    def _seen(self) -> str | None:
        if not self.total:
            return None
        start = f"{self.total} of {self.of} test images"
        article = "an" if self.noun[:1].lower() in "aeiou" else "a"
        share = f"share{'s' * (self.groups == 1)} {article} {self.noun} with"
        if not self.images:
            return f"{start} {share} pretraining images"
        if not self.groups:
            what = "is an exact copy" if self.images == 1 else "are exact copies"
            return f"{start} {what} of pretraining images"
        copies = f"{self.images} exact {'copy' if self.images == 1 else 'copies'}"
        return f"{start}: {copies} of pretraining images, {self.groups} {share} them"


def seen(dataset: Dataset, indices: Indices) -> Seen:
    """The hashes of the images at indices, and of the groups that the data name."""
    groups = group_hashes(dataset)[indices][dataset.grouped()[indices]]
    return Seen(np.unique(dataset.content[indices]), np.unique(groups))


def group_hashes(dataset: Dataset) -> NDArray[np.int64]:
    """(N,) 64 bits of every image's group, under its column's name; zeros where there are no groups."""
    if dataset.groups is None:
        return np.zeros(len(dataset.content), np.int64)
    column = (dataset.columns.group or "group").lower()  # patient 1 and lot 1 differ; Patient 1 does not
    known = {group: hashed(f"{column}\0{group}") - 2**63 for group in set(dataset.groups)}
    return np.array([known[group] for group in dataset.groups], dtype=np.int64)


def met(dataset: Dataset, indices: Indices, other: Seen) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For every index, whether the image was seen, and whether its group was."""
    copies = np.isin(dataset.content[indices], other.content)
    groups = np.isin(group_hashes(dataset)[indices], other.groups) & dataset.grouped()[indices]
    return copies, groups


def count_overlap(seen: Seen, dataset: Dataset, test: Indices) -> Overlap:
    """Test images that were seen, and others of a seen group."""
    copies, groups = met(dataset, test, seen)
    noun = dataset.columns.group or "group"
    known = bool(len(seen.groups)) or not dataset.grouped()[test].any()
    return Overlap(int(copies.sum()), int((groups & ~copies).sum()), len(test), noun, known)


def exclude(dataset: Dataset, indices: Indices, other: Seen) -> Indices:
    """The indices without images, and without groups, that the other set holds."""
    copies, groups = met(dataset, indices, other)
    kept: Indices = indices[~(copies | groups)]
    return kept


def merged(one: Seen, other: Seen) -> Seen:
    """What either has seen."""
    return Seen(np.union1d(one.content, other.content), np.union1d(one.groups, other.groups))
