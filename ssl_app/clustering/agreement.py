"""How far two partitions of the same images agree, and how pure clusters are; a cluster's name may be anything."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Purity:
    """Share of images that are of their cluster's commonest class, overall and by cluster."""

    overall: float
    clusters: NDArray[Any]  # (K,) those that occur, sorted
    sizes: NDArray[np.int64]  # (K,) images
    each: NDArray[np.float64]  # (K,)
    commonest: NDArray[Any]  # (K,) the class, the first of equals


@dataclass(frozen=True, eq=False)
class _Table:
    """The filled cells of a contingency table, by row and then by column."""

    count: NDArray[np.int64]  # (M,)
    row: NDArray[np.int64]  # (M,)
    column: NDArray[np.int64]  # (M,)
    rows: NDArray[np.int64]  # (R,) images of each cluster of the first partition
    columns: NDArray[np.int64]  # (S,) and of the second
    names: tuple[NDArray[Any], NDArray[Any]]  # of the rows and of the columns

    @property
    def equal(self) -> bool:
        """Whether both are one partition, whatever its clusters are called."""
        return len(self.count) == len(self.rows) == len(self.columns)

    @property
    def constant(self) -> bool:
        """Whether one of them is a single cluster."""
        return min(len(self.rows), len(self.columns)) == 1


def nmi(a: ArrayLike, b: ArrayLike) -> float:
    """Mutual information over the geometric mean of the entropies, in [0, 1]. (N,), (N,) -> ().

    As DeepCluster reports it; scikit-learn's default is the arithmetic mean. One partition under two sets of
    names gives 1, so do two of a single cluster; a single cluster against anything else gives 0. Chance is far
    from 0 where clusters are small: two random partitions of 5,000 images into 1,000 clusters have .75. `ami`
    takes chance away.
    """
    table = _table(a, b)
    if table.equal:
        return 1.0
    if table.constant:
        return 0.0
    shared = _information(table) / (_entropy(table.rows) * _entropy(table.columns)) ** 0.5
    return float(np.clip(shared, 0, 1))


def ami(a: ArrayLike, b: ArrayLike) -> float:
    """Mutual information above chance, over the most above chance: 0 by chance, at most 1. (N,), (N,) -> ().

    Over the arithmetic mean of the entropies, scikit-learn's default (Vinh et al., 2010). Single clusters are
    as in `nmi`. Two clusters share a chance with all others of their sizes, so the work is that of the
    different sizes: of 1,000 clusters against 1,000 on 50,000 images some 10^5 terms, where scikit-learn
    goes through 5 x 10^7. Below 0 is worse than chance.
    """
    table = _table(a, b)
    if table.equal:
        return 1.0
    if table.constant:
        return 0.0
    chance = _by_chance(table.rows, table.columns)
    most = (_entropy(table.rows) + _entropy(table.columns)) / 2
    return float((_information(table) - chance) / (most - chance))


def use(clusters: ArrayLike, count: int) -> float:
    """How evenly images lie in the clusters: exp of the entropy of the sizes, over their number. (N,) -> 1 / K to 1.

    1 where all are as large, 1 / K where one holds every image.
    """
    sizes = np.bincount(np.asarray(clusters, dtype=np.int64), minlength=count)
    return float(np.exp(_entropy(sizes[sizes > 0])) / count)


def purity(clusters: ArrayLike, labels: ArrayLike) -> Purity:
    """Purity of clusters by known classes. (N,), (N,).

    It rises with the number of clusters by itself, to 1 where each holds one image: compare equal numbers only.
    """
    table = _table(clusters, labels)
    order = np.lexsort((table.column, -table.count, table.row))  # a row's largest cell comes first
    first = order[np.searchsorted(table.row, np.arange(len(table.rows)))]  # the rows stay where they were
    most = table.count[first]
    return Purity(
        float(most.sum() / table.rows.sum()),
        table.names[0],
        table.rows,
        most / table.rows,
        table.names[1][table.column[first]],
    )


def _table(a: ArrayLike, b: ArrayLike) -> _Table:
    one, other = np.asarray(a), np.asarray(b)
    assert one.shape == other.shape == (one.size,), (one.shape, other.shape)
    assert one.size > 0, "no images"
    names, row = np.unique(one, return_inverse=True)
    others, column = np.unique(other, return_inverse=True)
    # the cells that are there, not the whole table: that of 100,000 clusters by 100,000 fits nowhere
    cell, count = np.unique(row.astype(np.int64) * len(others) + column, return_counts=True)
    return _Table(
        count.astype(np.int64),
        cell // len(others),
        cell % len(others),
        np.bincount(row),
        np.bincount(column),
        (names, others),
    )


def _entropy(sizes: NDArray[np.int64]) -> float:
    """In nats."""
    share = sizes / sizes.sum()
    return float(-(share * np.log(share)).sum())


def _information(table: _Table) -> float:
    """Mutual information in nats."""
    total = np.log(table.rows.sum())
    excess = np.log(table.count) - np.log(table.rows)[table.row] - np.log(table.columns)[table.column] + total
    return max(0.0, float((table.count * excess).sum() / table.rows.sum()))


def _by_chance(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> float:
    """Mean mutual information in nats of all partitions into clusters of these sizes (Vinh et al., 2010)."""
    from scipy.special import gammaln

    total = int(rows.sum())
    factorial = gammaln(np.arange(total + 1) + 1.0)  # logarithms of n!
    log = np.log(np.arange(1, total + 1))
    ours, theirs = (list(zip(*np.unique(sizes, return_counts=True), strict=True)) for sizes in (rows, columns))
    found = 0.0
    for a, of_a in ours:
        for b, of_b in theirs:
            n = np.arange(max(1, a + b - total), min(a, b) + 1)  # images that the two clusters may share
            chance = (
                factorial[a] + factorial[b] + factorial[total - a] + factorial[total - b]
                - factorial[total] - factorial[n] - factorial[a - n] - factorial[b - n] - factorial[total - a - b + n]
            )  # fmt: skip
            excess = log[n - 1] + log[-1] - log[a - 1] - log[b - 1]
            found += of_a * of_b * float((n * excess * np.exp(chance)).sum())
    return found / total
