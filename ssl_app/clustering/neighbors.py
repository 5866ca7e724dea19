"""Nearest neighbors by cosine: exact up to a size, beyond it among the rows of near k-means cells.

An inverted file as of Jegou et al. (2011, section 4), but a cell's rows share the cells that they look into.
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering import kmeans

logger = logging.getLogger(__name__)

BLOCK = 2**24  # cosines that are held at once: 64 MiB
EXACT = 2**17  # rows up to which all are compared with all
CELL, NEAR = 1000, 16  # rows of a cell, and cells that its rows look into, its own among them
ITERATIONS, SEED = 6, 0  # of k-means

Found = tuple[NDArray[np.float32], NDArray[np.int32]]


def nearest_by_cosine(unit: Tensor, k: int, exact: int | None = None) -> Found:
    """Cosines and places of each row's k nearest others, nearest first. Rows of length 1, (N, d) -> (N, k), (N, k).

    Above `exact` rows, by default EXACT, a neighbor in a far cell is missed: the time grows with the rows, not with
    their square. A row that finds fewer than k others has itself in their place, with a cosine of 0. Needs k below N.
    """
    if len(unit) <= (EXACT if exact is None else exact):
        return _among_all(unit, k)
    cells = len(unit) // CELL
    logger.info(f"neighbors of {len(unit):,} images are looked for in {NEAR} of {cells:,} cells of k-means")
    return _among_cells(unit, k, cells)


def _among_all(unit: Tensor, k: int) -> Found:
    count = len(unit)
    cosine, near = np.zeros((count, k), np.float32), np.zeros((count, k), np.int32)
    size = max(1, BLOCK // max(count, 1))
    for first in range(0, count if k else 0, size):
        block = unit[first : first + size] @ unit.T  # (B, N)
        block[torch.arange(len(block)), torch.arange(first, first + len(block))] = -2  # no image is its own neighbor
        top = block.topk(k, dim=1)
        cosine[first : first + size], near[first : first + size] = top.values.numpy(), top.indices.numpy()
    return cosine, near


def _among_cells(unit: Tensor, k: int, cells: int) -> Found:
    cosine = np.zeros((len(unit), k), np.float32)
    near = np.repeat(np.arange(len(unit), dtype=np.int32)[:, None], k, axis=1)
    found = kmeans.fit(unit, cells, iterations=ITERATIONS, seed=SEED)
    order = torch.argsort(found.labels, stable=True)
    ends = torch.bincount(found.labels, minlength=cells).cumsum(0).tolist()
    members = torch.tensor_split(order, ends[:-1])
    centers = functional.normalize(found.centroids, dim=1)
    for cell, rows in enumerate(members):
        beside = (centers @ centers[cell]).topk(min(NEAR, cells)).indices.tolist()
        others = torch.cat([rows, *(members[other] for other in beside if other != cell)])  # its own come first
        candidates, most = unit[others], min(k, len(others) - 1)
        size = max(1, BLOCK // len(others))
        for first in range(0, len(rows) if most else 0, size):
            asking = rows[first : first + size]
            block = unit[asking] @ candidates.T
            block[torch.arange(len(asking)), torch.arange(first, first + len(asking))] = -2
            top = block.topk(most, dim=1)
            cosine[asking.numpy(), :most] = top.values.numpy()
            near[asking.numpy(), :most] = others[top.indices].numpy()
    return cosine, near
