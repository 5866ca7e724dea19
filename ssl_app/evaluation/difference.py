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

from ssl_app.evaluation.intervals import Component, Interval, crossed, interval

Floats = NDArray[np.float64]


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
        _, members, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        recall = np.stack([values[..., members == k].mean(-1) for k in range(len(counts))], -1)  # (..., K)
        of_images = (values - recall[..., members]) * self._weights  # (..., N)
        found = np.zeros((*values.shape[:-1], int(self.members.max()) + 1))
        np.add.at(np.moveaxis(found, -1, 0), self.members, np.moveaxis(of_images, -1, 0))
        return found

    @cached_property
    def _weights(self) -> Floats:
        _, members, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        return np.asarray(1 / (len(counts) * counts[members]))


@dataclass(frozen=True, eq=False)
class Difference:
    """Differences (P, D) of two classifiers' scores on shared draws, and what of them is due to the test images."""

    table: Floats
    images: Component

    @classmethod
    def between(cls, ours: ArrayLike, theirs: ArrayLike, test: ScoredPart) -> "Difference":
        """Of right answers: ours (P, D, N), theirs (D, N) or (P, D, N), each 0 or 1, or between two of them."""
        right = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
        return cls(test.balanced_accuracy(right), images_component(test.influence(right)))

    @property
    def mean(self) -> float:
        """Over pretrainings and draws."""
        return float(self.table.mean())

    @property
    def interval(self) -> Interval:
        """For other draws and other test images; with two pretrainings or more, for other pretrainings too."""
        if self.table.shape[1] == 1:
            return Interval(self.mean, None, None, self.table.size)
        return interval(self.mean, self.table.size, [crossed(self.table), self.images])

    def half_width_at(self, pretrainings: int, draws: int) -> float:
        """Half of the interval that so many pretrainings and draws would give, at the spread seen here."""
        parts = _spread(self.table)
        freedom = [pretrainings - 1, draws - 1, (pretrainings - 1) * (draws - 1)]
        counts = [pretrainings, draws, pretrainings * draws]
        components = [
            Component(part / count, degrees)
            for part, count, degrees in zip(parts, counts, freedom, strict=True)
            if degrees and part
        ]
        found = interval(0.0, 1, [*components, self.images])
        assert found.high is not None
        return found.high

    @property
    def resolution(self) -> float:
        """The smallest difference that this test part can show, however many draws there are."""
        found = interval(0.0, 1, [self.images])
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
    whole = float(np.square(means).sum()) * groups / (groups - 1)
    apart = float(np.square(cells - means).sum()) / max(1, count - 1) / count if count > 1 else 0.0
    return Component(max(0.0, whole - apart), groups - 1.0)


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
