"""Which images train, which test, and which labels are drawn: pure functions of content, group and seed."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ssl_app import tables
from ssl_app.data.dataset import Dataset
from ssl_app.data.sources.base import Source, origin
from ssl_app.errors import Change, DataError, Fix, Notice, Set, Switch

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]
SEEDS_TRIED = 30
NEW_SPLIT = Set("split", "none")
FEWEST_LEFT = 4  # images to pretrain on
GIVEN_SPLIT = Fix("give a split column")


@dataclass(frozen=True, eq=False)
class Parts:
    """Indices into a dataset, each part sorted, and a sentence on how they came about."""

    train: Indices
    val: Indices  # rows that the data mark so: neither trained on nor tested
    test: Indices
    how: str
    seed: int | None = None  # None: the split was given with the data
    fraction: float = 0.2
    cross_validated: bool = (
        False  # no fixed test part: `train` and `test` are all labeled images, tested fold by fold
    )
    leakage: tuple[str, ...] = ()  # what train and test of a given split have in common, where the user allows it


def split(dataset: Dataset, *, fraction: float = 0.2, seed: int = 0, allow_leak: bool = False) -> Parts:
    """The split given with the data, or one by hash: whole groups, exact copies together.

    Where others have labels and no image marked test has one, these are left out of all parts. By hash, an image's
    side depends on its unit (group, or content) and the seed alone: not on labels and not on the other images, but
    for those that join units by being copies.
    Raises DataError where a given split cuts a group or parts copies, unless leakage is allowed.
    """
    if dataset.splits is not None and (parts := given(dataset, allow_leak)) is not None:
        return parts
    aside = unlabeled_test(dataset)
    units = dataset.units
    drawn = {unit: share(seed, unit) < fraction for unit in set(units)}
    test = np.array([drawn[unit] for unit in units], dtype=bool)
    if dataset.groups is None:
        way, what = "by image content (no group column)", "images"
    else:
        way, what = f"by {dataset.columns.group} ({dataset.columns.group_origin})", "groups"
    how = f"split {way}, {100 * fraction:g} % of {what}, seed {seed}{left_out(dataset, aside)}"
    train, test = ~test & ~aside, test & ~aside
    return Parts(np.flatnonzero(train), np.array([], np.int64), np.flatnonzero(test), how, seed, fraction)


def given(dataset: Dataset, allow_leak: bool = False) -> Parts | None:
    """The split of the data themselves; None where it marks nothing to test on. Raises DataError, see `split`."""
    assert dataset.splits is not None
    marks, aside = marks_of(dataset), unlabeled_test(dataset)
    source = origin(str(dataset.columns.split))
    test_mark = "test" if (marks[~aside] == "test").any() else "val"
    tested = marks == test_mark
    if not (dataset.labeled[tested] if aside.any() else tested).any():
        return None
    train, test = np.flatnonzero(marks == "train"), np.flatnonzero(tested)
    val = np.flatnonzero(marks == "val") if test_mark == "test" else np.array([], np.int64)
    if not len(train):
        raise DataError(f"{source} marks no image as train", fix=NEW_SPLIT)
    others, named = np.concatenate([train, val]), "train or val" if len(val) else "train"
    leakage = leakage_between(dataset, others, test, named)
    if leakage and not allow_leak:
        by = dataset.columns.group if dataset.groups is not None else "content"
        raise DataError(
            f"{source} puts {', and '.join(f'{share} beside {what}' for share, what in leakage)}",
            fix=(Set("split", f"none to split by {by}"), Switch("allow_leak")),
        )
    clauses = [f"{share} have {what}" for share, what in leakage]
    remarks = (
        ["its only val image is the test set" if len(test) == 1 else f"its {len(test)} val images are the test set"]
        if test_mark == "val"
        else []
    )
    how = "; ".join([f"split as given by {source}", *remarks, *clauses]) + left_out(dataset, aside)
    return Parts(train, val, test, how, leakage=tuple(clauses))


def marks_of(dataset: Dataset) -> NDArray[np.str_]:
    """The part of every image by the data's own split, (N,); train where they mark none."""
    return np.array(
        ["train"] * len(dataset.keys) if dataset.splits is None else [m or "train" for m in dataset.splits]
    )


def unlabeled_test(dataset: Dataset) -> NDArray[np.bool_]:
    """Which images are marked test, (N,), where others have labels and none of these has; else none of them."""
    marked: NDArray[np.bool_] = marks_of(dataset) == "test"
    if dataset.labeled[marked].any() or not dataset.labeled.any():
        return np.zeros_like(marked)
    return marked


