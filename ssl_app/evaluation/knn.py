"""Weighted nearest neighbors: what features are worth with nothing trained (Wu et al., 2018, arXiv:1805.01978)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

NEIGHBORS = 200
SIGMA = 0.1  # of the authors' code
QUERIES, BANK = 1024, 16_384  # images of a block of similarities, which takes 64 MiB
TINY = float(np.finfo(np.float32).tiny)


def votes(
    bank: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    classes: int,
    *,
    k: Sequence[int] = (NEIGHBORS,),
    sigma: float = SIGMA,
    device: torch.device | str = "cpu",
) -> dict[int, NDArray[np.float64]]:
    """Each class's share of the vote, for every k at once. (N, d), (N,), (n, d) -> {k: (n, classes)}.

    A neighbor votes with exp(cosine / sigma); rows sum to 1, and `metrics.classification` takes them as they
    are. Rows of the bank with a label of -1 have no vote. A k above the number of neighbors means all of
    them. Features are finite; a row of zeros is as near to one as to another. Which of several equally near images
    are the last of the k is not defined. Never more than one block of similarities is in memory.
    """
    requested = tuple(dict.fromkeys(k))
    voters = torch.tensor(np.asarray(labels, dtype=np.int64), device=device)  # (N,)
    known = unit_length(bank, device)
    wanted = unit_length(queries, device)
    assert len(voters) == len(known), (len(voters), len(known))
    assert min(requested) > 0, requested
    out = voters < 0
    count = len(voters) - int(out.sum())
    assert count > 0, "no neighbors"
    found = {size: np.zeros((len(wanted), classes)) for size in requested}
    for first in range(0, len(wanted), QUERIES):
        near, which = _nearest(known, wanted[first : first + QUERIES], min(max(requested), count), out)
        # over the nearest one's: a small sigma overflows no exponential, and shares stay the same
        weight = ((near - near[:, :1]).double() / sigma).exp()
        for size in requested:
            vote = torch.zeros(len(near), classes, dtype=torch.float64, device=device)
            vote.scatter_add_(1, voters[which[:, :size]], weight[:, :size])
            found[size][first : first + QUERIES] = (vote / vote.sum(1, keepdim=True)).cpu().numpy()
    return found


def _nearest(bank: Tensor, queries: Tensor, k: int, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and row of the k nearest that are not left out, nearest first. (N, d), (B, d) -> (B, k), (B, k)."""
    near = torch.zeros(len(queries), 0, device=bank.device)
    which = torch.zeros(len(queries), 0, dtype=torch.int64, device=bank.device)
    for left in range(0, len(bank), BANK):
        cosine = queries @ bank[left : left + BANK].T  # (B, at most BANK)
        cosine.masked_fill_(left_out[left : left + BANK], -torch.inf)
        top = cosine.topk(min(k, cosine.shape[1]), dim=1)
        near = torch.cat([near, top.values], 1)
        which = torch.cat([which, top.indices + left], 1)
        best = near.topk(min(k, near.shape[1]), dim=1)
        near, which = best.values, which.gather(1, best.indices)
    return near, which


def unit_length(features: ArrayLike, device: torch.device | str) -> Tensor:
    """A copy with rows of length 1, f32; rows of zeros stay. (N, d) -> (N, d)."""
    rows = torch.tensor(np.asarray(features, dtype=np.float32), device=device)
    assert rows.dim() == 2, tuple(rows.shape)
    for first in range(0, len(rows), BANK):  # a norm takes as much memory as its rows
        part = rows[first : first + BANK]
        # by the largest number first: squares of very large or small ones leave what f32 holds
        part /= torch.linalg.vector_norm(part, ord=torch.inf, dim=1, keepdim=True).clamp_min(TINY)
        part /= torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp_min(TINY)
    return rows
