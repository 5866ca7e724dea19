"""Nearest images by features: what a network takes for alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 256  # queries at a time


def nearest(
    features: ArrayLike, queries: Sequence[int], units: Sequence[object], k: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Of each query, rows of the k nearest other images by cosine, nearest first, and the cosines. (N, d) -> ...

    An image of the query's own unit is left out: its group, or an exact copy. Fewer than k are found where no more
    are left. A row of zeros has a cosine of 0 with every image. Of equals the first row comes first.
    """
    rows = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    unit = np.unique(np.array([str(one) for one in units]), return_inverse=True)[1].reshape(-1)  # (N,)
    found = []
    for first in range(0, len(queries), BLOCK):
        some = np.asarray(queries[first : first + BLOCK], dtype=np.int64)
        for query, cosine in zip(some, rows[some] @ rows.T, strict=True):
            others = np.flatnonzero(unit != unit[query])
            best = others[np.argsort(-cosine[others], kind="stable")[:k]]
            found.append((best, cosine[best]))
    return found
