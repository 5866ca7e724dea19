"""Which images to label next: those whose labels would reach all others best, along the graph that labels spread on.

Facility location (Nemhauser, Wolsey and Fisher, 1978; to choose data: Wei, Iyer and Bilmes, 2015) with the kernel of
label propagation (Zhou et al., 2004) as the similarity. TypiClust (Hacohen et al., 2022, arXiv:2202.02794), typical
images of k-means clusters, needs more labels on most of our sets (docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ssl_app.clustering.label_propagation import ALPHA, neighbor_graph

MOST = 5000  # images that are looked at together: the kernel holds the square of it, 100 MB
BLOCK = 2**20  # numbers of the kernel that are compared at a time: they stay in the cache


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images to label next."""

    indices: NDArray[np.int64]  # (n,) the most important first
    stands_for: NDArray[
        np.int64
    ]  # (n,) images that each is nearest to, of all that are chosen or labeled; itself too


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

    One after the other the image that adds most to the sum, over all images, of the largest similarity to one that is
    chosen or labeled. Copies of one picture (equal content, (N,)) count once, and are labeled where one of them is. A
    second image of a group is chosen only when each group with unlabeled images has given one. Of more than MOST
    pictures a random MOST stand for all, labeled ones among them. The same indices for the same seed and threads.
    """
    held, known = np.asarray(features, dtype=np.float32), np.array(labeled, dtype=bool)
    copies = np.arange(len(known)) if content is None else np.unique(np.asarray(content), return_inverse=True)[1]
    picture = np.lexsort((np.arange(len(known)), ~known, copies))  # a labeled copy comes first and stands for all
    picture = picture[np.unique(copies[picture], return_index=True)[1]]  # (P,)
    open_ = int((~known[picture]).sum())
    assert wanted <= open_, "fewer pictures without a label than wanted"
    group = np.arange(len(known)) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
    given = np.zeros(int(group.max()) + 1, dtype=np.int64)  # images of each group among those chosen
    random = np.random.default_rng(seed)
    found: list[int] = []
    stands_for: list[int] = []
    while len(found) < wanted:
        rows = _some(picture, known, random)
        near = similarity(held[rows])
        at = select(near, known[rows], wanted - len(found), group[rows], given)
        found += rows[at].tolist()
        known[rows[at]] = True
        each = _nearest(near, np.flatnonzero(known[rows]))
        stands_for += [round(int((each == one).sum()) * len(picture) / len(rows)) for one in at.tolist()]
    return Chosen(np.array(found, dtype=np.int64), np.array(stands_for, dtype=np.int64))


def similarity(features: NDArray[np.float32]) -> Tensor:
    """K_ij / sqrt(K_ii K_jj) of K = (I - alpha S)^-1, the share of labels that arrive. (M, D) -> (M, M) in [0, 1].

    S is the graph of label propagation on the features. Of images without a path between them it is 0.
    """
    count = len(features)
    if count == 1:
        return torch.ones(1, 1)
    kernel = torch.eye(count, dtype=torch.float64) - ALPHA * torch.from_numpy(neighbor_graph(features).toarray())
    kernel = torch.cholesky_inverse(torch.linalg.cholesky(kernel))  # eigenvalues of S are at most 1
    scale = kernel.diagonal().rsqrt()
    return (kernel * scale * scale[:, None]).float().clamp_(0, 1)


def select(
    near: Tensor, labeled: NDArray[np.bool_], wanted: int, group: NDArray[np.int64], given: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Up to `wanted` rows without a label, one after the other. near (M, M), labeled (M,), group (M,) -> (n,).

    `given` counts the images that each group has given, and goes on counting.
    """
    cover = torch.zeros(len(near))  # (M,) similarity to the nearest of those chosen or labeled
    for row in np.flatnonzero(labeled).tolist():
        torch.maximum(cover, near[row], out=cover)
    free = ~labeled
    found: list[int] = []
    while len(found) < wanted and free.any():
        rows = np.flatnonzero(free & (given[group] == given[group[free]].min()))
        best = int(rows[_gains(near, rows, cover).argmax()])
        found.append(best)
        free[best] = False
        given[group[best]] += 1
        torch.maximum(cover, near[best], out=cover)
    return np.array(found, dtype=np.int64)


def _gains(near: Tensor, rows: NDArray[np.int64], cover: Tensor) -> Tensor:
    """What each row would add to the sum of `cover`. (n,)."""
    parts = torch.split(torch.from_numpy(rows), max(1, BLOCK // len(near)))
    return torch.cat([(near[part] - cover).clamp_min_(0).sum(1) for part in parts])


def _nearest(near: Tensor, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chosen row that is nearest to each, -1 where none is reached. (M, M) -> (M,)."""
    best, at = near[torch.from_numpy(chosen)].max(0)
    return np.where(best.numpy() > 0, chosen[at.numpy()], -1)


def _some(picture: NDArray[np.int64], known: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """At most MOST pictures, sorted: half of them may be labeled."""
    if len(picture) <= MOST:
        return picture
    order = random.permutation(picture)
    labeled, others = order[known[order]][: MOST // 2], order[~known[order]]
    return np.sort(np.concatenate([labeled, others[: MOST - len(labeled)]]))
