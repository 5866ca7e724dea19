"""Balanced assignment by Sinkhorn-Knopp (Cuturi, 2013; of images to clusters: Asano et al., 2020, section 3.1).

One potential a cluster is all that is looked for: with f, an image's assignment is softmax(sharpness * scores + f),
and f is such that the clusters' shares are those of the prior. One iteration is one pass over the rows.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssl_app.clustering.products import Product, bf16_pays
from ssl_app.errors import Change, DataError, Set, SettingsError

BLOCK = 1 << 20  # scores computed at a time: they stay in the cache, and no N x K matrix is needed
FLOOR = -60.0  # nats below a row's largest entry: smaller ones count as this; denormal numbers are slow
FAR = 30.0  # nats that potentials may move away from those in a stored kernel before it is made anew
DEAD = 1e-18  # share of its prior below which a cluster's mass may be made of floors
HISTORY = 8  # iterates that an accelerated step looks back on
WORSE = 1.5  # factor in the error at which an accelerated step is taken back
ITERATIONS = 2000
MANY, SAMPLE = 400, 10  # rows a cluster from which on one row of so many is balanced first

Total = Callable[[Tensor], Tensor]


class Scores(Protocol):
    """Rows of scores, computed when asked for: an image's logits, or log-probabilities, of each cluster."""

    rows: int
    clusters: int
    like: Tensor  # any tensor of their arithmetic and device

    def block(self, start: int, stop: int) -> Tensor:
        """Scores of some rows, (stop - start, K), a fresh tensor."""
        ...

    def every(self, step: int) -> "Scores":
        """One row of so many."""
        ...


