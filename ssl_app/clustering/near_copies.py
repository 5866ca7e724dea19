"""Near copies by features: images that lie far closer to each other than to all others, mirrored or turned too.

How close features are says little by itself: of a network trained on chest X-rays the nearest other patient is within
a cosine of .96. So the features are whitened, and a distance is held against the one to the NEIGHBOR-th nearest
image, as in the ratio test of Lowe (2004, section 7.1); a mirrored or turned copy is one of what the network makes of
the image mirrored and turned.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.clustering import kmeans, whitening
from ssl_app.clustering.neighbors import BLOCK, nearest_by_cosine

DIMENSIONS = 128  # of the whitened features, at most
IMAGES_EACH = 2  # images there are for each dimension, at least: in more, those of a small set are all equally far
# whose distance a near copy's is held against: the tenth's, of few images one in SHARE, and never the first one's
NEIGHBOR, SHARE = 10, 20
LEAST = 40  # images, of fewer of which nothing can be said
# 5,190 chest X-rays and 1,799 steel surfaces without exact copies have 0 and 22 such pairs; of copies all of JPEG 40,
# noise and half the size are found, 61 % of contrast 1.4; at .5 it is 1 and 52 pairs, and 78 % (docs/results.md)
RATIO = 0.45
EXACT = 8192  # images up to which all are compared with all
CELL, NEAR, ITERATIONS, SEED = 1000, 3, 6, 0  # images of a cell of k-means, cells that are looked into


@dataclass(frozen=True, eq=False)
class NearCopies:
    """M pairs of images, i before j, the closest first."""

    pairs: NDArray[np.int64]  # (M, 2)
    ratio: NDArray[np.float32]  # (M,) their distance over that to the NEIGHBOR-th nearest image
    turns: NDArray[np.int64]  # (M,) how one of the two was turned, by the place among the features; 0: not at all


def near_copies(features: Iterable[NDArray[np.float32]], ratio: float = RATIO) -> NearCopies:
    """Pairs among N images, by the features (N, D) of the images under each turn, turn 0 first.

    Every turn is read once; of fewer than LEAST images nothing is found. Above EXACT images a pair is looked for in
    NEAR cells of k-means: the time grows with the images, not with their square. Raises
    DataError where a feature is not finite.
    """
    every = iter(features)
    first = torch.from_numpy(np.array(next(every)))
    count = len(first)
    if count < LEAST:
        return NearCopies(np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    white = whitening.fit(first, min(DIMENSIONS, count // IMAGES_EACH))
    unit = white(first)
    cosine, _ = nearest_by_cosine(unit, min(NEIGHBOR, max(2, count // SHARE)), EXACT)
    scale = torch.from_numpy(distance(cosine[:, -1]))  # (N,)
    cells = _Cells.of(unit)
    found: dict[tuple[int, int], tuple[float, int]] = {}
    for turn, one in enumerate(chain([first], (torch.from_numpy(np.array(one)) for one in every))):
        for i, j, alike in cells.closer(white(one), scale, ratio):
            closeness = math.sqrt(max(2 - 2 * alike, 0)) / max(float(min(scale[i], scale[j])), 1e-6)
            key = (min(i, j), max(i, j))
            found[key] = min(found.get(key, (np.inf, turn)), (closeness, turn))
    order = sorted(found, key=lambda key: (found[key], key))
    return NearCopies(
        np.array(order, np.int64).reshape(-1, 2),
        np.array([found[key][0] for key in order], np.float32),
        np.array([found[key][1] for key in order], np.int64),
    )


def distance(cosine: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of two rows of length 1."""
    return np.sqrt(np.maximum(2 - 2 * cosine, 0))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The rows in cells of k-means; a small set is one cell."""

    unit: Tensor  # (N, d) rows of length 1
    centers: Tensor  # (K, d)
    members: tuple[Tensor, ...]

    @classmethod
    def of(cls, unit: Tensor) -> "_Cells":
        if len(unit) <= EXACT:
            return cls(unit, unit.new_zeros(1, unit.shape[1]), (torch.arange(len(unit)),))
        cells = len(unit) // CELL
        found = kmeans.fit(unit, cells, iterations=ITERATIONS, seed=SEED)
        ends = torch.bincount(found.labels, minlength=cells).cumsum(0).tolist()
        members = torch.tensor_split(torch.argsort(found.labels, stable=True), ends[:-1])
        return cls(unit, torch.nn.functional.normalize(found.centroids, dim=1), members)

    def closer(self, rows: Tensor, scale: Tensor, ratio: float) -> Iterator[tuple[int, int, float]]:
        """(i, j, cosine) of rows i, (N, d), that lie within `ratio` of both scales of another image j's own."""
        least = 1 - (ratio * scale).square() / 2  # (N,) a cosine
        near = (rows @ self.centers.T).topk(min(NEAR, len(self.centers))).indices  # (N, P)
        for cell, members in enumerate(self.members):
            asking = torch.nonzero((near == cell).any(1))[:, 0]
            size = max(1, BLOCK // max(len(members), 1))
            for start in range(0, len(asking), size):
                some = asking[start : start + size]
                block = rows[some] @ self.unit[members].T
                close = (block >= least[some][:, None]) & (block >= least[members]) & (some[:, None] != members)
                for a, b in torch.nonzero(close).tolist():
                    yield int(some[a]), int(members[b]), float(block[a, b])
