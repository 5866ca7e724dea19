"""Retrieval: whether the images most like a query are of its class, those of its own group left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation.knn import unit_length

RANKS = (1, 5, 10)  # at which precision is taken
BLOCK = 2**23  # similarities sorted at a time: 32 MiB, and twice as much for their order


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Of each query that has an image to find, n of N: how well it is found, and what chance makes of that."""

    queries: NDArray[np.int64]  # (n,) indices of the queries
    average_precision: NDArray[np.float64]  # (n,)
    precision: dict[int, NDArray[np.float64]]  # (n,) at each rank
    chance_average_precision: NDArray[np.float64]  # (n,) in a random order
    chance_precision: NDArray[np.float64]  # (n,) in a random order, at any rank


def retrieve(
    features: ArrayLike,
    labels: ArrayLike,
    units: Sequence[object],
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> Retrieval:
    """Each image searches all the others by cosine; right is what is of its class. (N, d), (N,), (N,).

    The query itself and all images of its unit (its group, or exact copies of it) are no candidates. A query with no
    candidate of its class is left out. Average precision is the mean, over the candidates of the class, of the
    precision at their ranks; precision at k counts fewer where there are fewer candidates. Images equally near
    are ranked in one random order, not in that of the set, which is often sorted by class. Features are finite.
    """
    truth = np.asarray(labels, dtype=np.int64)
    unit = np.unique(np.array(units, dtype=object).astype(str), return_inverse=True)[1]
    count = len(truth)
    assert unit.shape == truth.shape, (unit.shape, truth.shape)
    order = np.random.default_rng(seed).permutation(count)
    points = unit_length(features, device)
    gallery = points[torch.from_numpy(order).to(points.device)]
    kind, group = (torch.from_numpy(one[order]).to(points.device) for one in (truth, unit))
    ranks = torch.arange(1, count + 1, device=points.device)
    found: list[NDArray[np.float64]] = []
    for first in range(0, count, max(1, BLOCK // count)):
        queries = slice(first, min(first + max(1, BLOCK // count), count))
        cosine = points[queries] @ gallery.T  # (B, N)
        own = torch.from_numpy(unit[queries]).to(points.device)[:, None] == group
        right = (torch.from_numpy(truth[queries]).to(points.device)[:, None] == kind) & ~own
        nearest = cosine.masked_fill_(own, -torch.inf).argsort(dim=1, descending=True, stable=True)
        hits = right.gather(1, nearest)  # candidates first; those left out come last and are none
        candidates, relevant = (~own).sum(1), hits.sum(1)
        before = hits.cumsum(1)
        average = (before / ranks).double().mul_(hits).sum(1) / relevant
        at = [before[:, min(k, count) - 1] / candidates.clamp(max=k) for k in RANKS]
        found.append(torch.stack([candidates, relevant, average, *at], 1).double().cpu().numpy())
    table = np.concatenate(found)
    some = table[:, 1] > 0
    candidates, relevant = table[some, 0], table[some, 1]
    return Retrieval(
        np.flatnonzero(some),
        table[some, 2],
        {k: table[some, 3 + i] for i, k in enumerate(RANKS)},
        _by_chance(candidates, relevant),
        relevant / candidates,
    )


def _by_chance(candidates: NDArray[np.float64], relevant: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean average precision over all orders of R relevant among N. (n,), (n,) -> (n,).

    The candidate at rank k is relevant in R / N of the orders, and then so are (k - 1) (R - 1) / (N - 1) before it:
    (1 / N) sum over k of (1 + (k - 1) (R - 1) / (N - 1)) / k.
    """
    if not len(candidates):
        return candidates
    harmonic = np.cumsum(1 / np.arange(1, int(candidates.max()) + 1))[candidates.astype(np.int64) - 1] / candidates
    others = (relevant - 1) / np.maximum(candidates - 1, 1)
    return np.asarray(harmonic + others * (1 - harmonic))