def left_out(dataset: Dataset, aside: NDArray[np.bool_]) -> str:
    """A clause on the images of `unlabeled_test`."""
    count, source = int(aside.sum()), origin(str(dataset.columns.split))
    if count == 0:
        return ""
    if count == 1:
        return f"; 1 image marked test by {source} has no label, and is left out"
    return f"; {count} images marked test by {source} have no label, and are left out"


def leakage_between(dataset: Dataset, others: Indices, test: Indices, named: str) -> list[tuple[str, str]]:
    """How many test images have something beside them in the others, and what; `named` tells which those are."""
    found, count = [], len(test)
    if dataset.groups is not None:
        met = {dataset.groups[i] for i in others[dataset.grouped()[others]]}
        beside = sum(dataset.groups[i] in met for i in test[dataset.grouped()[test]])
        if beside:
            found.append((f"{beside} of {count} test images", f"a {named} image of the same {dataset.columns.group}"))
    copies = int(np.isin(dataset.content[test], dataset.content[others]).sum())
    if copies:
        found.append((f"{copies} of {count} test images", f"an exact copy in {named}"))
    return found


def leakage_of(dataset: Dataset, parts: Parts) -> tuple[str, ...]:
    """What the test part of these parts has in common with the others, a clause each."""
    named = "train or val" if len(parts.val) else "train"
    between = leakage_between(dataset, np.concatenate([parts.train, parts.val]), parts.test, named)
    return tuple(f"{share} have {what}" for share, what in between)


def group_overlap(source: Source) -> DataError | None:
    """The refusal of a given split by its groups alone, known before a pixel is read."""
    if source.splits is None or source.groups is None:
        return None
    marks = [mark or "train" for mark in source.splits]
    held = "test" if "test" in marks else "val"
    if source.labels is not None and not any(
        label for label, mark in zip(source.labels, marks, strict=True) if mark == held
    ):
        return None  # there is nothing to test on
    met = {group for group, mark in zip(source.groups, marks, strict=True) if mark != held}
    tested = [group for group, mark in zip(source.groups, marks, strict=True) if mark == held]
    beside = sum(group is not None and group in met for group in tested)
    if not beside:
        return None
    where, group = origin(str(source.columns.split)), source.columns.group
    return DataError(
        f"{where} puts {beside} of {len(tested)} test images beside a train image of the same {group}",
        fix=(Set("split", f"none to split by {group}"), Switch("allow_leak")),
    )


def cross_validated(dataset: Dataset, parts: Parts) -> Parts:
    """The training and test part as one, whose labeled images are tested fold by fold."""
    both = np.union1d(parts.train, parts.test)
    labeled = both[dataset.labeled[both]]
    how = f"no fixed test part: cross-validation over all {len(labeled)} labeled images"
    return replace(parts, train=both, test=labeled, how=how, cross_validated=True)


def share(seed: int, unit: str) -> float:
    """A number in [0, 1) that is the unit's own."""
    return hashed(f"{seed}\0{unit}") / 2**64


