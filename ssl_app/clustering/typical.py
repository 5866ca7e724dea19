"""TypiClust: which images to label next, the typical ones of clusters without a label (Hacohen et al., 2022,
arXiv:2202.02794).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering import kmeans

NEIGHBORS = 20  # the paper's K of typicality
MOST_CLUSTERS = 500  # the paper's
MEAN_SIZE = 10  # images of a cluster, at least: the mean distance of fewer says little of density
SMALL = 5  # images; a cluster of so few is an outlier, and comes last (the authors leave it out)
ITERATIONS = 50  # of k-means, which mostly ends before
BLOCK = 2**24  # distances that are held at once: 64 MiB


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images to label next, and the partition that they come from."""

    indices: NDArray[np.int64]  # (n,) the most important first
    clusters: NDArray[np.int64]  # (N,) of every image, labeled ones too; copies share theirs


def choose(
    features: ArrayLike,
    labeled: ArrayLike,
    wanted: int,
    *,
    groups: Sequence[str] | None = None,
    content: ArrayLike | None = None,
    seed: int = 0,
) -> Chosen:
    """Choose `wanted` of the unlabeled images: features (N, D), labeled (N,) bool -> indices (wanted,).

    Algorithm 1 of the paper: k-means of the features, at length 1, into as many clusters as there will be labels, and
    the most typical image of each cluster with the fewest labels, the largest first. Here copies of one picture
    (equal content, (N,)) count once, and are labeled where one of them is. A second image of a group is chosen only
    when each group with unlabeled images has given one. The same indices for the same seed and threads. Raises
    DataError where a feature is not finite.
    """
    unit = functional.normalize(torch.tensor(np.asarray(features, dtype=np.float32)), dim=1)  # (N, D)
    known = np.asarray(labeled, dtype=bool)
    copies = np.arange(len(known)) if content is None else np.unique(np.asarray(content), return_inverse=True)[1]
    picture = np.lexsort((np.arange(len(known)), ~known, copies))  # a labeled copy comes first and stands for all
    picture = picture[np.unique(copies[picture], return_index=True)[1]]  # (P,)
    assert wanted <= int((~known[picture]).sum()), "fewer pictures without a label than wanted"
    k = cluster_count(int(known[picture].sum()), wanted, len(picture))
    clusters = kmeans.fit(unit[picture], k, iterations=ITERATIONS, seed=seed, fast=False).labels.numpy()
    names = None if groups is None else [groups[index] for index in picture.tolist()]
    found = select(unit[picture], clusters, known[picture], wanted, names)
    return Chosen(picture[found], clusters[copies])


def cluster_count(labels: int, wanted: int, images: int) -> int:
    """How many clusters: one for each label there is or will be, while they are not too many for so few images."""
    return max(1, min(labels + wanted, MOST_CLUSTERS, images // MEAN_SIZE))


def select(
    unit: Tensor,
    clusters: NDArray[np.int64],
    labeled: NDArray[np.bool_],
    wanted: int,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """One image after the other from the cluster with the fewest labels, of equals from the largest. -> (wanted,).

    Rows of unit (P, D), clusters (P,), labeled (P,) and groups (P,) are different pictures. Where each cluster has
    a label, this goes round again. Clusters of at most SMALL images come after all others.
    """
    distance = atypicality(unit, clusters)
    sizes = np.bincount(clusters)
    labels = np.bincount(clusters[labeled], minlength=len(sizes))
    group = np.arange(len(clusters)) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
    given = np.zeros(int(group.max()) + 1, dtype=np.int64)  # images of each group among those chosen
    free = ~labeled
    found: list[int] = []
    for _ in range(wanted):
        fewest = given[group[free]].min()
        open_rows = np.flatnonzero(free & (given[group] == fewest))
        at = clusters[open_rows]
        # by cluster: small ones last, the fewest labels, the largest; then the most typical image
        order = np.lexsort((distance[open_rows], at, -sizes[at], labels[at], sizes[at] <= SMALL))
        best = int(open_rows[order[0]])
        found.append(best)
        free[best] = False
        labels[clusters[best]] += 1
        if groups is not None:
            given[group[best]] += 1
    return np.array(found, dtype=np.int64)


def atypicality(unit: Tensor, clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean distance of each row to its nearest neighbors in its cluster, the inverse of typicality (section 3.2).

    20 neighbors, or all others of a smaller cluster; 0 for a cluster of one. (P, D), (P,) -> (P,).
    """
    found = np.zeros(len(clusters))
    for cluster in Counter(clusters.tolist()):
        members = np.flatnonzero(clusters == cluster)
        k = min(NEIGHBORS, len(members) - 1)
        if k == 0:
            continue
        rows = unit[members].double()
        rows = (rows - rows.mean(0)).float()  # about their mean, short distances lose no digits
        squares = rows.square().sum(1)
        step = max(1, BLOCK // len(members))
        for start in range(0, len(members), step):
            some = slice(start, start + step)
            squared = squares[some, None] + squares - 2 * rows[some] @ rows.T  # (B, n)
            squared[torch.arange(len(squared)), torch.arange(start, start + len(squared))] = torch.inf  # itself
            nearest = squared.topk(k, dim=1, largest=False).values.clamp_min(0)
            found[members[some]] = nearest.sqrt().mean(1, dtype=torch.float64).numpy()
    return found
