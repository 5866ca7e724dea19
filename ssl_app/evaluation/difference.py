"""Ours minus scratch: a mean over pretrainings, labeled draws and test images, and how far each of them moves it.

Pretrainings, draws and test images are crossed: the same draws serve every pretraining, the same images test all.
The variance of the mean is what the table of scores says of the first two (`intervals.crossed`), and what the
images say of themselves: an image's influence on the mean is known, so that its variance over test groups is a sum
of squares (the infinitesimal jackknife; Efron and Stein, 1981). Degrees of freedom after Satterthwaite (1946).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation.intervals import LEVEL, Component, Interval, crossed, interval

Floats = NDArray[np.float64]

NOTHING = Component(0.0, 1.0)
MOST_SHARED = 0.9  # beyond it draws are the same, and say nothing of others
POWER = 1.43  # (1.96 + .84) / 1.96: a difference of so many half widths is outside its interval in 80 % of sweeps


@dataclass(frozen=True, eq=False)
class ScoredPart:
    """The images that classifiers are tested on: their classes (N,), and the group of each (N,), or None."""

    labels: NDArray[np.int64]
    groups: Sequence[object] | NDArray[np.generic] | None = None

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """The group of each image by number, (N,)."""
        if self.groups is None:
            return np.arange(len(self.labels))
        names: dict[object, int] = {}
        return np.array([names.setdefault(name, len(names)) for name in np.asarray(self.groups, dtype=object)])

    def balanced_accuracy(self, right: ArrayLike) -> Floats:
        """Mean recall over the classes. (..., N) of 0 and 1 -> (...)."""
        values = np.asarray(right, dtype=np.float64)
        return np.asarray(values @ self._weights)

    def influence(self, right: ArrayLike) -> Floats:
        """How far each group moves balanced accuracy, or a difference of two. (..., N) -> (..., G); sums to 0."""
        values = np.asarray(right, dtype=np.float64)
        members, classes = self._classes
        recall = np.stack([values[..., mask].mean(-1) for mask, _ in classes], -1)  # (..., K)
        of_images = (values - recall[..., members]) * self._weights  # (..., N)
        found = np.zeros((*values.shape[:-1], int(self.members.max()) + 1))
        np.add.at(np.moveaxis(found, -1, 0), self.members, np.moveaxis(of_images, -1, 0))
        return found

    def unseen(self, difference: Floats) -> float:
        """The variance of a mean that the few images of a class do not show. (N,) in [-1, 1].

        One image of a class shows none, three show too little. As if one more group of each class had been tested,
        with the variance of the class, or that of all images, or that of the class with half an image beside.
        """
        classes = [difference[mask] for mask, _ in self._classes[1]]
        groups = [groups for _, groups in self._classes[1]]
        shown = [float(values.var()) for values in classes]
        pooled = sum(len(values) * one for values, one in zip(classes, shown, strict=True)) / len(difference)
        found = 0.0
        for values, own, count in zip(classes, shown, groups, strict=True):
            more = len(values) + 1
            beside = (float(np.square(values).sum()) + 0.5) / more - (float(values.sum()) / more) ** 2
            found += max(own, pooled, beside) / count**2
        return found / len(classes) ** 2

    @cached_property
    def _weights(self) -> Floats:
        members, classes = self._classes
        counts = np.array([mask.sum() for mask, _ in classes])
        return np.asarray(1 / (len(counts) * counts[members]))

    @cached_property
    def _classes(self) -> tuple[NDArray[np.intp], list[tuple[NDArray[np.bool_], int]]]:
        """The class of each image by number, (N,), and of each class its images, (N,), and its number of groups."""
        names, members = np.unique(self.labels, return_inverse=True)
        masks = [members == k for k in range(len(names))]
        return members, [(mask, len(np.unique(self.members[mask]))) for mask in masks]


@dataclass(frozen=True, eq=False)
class Difference:
    """Differences (P, D) of two classifiers' scores on shared draws, and what of them is due to the test images."""

    table: Floats
    images: Component
    pool: Component = NOTHING  # what draws out of the same few labels do not show

    @classmethod
    def between(cls, ours: ArrayLike, theirs: ArrayLike, test: ScoredPart, reuse: float = 0.0) -> "Difference":
        """Of right answers: ours (P, D, N), theirs (D, N) or (P, D, N), each 0 or 1, or between two of them.

        `reuse` is what draws out of the same labels have in common, see `reuse_of`.
        """
        right = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
        table, influence = test.balanced_accuracy(right), test.influence(right)
        images = images_component(influence)
        rare = test.unseen(right.reshape(-1, right.shape[-1]).mean(0))
        images = Component(images.variance + rare, images.degrees)
        return cls(table, images, pool_component(table, influence, reuse))

    @property
    def mean(self) -> float:
        """Over pretrainings and draws."""
        return float(self.table.mean())

    @property
    def interval(self) -> Interval:
        """For other draws and other test images; with two pretrainings or more, for other pretrainings too."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> Interval:
        """The same at another level of confidence."""
        if self.table.shape[1] == 1:
            return Interval(self.mean, None, None, self.table.size)
        parts = [crossed(self.table), self.images, self.pool]
        cautious = len(self.table) == 1  # the variance of several pretrainings is estimated with caution already
        return interval(self.mean, self.table.size, parts, level, cautious)

    def shown_by(self, pretrainings: int, draws: int) -> float:
        """The difference that so many pretrainings and draws show in four of five sweeps, at the spread seen here."""
        parts = _spread(self.table)
        freedom = [pretrainings - 1, draws - 1, (pretrainings - 1) * (draws - 1)]
        counts = [pretrainings, draws, pretrainings * draws]
        components = [
            Component(part / count, degrees)
            for part, count, degrees in zip(parts, counts, freedom, strict=True)
            if degrees and part
        ]
        return _half_width([*components, self.images, self.pool], cautious=pretrainings == 1) * POWER

    @property
    def images_half_width(self) -> float:
        """Half of the interval that is due to the test images alone."""
        return _half_width([self.images])

    @property
    def resolution(self) -> float:
        """The difference that this test part shows in four of five sweeps, however many draws there are."""
        return self.images_half_width * POWER


def _half_width(components: Sequence[Component], cautious: bool = False) -> float:
    found = interval(0.0, 1, components, cautious=cautious)
    assert found.high is not None
    return found.high


def images_component(influence: Floats) -> Component:
    """Of a mean over cells (pretrainings x draws) of influences (..., G) of test groups.

    Squares of a group's mean also hold what differs from cell to cell, which the table of scores holds already: it
    is taken off. One group alone says nothing, and gives no variance.
    """
    cells = influence.reshape(-1, influence.shape[-1])
    count, groups = cells.shape
    if groups == 1:
        return Component(0.0, 1.0)
    means = cells.mean(0)
    whole = float(np.square(means).sum())
    apart = float(np.square(cells - means).sum()) / max(1, count - 1) / count if count > 1 else 0.0
    return Component(max(0.0, whole - apart), groups - 1.0)


def reuse_of(drawn: Sequence[int], labeled: Sequence[int], folds: int = 1) -> float:
    """How many times the variance of a draw's luck in its labels the mean over draws still has, from the pool.

    Draws come out of the same labels: two of `drawn` out of `labeled` images, each (K,) by class, share a part of
    them, and with it of their luck. Classes weigh alike in balanced accuracy, and the luck of one falls with its
    labels: r is the mean of the parts by 1 / drawn. A repeat of cross-validation averages a draw for each fold, so
    that of the variance S2 that draws or repeats show, S2 x folds x r / (1 - r) is common to all (as in Nadeau and
    Bengio, 2003).
    """
    most = MOST_SHARED if folds == 1 else 1 - 1 / folds
    known = [(own, of) for own, of in zip(drawn, labeled, strict=True) if own]
    luck = sum(1 / own for own, _ in known)
    shared = sum(min(own / of, most) / own for own, of in known) / luck if known else most
    return folds * shared / (1 - shared)


def pool_component(table: Floats, influence: Floats, reuse: float) -> Component:
    """Of scores (P, D) and influences (P, D, G): the luck of the labels that all draws share.

    The variance between draws is luck and the noise of single images; of the latter the images know.
    """
    scores, of_groups = table.mean(0), influence.mean(0)
    if not reuse or len(scores) == 1:
        return NOTHING
    between = float(scores.var(ddof=1))
    luck = max(0.0, between - float(of_groups.var(0, ddof=1).sum()))
    return Component(luck * reuse, len(scores) - 1.0)


def _spread(table: Floats) -> tuple[float, float, float]:
    """Variances of pretrainings, of draws and of the rest in a table (P, D)."""
    pretrainings, draws = table.shape
    if pretrainings == 1:
        return 0.0, float(table[0].var(ddof=1)) if draws > 1 else 0.0, 0.0
    mean, rows, columns = table.mean(), table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = float(np.square(table - rows - columns + mean).sum()) / max(1, (pretrainings - 1) * (draws - 1))
    by_pretraining = draws * float(rows.var(ddof=1))
    by_draw = pretrainings * float(columns.var(ddof=1)) if draws > 1 else 0.0
    return max(0.0, by_pretraining - rest) / draws, max(0.0, by_draw - rest) / pretrainings, rest