def hashed(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def too_few(left: int, tested: int, apart: str = "") -> Notice | None:
    """The refusal of a pretraining on so few images beside the test part; None where they suffice."""
    if left >= FEWEST_LEFT:
        return None
    are = "1 image is" if left == 1 else f"{left} images are"
    tested_are = "1 is" if tested == 1 else f"{tested} are"
    return Notice(
        f"{are} left to pretrain on{apart}, {tested_are} the test part",
        expected=f"at least {FEWEST_LEFT}",
        fixes=(Change("data"),),
    )


def check_classes(dataset: Dataset, parts: Parts, unlabeled: Sequence[str] = ()) -> None:
    """Raise DataError unless there are two classes or more, each on both sides; `unlabeled` as in `one_sided`."""
    if not dataset.labeled.any():
        raise DataError(
            f"{dataset.name} has no labels", expected="a manifest with a column label, or one sub-folder a class"
        )
    if len(dataset.classes) < 2:
        raise DataError(f"{dataset.name} has one class, '{dataset.classes[0]}'", expected="two or more")
    notice = one_sided(dataset, parts, unlabeled)
    if notice is not None:
        raise DataError(notice.found, expected=notice.expected, fix=notice.fixes)


def one_sided(dataset: Dataset, parts: Parts, unlabeled: Sequence[str] = ()) -> Notice | None:
    """Which classes have no test or no training image, why, and what to type; None where every class has both.

    `unlabeled` are the labels that stand for none already.
    """
    missing = absent(dataset, parts)
    if not missing:
        return None
    name, side, other = missing[0]
    found = f"class '{name}' has no {side} image"
    if len(missing) > 1:
        found = f"{len(missing)} classes have no test or no training image; {found}"
    names = [one for one, _, _ in missing]
    rest = len(dataset.classes) - len(names)
    aside: list[Fix] = [Set("unlabeled", quote(",".join([*unlabeled, *names])))] if rest >= 2 else []
    if parts.seed is None:
        return Notice(f"{found} in {origin(str(dataset.columns.split))}", fixes=(NEW_SPLIT, *aside))
    where = "training" if side == "test" else "test"
    found = f"{found}: {unit_count(dataset, other)} into the {where} part"
    units = units_of_classes(dataset)
    alone = [units[dataset.classes.index(one)] for one in names]
    if any(len(own) < 2 for own in alone):
        of = "more images" if dataset.groups is None else f"images of another {dataset.columns.group}"
        return Notice(found, fixes=(*aside, Fix(f"give {'it' if len(names) == 1 else 'each of them'} {of}")))
    seed = better_seed(units, parts)
    if seed is None:
        return Notice(found, fixes=(*aside, GIVEN_SPLIT))
    return Notice(found, fixes=(Set("split_seed", seed), *(aside or [GIVEN_SPLIT])))


def absent(dataset: Dataset, parts: Parts) -> list[tuple[str, str, Indices]]:
    """The classes that one side lacks: name, the side, and its images on the other."""
    found = []
    for label, name in enumerate(dataset.classes):
        of_class = dataset.labeled & (dataset.labels == label)
        train, test = parts.train[of_class[parts.train]], parts.test[of_class[parts.test]]
        if not len(test):
            found.append((name, "test", train))
        elif not len(train):
            found.append((name, "training", test))
    return found


def unit_count(dataset: Dataset, indices: Indices) -> str:
    """How many units the images are, as the start of a sentence: `its 3 groups (patient) all fall`."""
    if dataset.groups is None:
        return "its only image falls" if len(indices) == 1 else f"its {len(indices)} images all fall"
    noun, count = dataset.columns.group, len({dataset.groups[i] for i in indices})
    return f"its only {noun} falls" if count == 1 else f"its {count} groups ({noun}) all fall"


def units_of_classes(dataset: Dataset) -> list[list[str]]:
    """(K,) the units of each class's images, each once."""
    units = np.array(dataset.units)
    of_class = [dataset.labeled & (dataset.labels == label) for label in range(len(dataset.classes))]
    return [np.unique(units[mine]).tolist() for mine in of_class]


def better_seed(units: Sequence[Sequence[str]], parts: Parts) -> int | None:
    """The next seed that has units of every class on both sides; None where the next 30 have not."""
    assert parts.seed is not None
    for seed in range(parts.seed + 1, parts.seed + 1 + SEEDS_TRIED):
        if all(on_both_sides(own, parts.fraction, seed) for own in units):
            return seed
    return None


def on_both_sides(units: Sequence[str], fraction: float, seed: int) -> bool:
    """Whether a seed puts some of the units on either side, without a look at all of many."""
    first = share(seed, units[0]) < fraction
    return any((share(seed, unit) < fraction) != first for unit in units[1:])


def draw(dataset: Dataset, train: Indices, per_class: int | None, *, seed: int, draw: int) -> Indices:
    """per_class labeled images of every class, sorted; None takes all, and a class with fewer gives all it has.

    Nested: per seed, draw and class one permutation in content order, so that the first 8 are
    among the first 16.
    """
    chosen = []
    for label, name in enumerate(dataset.classes):
        mine = train[dataset.labeled[train] & (dataset.labels[train] == label)]
        ordered = sorted(mine.tolist(), key=lambda i: (int(dataset.content[i]), dataset.keys[i]))
        order = np.random.default_rng([seed, draw, hashed(name)]).permutation(len(ordered))
        chosen += [ordered[i] for i in order[:per_class]]
    return np.array(sorted(chosen), dtype=np.int64)


def check_budgets(dataset: Dataset, train: Indices, per_class: Sequence[int]) -> None:
    """Say which classes give fewer labels than the largest of these numbers: all that they have.

    Raises DataError where no class has as many.
    """
    counts = label_counts(dataset, train)
    wanted, most = max(per_class), int(counts.max())
    if most < wanted:
        fitting = [number for number in per_class if number <= most]
        raise DataError(
            f"class '{dataset.classes[counts.argmax()]}', the largest, has {most} labeled training images, {wanted} "
            "per class are requested",
            fix=Set("per_class", ",".join(map(str, fitting)) if fitting else f"{most} or less"),
        )
    few = [
        f"'{name}' {count}" for name, count in zip(dataset.classes, counts.tolist(), strict=True) if count < wanted
    ]
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        logger.info(f"classes with fewer than {wanted} labeled training images give all that they have: {shown}")


def label_counts(dataset: Dataset, rows: Indices) -> Indices:
    """Labeled images of each class among these. (K,)."""
    return np.bincount(dataset.labels[rows][dataset.labeled[rows]], minlength=len(dataset.classes))


def fewest(dataset: Dataset, rows: Indices) -> tuple[str, int]:
    """The class with the fewest labeled images among these, and how many it has."""
    counts = label_counts(dataset, rows)
    return dataset.classes[counts.argmin()], int(counts.min())


def folds(labels: NDArray[Any], units: Sequence[str], count: int, seed: int) -> list[tuple[Indices, Indices]] | None:
    """(fit, held) positions in labels, stratified, no unit on both sides; every class in every fit part.

    count is the most: a class of two images has two folds. None where no such folds are possible.
    """
    fewest_of_class = min(Counter(np.asarray(labels).tolist()).values(), default=0)
    most = min(count, fewest_of_class)
    if most >= 2 and len(set(units)) == len(units):
        return list(StratifiedKFold(most, shuffle=True, random_state=seed).split(labels, labels))
    for number in range(min(most, len(set(units))), 1, -1):
        by_unit = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        if usable(found := list(by_unit.split(labels, labels, units)), labels):
            return found
    return None


def usable(found: list[tuple[Indices, Indices]], labels: NDArray[Any]) -> bool:
    """Whether every fold holds something out and fits on every class."""
    classes = len(np.unique(labels))
    return all(len(held) and len(np.unique(labels[fit])) == classes for fit, held in found)


def limited(dataset: Dataset, rows: Indices, limit: int, seed: int) -> Indices:
    """At most so many of the rows, in whole units that the seed draws, sorted; one unit at least, however large.

    Nested: units are taken in the order of a hash of their own, so that a smaller limit's are among a larger one's,
    and depend on no other image.
    """
    unit_of = np.array(dataset.units)[rows]
    names, sizes = np.unique(unit_of, return_counts=True)
    order = np.array(sorted(range(len(names)), key=lambda i: (share(seed, f"limit\0{names[i]}"), names[i])))
    fitting = max(1, int((np.cumsum(sizes[order]) <= limit).sum()))
    return np.sort(rows[np.isin(unit_of, names[order[:fitting]])])


def hold_out_units(dataset: Dataset, rows: Indices, share: float, most: int, seed: int) -> tuple[Indices, Indices]:
    """Some whole units apart, drawn by the seed: the share of the rows or somewhat more. -> kept, held out.

    At most `most` rows and twice the share: a giant group is passed over. Where every unit is larger, the smallest
    is held out; where the rows are one unit, whole pictures are. Raises DataError where they are one picture.
    """
    names, unit = np.unique(np.array(dataset.units)[rows], return_inverse=True)
    if len(names) == 1:
        names, unit = np.unique(dataset.content[rows], return_inverse=True)
    if len(names) == 1:
        raise DataError(f"the {len(rows)} images left of {dataset.name} are one picture", fix=Change("data"))
    sizes = np.bincount(unit)
    wanted = max(1, min(most, round(share * len(rows))))
    room = min(most, 2 * wanted, len(rows) - 1)
    order = np.random.default_rng([seed, 4]).permutation(len(names))
    drawn: list[int] = []
    count = 0
    for one in order.tolist():
        if count >= wanted:
            break
        if count + sizes[one] <= room:
            drawn.append(one)
            count += int(sizes[one])
    held = np.isin(unit, drawn or [order[sizes[order].argmin()]])
    return rows[~held], rows[held]


def write_draw(path: Path, dataset: Dataset, indices: Indices) -> None:
    """A draw as a CSV that is a manifest as well: path, label, group."""
    grouped = dataset.grouped()
    rows = []
    for i in indices.tolist():
        label = dataset.classes[dataset.labels[i]] if dataset.labeled[i] else ""
        group = dataset.groups[i] if dataset.groups is not None and grouped[i] else ""
        rows.append((dataset.keys[i], label, group))
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write(path, ("path", "label", "group"), rows)