class Matrix:
    """Scores that lie in memory, (N, K)."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = self.like = scores
        self.rows, self.clusters = scores.shape

    def block(self, start: int, stop: int) -> Tensor:
        """Scores of some rows."""
        return self.scores[start:stop].clone()

    def every(self, step: int) -> "Matrix":
        """One row of so many."""
        return Matrix(self.scores[::step])


class Linear:
    """Scores of a linear head on features: what is held are N x D numbers, however many clusters there are."""

    def __init__(
        self, features: Tensor, weight: Tensor, bias: Tensor | None = None, fast: bool | None = None
    ) -> None:
        self.features, self.weight, self.bias = features, weight, bias  # (N, D), (K, D), (K,)
        self.like = features
        self.fast = bf16_pays(features.device) if fast is None else fast
        self.product = Product(weight.t(), self.fast)
        self.rows, self.clusters = len(features), len(weight)

    def block(self, start: int, stop: int) -> Tensor:
        """Scores of some rows."""
        found = self.product(self.features[start:stop])
        return found if self.bias is None else found.add_(self.bias)

    def every(self, step: int) -> "Linear":
        """One row of so many."""
        return Linear(self.features[::step].contiguous(), self.weight, self.bias, self.fast)


@dataclass(frozen=True)
class Balanced:
    """The solution."""

    potential: Tensor  # (K,) f64, of mean 0
    error: float  # mean over the clusters of |share / prior - 1|
    iterations: int  # passes over the rows


def balance(
    scores: Scores,
    sharpness: float,
    *,
    prior: Tensor | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    memory: int = 2 << 30,
    total: Total = lambda values: values,
) -> Balanced:
    """Potentials with which each cluster's share of the images is its prior (uniform where none is given), (K,).

    `sharpness` is lambda of the paper; `start` warms up from the potentials of an earlier call. The kernel is stored,
    in the scores' arithmetic or in bf16, where it fits into `memory` bytes, and computed anew in each pass elsewhere.
    Under several processes each holds its rows, and `total` sums a K-vector over them once an iteration.
    Raises DataError where scores are not finite, or where there are more clusters than rows.
    """
    clusters = scores.clusters
    zero = scores.like.new_zeros(clusters, dtype=torch.float64)  # (K,)
    count = float(total(zero[:1] + scores.rows))
    if clusters > count:
        fewer = max(2, int(count) // 10)
        raise DataError(f"{count:.0f} images cannot fill {clusters} clusters", fix=Set("clusters", fewer))
    r = zero + 1 / clusters if prior is None else prior.to(zero) / prior.to(zero).sum()
    f = zero if start is None else start.to(zero)
    if count >= MANY * clusters:  # a sample of the rows comes near, for a sample of the time
        sample = scores.every(SAMPLE)
        f = balance(sample, sharpness, prior=r, start=f, memory=memory, total=total).potential
    work = _Passes(scores, sharpness, f, memory, total, count)
    steps = _Accelerated()
    best = f, math.inf
    iterations = 0
    while iterations < ITERATIONS:
        iterations += 1
        share = work.shares(f)  # (K,)
        error = float((share / r - 1).abs().mean())
        if not math.isfinite(error):
            raise DataError(
                "the scores of some images are nan or infinite", fix=(Change("lr", "a smaller"), Set("clip", 1))
            )
        if error < best[1]:
            best = f, error
        if error <= tolerance:
            break
        lost = share < DEAD * r
        if bool(lost.any()) and steps.jumped:  # it is the jump that has lost them
            f = steps.back()
        elif bool(lost.any()):
            share = torch.where(lost, work.log_domain(f, lost), share.log())
            steps.forget()
            f = f + r.log() - share
        else:
            f = steps.next(f, r.log() - share.log(), error)
        f = f - f.mean()
    f, error = best
    return Balanced(f - f.mean(), error, iterations)


def assignment(scores: Tensor, sharpness: float, potential: Tensor) -> Tensor:
    """The soft assignment under potentials: rows sum to 1. (n, K), (K,) -> (n, K)."""
    return torch.softmax(scores * sharpness + potential.to(scores), 1)


def labels(scores: Scores, sharpness: float, potential: Tensor) -> Tensor:
    """Each row's cluster of largest assignment, (N,) int64. Their counts are nearly, not exactly, the prior's."""
    f = potential.to(scores.like)
    found = [torch.argmax(block.mul_(sharpness).add_(f), 1) for _, _, block in _blocks(scores)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def masses(scores: Scores, total: Total = lambda values: values) -> Tensor:
    """Each cluster's share by the network's own softmax, unbalanced, (K,)."""
    mass = scores.like.new_zeros(scores.clusters, dtype=torch.float64)
    for _, _, block in _blocks(scores):
        mass += torch.softmax(block, 1).sum(0).double()
    mass = total(mass)
    return mass / mass.sum()


def bytes_of(size: str) -> int:
    """`10G`, `512M` or a plain number of bytes. Raises SettingsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", size.strip(), re.IGNORECASE)
    if found is None:
        raise SettingsError(f"the memory is '{size}'", expected="a size such as 2G or 512M")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _parts(scores: Scores) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // scores.clusters)
    for start in range(0, scores.rows, step):
        yield start, min(start + step, scores.rows)


def _blocks(scores: Scores) -> Iterator[tuple[int, int, Tensor]]:
    for start, stop in _parts(scores):
        yield start, stop, scores.block(start, stop)


