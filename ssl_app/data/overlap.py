"""Test images that pretraining has seen: exact copies, near copies, and others of a group it has seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset
from ssl_app.data.prints import near_between
from ssl_app.data.splits import hashed

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a training has seen, for the checkpoint: hashes, sorted, each once."""

    content: NDArray[np.int64]
    groups: NDArray[np.int64]
    looks: NDArray[np.int8] | None = None  # (M, 128), see `Dataset.looks`; None where they were not kept


@dataclass(frozen=True)
class Overlap:
    """How many of the test images were seen: as exact copies, else as near copies, or else through their group."""

    images: int
    groups: int
    of: int
    noun: str = "group"
    groups_known: bool = True  # False: the test part has groups, and what pretraining saw had none
    near: int = 0
    near_known: bool = True

    @property
    def total(self) -> int:
        """Seen either way; no image counts twice."""
        return self.images + self.near + self.groups

    def sentence(self) -> str | None:
        """For the result and the verdict; None where nothing was seen, by images and by groups."""
        unknown = None if self.groups_known else f"which groups ({self.noun}) pretraining saw is not known"
        near = None if self.near_known else "near copies were not looked for"
        return "; ".join(clause for clause in (self._seen(), unknown, near) if clause) or None

    def _seen(self) -> str | None:
        if not self.total:
            return None
        start = f"{self.total} of {self.of} test images"
        article = "an" if self.noun[:1].lower() in "aeiou" else "a"
        shares = f"share{'s' * (self.groups == 1)} {article} {self.noun} with"
        kinds = [
            (count, f"{kind} {'copy' if count == 1 else 'copies'}")
            for count, kind in ((self.images, "exact"), (self.near, "near"))
            if count
        ]
        if not kinds:
            return f"{start} {shares} pretraining images"
        if len(kinds) == 1 and not self.groups:
            count, copies = kinds[0]
            be = "is an" if count == 1 and self.images else "is a" if count == 1 else "are"
            return f"{start} {be} {copies} of pretraining images"
        copied = f"{' and '.join(f'{count} {copies}' for count, copies in kinds)} of pretraining images"
        return f"{start}: {copied}" + (f", {self.groups} {shares} them" if self.groups else "")


def seen(dataset: Dataset, indices: Indices) -> Seen:
    """The hashes of the images at indices, and of the groups that the data name."""
    groups = group_hashes(dataset)[indices][dataset.grouped()[indices]]
    content, first = np.unique(dataset.content[indices], return_index=True)
    looks = None if dataset.looks is None else dataset.looks[indices[first]]
    return Seen(content, np.unique(groups), looks)


def group_hashes(dataset: Dataset) -> NDArray[np.int64]:
    """(N,) 64 bits of every image's group, under its column's name; zeros where there are no groups."""
    if dataset.groups is None:
        return np.zeros(len(dataset.content), np.int64)
    column = (dataset.columns.group or "group").lower()  # patient 1 and lot 1 differ; Patient 1 does not
    known = {group: hashed(f"{column}\0{group}") - 2**63 for group in set(dataset.groups)}
    return np.array([known[group] for group in dataset.groups], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Met:
    """What is known of M images: whether each was seen, a near copy of it, or its group."""

    copies: NDArray[np.bool_]  # (M,)
    near: NDArray[np.bool_]  # (M,) exact copies are near ones too
    groups: NDArray[np.bool_]  # (M,)


def met(dataset: Dataset, indices: Indices, other: Seen) -> Met:
    """For every index, whether the image was seen, by itself, a near copy, or its group."""
    copies = np.isin(dataset.content[indices], other.content)
    near = near_ones(dataset, indices, other.looks) | copies
    groups = np.isin(group_hashes(dataset)[indices], other.groups) & dataset.grouped()[indices]
    return Met(copies, near, groups)


def near_ones(dataset: Dataset, indices: Indices, looks: NDArray[np.int8] | None) -> NDArray[np.bool_]:
    """(M,) for every index, whether one of the others looks the same."""
    near = np.zeros(len(indices), bool)
    if looks is not None and dataset.looks is not None and len(indices) and len(looks):
        near[near_between(dataset.looks[indices], looks)[:, 0]] = True
    return near


def count_overlap(seen: Seen, dataset: Dataset, test: Indices) -> Overlap:
    """Test images that were seen, near copies of those, and others of a seen group."""
    found = met(dataset, test, seen)
    noun = dataset.columns.group or "group"
    known = bool(len(seen.groups)) or not dataset.grouped()[test].any()
    return Overlap(
        int(found.copies.sum()),
        int((found.groups & ~found.near).sum()),
        len(test),
        noun,
        known,
        int((found.near & ~found.copies).sum()),
        seen.looks is not None and dataset.looks is not None,
    )


def near_in_train(dataset: Dataset, train: Indices, test: Indices) -> str | None:
    """How many test images have a near copy in the training part that is no exact one, with an example."""
    if dataset.looks is None:
        return None
    every, test = len(test), test[~np.isin(dataset.content[test], dataset.content[train])]
    pairs = near_between(dataset.looks[test], dataset.looks[train]) if len(test) and len(train) else np.empty((0, 2))
    if not len(pairs):
        return None
    one, other = (dataset.keys[part[place]] for part, place in zip((test, train), pairs[0], strict=True))
    count = len(np.unique(pairs[:, 0]))
    have = "has" if count == 1 else "have"
    return f"{count} of {every} test images {have} a near copy in train ({one} of {other})"


def near_among(dataset: Dataset, rows: Indices) -> str | None:
    """How many images have a near copy of another unit among them, which folds may part, with an example."""
    if dataset.looks is None or len(rows) < 2:
        return None
    unit = np.unique(np.array(dataset.units)[rows], return_inverse=True)[1]
    pairs = near_between(dataset.looks[rows], dataset.looks[rows])
    pairs = pairs[unit[pairs[:, 0]] != unit[pairs[:, 1]]]
    if not len(pairs):
        return None
    one, other = (dataset.keys[rows[place]] for place in pairs[0])
    count = len(np.unique(pairs))
    have = "has" if count == 1 else "have"
    return f"{count} of {len(rows)} images {have} a near copy that may be in another fold ({one} of {other})"


def exclude(dataset: Dataset, indices: Indices, other: Seen) -> Indices:
    """The indices without images, near copies of them, and groups, that the other set holds."""
    found = met(dataset, indices, other)
    kept: Indices = indices[~(found.near | found.groups)]
    return kept


def merged(one: Seen, other: Seen) -> Seen:
    """What either has seen."""
    content, first = np.unique(np.concatenate([one.content, other.content]), return_index=True)
    both = None if one.looks is None or other.looks is None else np.concatenate([one.looks, other.looks])[first]
    return Seen(content, np.union1d(one.groups, other.groups), both)
