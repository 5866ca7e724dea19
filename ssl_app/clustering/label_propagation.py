"""Label propagation: labels of a few images spread over a graph of nearest neighbors (Zhou et al., 2004; Iscen et
al., 2019, arXiv:1904.04717).

The graph of Iscen et al., section 3.2, with cosines cubed, of features that are whitened first; the iteration of Zhou
et al. in place of its limit.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering import whitening
from ssl_app.clustering.neighbors import CELL, EXACT, NEAR, nearest_by_cosine

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NEIGHBORS = 15
ALPHA = 0.95  # share of a row that comes from its neighbors, at each iteration
ITERATIONS = 50
POWER = 3  # of cosines, which gives near neighbors more say
# dimensions of the whitened features: an eighth of them, and of the images, 8 to 32; fewer are left as they are.
# Balanced accuracy at 1, 4, 8 and 32 labels per class, SeLa, validation images: chest-xray as they are .572 .692 .696
# .742, whitened to 32 .629 .713 .723 .756, to 64 .623 .711 .716 .755; neu-steel .825 .932 .950 .970 and, to 64, .831
# .944 .955 .971; digits (DeepCluster) .881 .935 .940 .952 and .874 .940 .953 .966
SHARE, FEWEST, MOST = 8, 8, 32
WIDE = 2048  # features above which the axes are found by random projections, since all of them would take minutes
# what a graph that is kept depends on, beside its features
GRAPH = ("whitened", POWER, SHARE, FEWEST, MOST, WIDE, EXACT, CELL, NEAR)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Propagated:
    """Class probabilities of every image, and how sure they are."""

    targets: Floats  # (N, K), rows sum to 1; labeled images keep their label, those not reached are uniform
    certainty: Floats  # (N,) in [0, 1]: 1 - entropy / log K; 1 for labeled images, 0 for those not reached
    reached: NDArray[np.bool_]  # (N,) whether a label arrived
    mass: Floats  # (K,) share of each class in all that was spread, before classes are divided by it


def propagate(
    features: ArrayLike,
    labels: ArrayLike,
    classes: int,
    *,
    neighbors: int = NEIGHBORS,
    alpha: float = ALPHA,
    iterations: int = ITERATIONS,
    graph: "csr_array | None" = None,
) -> Propagated:
    """Labels of a few images, spread to all. features (N, D), labels (N,) with -1 where there is none.

    `graph` is the `neighbor_graph` of these features where it is known already: it is what takes the time.

    Each class is divided by its mass, summed over all images: without that the class of the densest region floods
    the others. An image that no label reaches within `iterations` steps of the graph stays unlabeled.
    """
    given = np.asarray(labels, dtype=np.int64)
    assert given.shape == np.shape(features)[:1], (given.shape, np.shape(features))
    assert ((given >= -1) & (given < classes)).all(), "a label outside the classes"
    labeled = np.flatnonzero(given >= 0)
    known = np.zeros((len(given), classes))  # (N, K)
    known[labeled, given[labeled]] = 1
    graph = neighbor_graph(features, neighbors) if graph is None else graph
    spread_out = spread(graph, known, alpha, iterations)
    mass = spread_out.sum(axis=0)  # (K,), 0 for a class without a label
    shares = spread_out / np.where(mass > 0, mass, 1)
    total = shares.sum(axis=1, keepdims=True)
    reached = total[:, 0] > 0
    targets = np.full_like(shares, 1 / classes)
    np.divide(shares, total, out=targets, where=total > 0)
    targets[labeled] = known[labeled]
    share = mass / max(mass.sum(), np.finfo(np.float64).tiny)
    return Propagated(targets, np.where(reached, certainty(targets), 0.0), reached, share)


def neighbor_graph(features: ArrayLike, neighbors: int = NEIGHBORS) -> "csr_array":
    """The `affinity` of features whose principal axes count alike. (N, D) -> (N, N), sparse.

    As they are, a few directions that vary most decide who is near whom.
    """
    held = np.asarray(features, dtype=np.float32)
    rows = torch.from_numpy(held if held.flags.writeable else held.copy())
    assert rows.isfinite().all(), "features that are not finite"
    white = _whitened(rows)
    del features, held, rows  # a gigabyte a million images: the graph needs the room
    return affinity(white, neighbors)


def _whitened(rows: Tensor) -> Tensor:
    """(N, D) -> (N, d)."""
    count, width = rows.shape
    kept = min(width // SHARE, count // SHARE, MOST)
    if kept < FEWEST:
        return rows
    if width <= WIDE:
        return whitening.fit(rows, kept)(rows)
    from sklearn.decomposition import PCA

    found = PCA(kept, whiten=True, svd_solver="randomized", random_state=0).fit_transform(rows.numpy())
    return torch.from_numpy(found)


def affinity(features: ArrayLike, neighbors: int = NEIGHBORS) -> "csr_array":
    """S = D^-1/2 W D^-1/2 of W = max(cosine, 0)^3 between nearest neighbors. (N, D) -> (N, N), sparse.

    W is the larger of both directions, its diagonal is 0. The neighbors are exact up to `neighbors.EXACT` images,
    and most of them beyond; which of several equally near images are the last ones is not defined. An image without
    a neighbor of positive cosine has an empty row. Never more than a block of cosines is in memory.
    """
    from scipy.sparse import csr_array

    unit = functional.normalize(torch.tensor(np.asarray(features, dtype=np.float32)), dim=1)  # (N, D)
    assert unit.isfinite().all(), "features that are not finite"
    count = len(unit)
    k = min(neighbors, count - 1)
    cosine, near = nearest_by_cosine(unit, k)
    del unit
    weight = np.maximum(cosine, 0).ravel().astype(np.float64) ** POWER
    w = csr_array((weight, near.ravel(), np.arange(count + 1) * k), shape=(count, count))
    w = w.maximum(w.T).tocsr()
    w.eliminate_zeros()
    degree: Floats = np.asarray(w.sum(axis=1)).ravel()
    inverse = np.divide(1, np.sqrt(degree), out=np.zeros(count), where=degree > 0)
    w.data *= inverse[w.indices] * np.repeat(inverse, np.diff(w.indptr))
    return w


def spread(graph: "csr_array", known: Floats, alpha: float = ALPHA, iterations: int = ITERATIONS) -> Floats:
    """Z <- alpha S Z + (1 - alpha) Y from Z = Y on (Zhou et al., section 2); classes are not normalized. (N, K)."""
    assert 0 <= alpha < 1, alpha
    spread_out = known
    for _ in range(iterations):
        spread_out = alpha * (graph @ spread_out) + (1 - alpha) * known
    return spread_out


def certainty(targets: Floats) -> Floats:
    """1 - entropy / log K; 1 where there is one class. (N, K) -> (N,)."""
    classes = targets.shape[1]
    if classes == 1:
        return np.ones(len(targets))
    log = np.log(targets, out=np.zeros_like(targets), where=targets > 0)
    return np.asarray(np.clip(1 + (targets * log).sum(axis=1) / np.log(classes), 0, 1))