class _Passes:
    """Passes over the rows, with the kernel stored or computed anew.

    The kernel of row i is exp(sharpness * scores + f0 - offset_i), largest 1: potentials that have been found are
    taken into it, so that clusters far below the others do not underflow.
    """

    def __init__(self, scores: Scores, sharpness: float, f: Tensor, memory: int, total: Total, count: float) -> None:
        self.scores, self.sharpness, self.total, self.count = scores, sharpness, total, count
        self.offset = scores.like.new_zeros(scores.rows)  # log of a row's sum under the last potentials
        size = scores.rows * scores.clusters
        self.stored: torch.dtype | None = None  # None: computed anew
        if size * scores.like.dtype.itemsize <= memory:
            self.stored = scores.like.dtype
        elif size * 2 <= memory and scores.like.dtype == torch.float32:
            self.stored = torch.bfloat16
        self.kernel: list[Tensor] = []  # (K, n) each: with long rows both products of a pass run on all cores
        self.within = f  # the potentials in the stored kernel, or of the last pass
        self.known = False  # whether `offset` is any good

    def shares(self, f: Tensor) -> Tensor:
        """Each cluster's share of all rows under potentials f, (K,) f64."""
        far = not self.known or float((f - self.within).abs().max()) > FAR
        if self.stored is None:
            mass = self._computed(f, far)
        else:
            if far:
                self._store(f, self.stored)
            mass = self._stored((f - self.within).exp())
        return self.total(mass) / self.count

    def _computed(self, f: Tensor, far: bool) -> Tensor:
        mass = torch.zeros_like(f)
        bias = f.to(self.scores.like)
        for start, stop, block in _blocks(self.scores):
            block.mul_(self.sharpness).add_(bias)
            offset = self.offset[start:stop]
            if far:
                torch.amax(block, 1, out=offset)
            block.sub_(offset[:, None]).clamp_min_(FLOOR).exp_()
            sums = block.sum(1)
            mass += (sums.reciprocal() @ block).double()
            offset += sums.log()
        self.within, self.known = f, True
        return mass

    def _store(self, f: Tensor, dtype: torch.dtype) -> None:
        bias = f.to(self.scores.like)
        if not self.kernel:
            self.kernel = [
                bias.new_empty(len(bias), stop - start, dtype=dtype) for start, stop in _parts(self.scores)
            ]
        for (start, stop), stored in zip(_parts(self.scores), self.kernel, strict=True):
            block = self.scores.block(start, stop).mul_(self.sharpness).add_(bias)
            torch.amax(block, 1, out=self.offset[start:stop])
            stored.copy_(block.sub_(self.offset[start:stop, None]).clamp_min_(FLOOR).exp_().t())
        self.within, self.known = f, True

    def _stored(self, scale: Tensor) -> Tensor:
        mass = torch.zeros_like(scale)
        factors = scale.to(self.scores.like)
        for stored in self.kernel:
            block = stored.to(factors.dtype)
            mass += (block @ (factors @ block).reciprocal_()).double()
        return mass * scale

    def log_domain(self, f: Tensor, lost: Tensor) -> Tensor:
        """Log of the shares of clusters whose mass underflows, (K,); f64 reaches down to e^-700."""
        mass = torch.zeros_like(f)
        for _, _, block in _blocks(self.scores):
            logits = block.double() * self.sharpness + f
            rows = logits[:, lost] - torch.logsumexp(logits, 1, keepdim=True)
            mass[lost] += rows.clamp_min_(-700.0).exp_().sum(0)
        self.known = False
        return (self.total(mass) / self.count).log()


class _Accelerated:
    """Anderson's acceleration of the fixed point f = f + residual (Walker and Ni, 2011); a bad step is taken back."""

    def __init__(self) -> None:
        self.past: list[tuple[Tensor, Tensor]] = []
        self.error = math.inf
        self.jumped = False

    def forget(self) -> None:
        """Begin anew: what was is no guide."""
        self.past, self.jumped, self.error = [], False, math.inf

    def next(self, f: Tensor, residual: Tensor, error: float) -> Tensor:
        """The next iterate, from this one and its residual, (K,)."""
        if self.jumped and error > WORSE * self.error:
            return self.back()
        self.error = error
        self.past = [*self.past, (f, residual)][-HISTORY:]
        if len(self.past) == 1:
            return f + residual
        df = torch.stack([a - b for (a, _), (b, _) in zip(self.past[1:], self.past, strict=False)], 1)
        dr = torch.stack([a - b for (_, a), (_, b) in zip(self.past[1:], self.past, strict=False)], 1)
        gram = dr.t() @ dr  # (m, m)
        gram.diagonal().add_(1e-10 * float(gram.diagonal().max()) + 1e-300)
        gamma: Tensor = torch.linalg.solve(gram, dr.t() @ residual)
        self.jumped = True
        return f + residual - (df + dr) @ gamma

    def back(self) -> Tensor:
        """The plain step from where the last jump was made, (K,)."""
        f, residual = self.past[-1]
        self.forget()
        self.past = [(f, residual)]
        return f + residual
