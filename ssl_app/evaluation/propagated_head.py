"""A logistic head on labels that propagate from a few images to all (Iscen et al., 2019, arXiv:1904.04717)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ssl_app.clustering.label_propagation import ALPHA, NEIGHBORS, Propagated, propagate
from ssl_app.evaluation import logistic

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# SimCLR features, 1 to 32 labels per class, mean balanced accuracy against C = 30: chest-xray (4 draws) from -.003 to
# 0, neu-steel (6 draws) from 0 to .001 for C = 3 to 300. Probabilities in place of the likeliest class, at C = 30:
# -.003 and .001.
STRENGTH = logistic.RULE
MOST = 100_000  # images that the head is fitted to: of some hundred numbers a class, more say nothing new


def fit(
    features: ArrayLike,
    drawn: ArrayLike,
    labels: ArrayLike,
    classes: int,
    *,
    neighbors: int = NEIGHBORS,
    alpha: float = ALPHA,
    graph: "csr_array | None" = None,
) -> tuple[logistic.Logistic, Propagated]:
    """The head on all images: each counts by its certainty, a drawn one as 1, one that no label reaches as 0.

    features (N, D) of every image that may be used, labeled or not; drawn (n,) indices of the labeled ones among
    them; labels (n,) of these; graph their `neighbor_graph`, where it is known. The target of an image is its
    likeliest class. Of more images than MOST those drawn and some at random are fitted to. -> the head, and what all
    images were given.
    """
    given = np.full(len(np.asarray(features)), -1)
    given[np.asarray(drawn, dtype=np.int64)] = np.asarray(labels, dtype=np.int64)
    found = propagate(features, given, classes, neighbors=neighbors, alpha=alpha, graph=graph)
    target, weights = found.targets.argmax(axis=1), found.certainty
    fitted = ""
    if len(given) > MOST:
        others = np.random.default_rng(0).permutation(np.flatnonzero(given < 0))[:MOST]
        rows = np.union1d(np.flatnonzero(given >= 0), others)
        features, target, weights = np.asarray(features)[rows], target[rows], weights[rows]
        fitted = f", and fitted to {len(rows):,} of them"
    head = logistic.fit_at(features, target, classes, STRENGTH, weights=weights)
    how = (
        f"{head.how}, by rule, on labels propagated to {found.reached.sum():,} of {len(given):,} images"
        f" (mean certainty {found.certainty.mean():.2f}){fitted}"
    )
    return logistic.Logistic(head.weight, head.bias, head.strength, how), found
