"""K-means of frozen features against known classes: whether the classes are clusters of the feature space."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ssl_app.clustering import kmeans
from ssl_app.clustering.agreement import ami, ari, nmi
from ssl_app.evaluation.knn import unit_length

STARTS = 3  # of k-means, of which the one with the lowest objective is taken


@dataclass(frozen=True, eq=False)
class Partition:
    """Clusters of the training images, and of the test images by the nearest centroid."""

    train: NDArray[np.int64]  # (N,)
    test: NDArray[np.int64]  # (n,)


def partition(
    train: ArrayLike, test: ArrayLike, k: int, *, seed: int, device: torch.device | str = "cpu"
) -> Partition:
    """K clusters of the training images' features, scaled to length 1. (N, d), (n, d).

    No label is looked at; test images move no centroid. Raises DataError where there are fewer images than
    clusters.
    """
    points = unit_length(train, device)
    fits = [kmeans.fit(points, k, seed=seed + start) for start in range(STARTS)]
    best = min(fits, key=lambda found: found.objective)
    assigned = [kmeans.nearest(rows, best.centroids)[0] for rows in (points, unit_length(test, device))]
    return Partition(*(labels.cpu().numpy() for labels in assigned))


def agreement_scores(clusters: ArrayLike, labels: ArrayLike) -> tuple[float, float, float]:
    """NMI (geometric, as DeepCluster's), AMI and ARI. (N,), (N,)."""
    ours, theirs = np.asarray(clusters), np.asarray(labels)
    return nmi(ours, theirs), ami(ours, theirs), ari(ours, theirs)
