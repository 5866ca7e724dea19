"""Multinomial logistic regression with L2, fitted to its optimum: convex heads of few labels, linear probes, and
heads on soft targets with weights.

The solver is L-BFGS on features in their principal axes, each axis in units of its own curvature: tens of steps
where plain L-BFGS takes hundreds. It runs in one of two arithmetics. Few images: f64 on one thread, so that the
bits do not depend on the machine's cores. Many images: f32 in blocks, on torch's threads or a GPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Folds = Sequence[tuple[Integers, Integers]]  # indices to fit, indices to validate

# C of: sum of log-losses + |W|^2 / 2 C, on features of unit mean square norm
STRENGTHS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5)
RULE = 30.0  # where nothing can be held out: within .012 of the best C at 1 to 16 digits per class
PATIENCE = 2  # strengths without a better log-loss after which the path ends; the last ones are the dear ones
ITERATIONS = 300  # of L-BFGS for one C, at most
COPIED = 8192  # rows that are copied, or turned, at a time
TURNED = 1500  # dimensions up to which finding the principal axes of many images pays
BLOCK = 2**24  # logits that are held at once in f32: 64 MiB


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted linear classifier in the space of the features as they were given."""

    weight: Floats  # (K, d)
    bias: Floats  # (K,)
    strength: float  # C, as scikit-learn counts it, on features centered and scaled to unit mean square norm
    how: str  # how C was chosen, for people
    validation_logits: tuple[Floats, ...] = ()  # (n, K) of each validation part, by the fit that has not seen it

    def logits(self, features: ArrayLike) -> Floats:
        """(N, d) -> (N, K)."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)

    def probabilities(self, features: ArrayLike) -> Floats:
        """(N, d) -> (N, K), rows sum to 1."""
        return np.exp(_log_softmax(self.logits(features)))


def fit(
    features: ArrayLike,
    targets: ArrayLike,
    classes: int,
    *,
    weights: ArrayLike | None = None,
    folds: Folds | None = None,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    device: torch.device | str | None = None,
) -> Logistic:
    """The classifier of these features; C chosen on `validation` (features, targets), else by `folds`, else by rule.

    features (N, d); targets (N,) labels or (N, K) probabilities; weights (N,) from 0 on, 1 where not given: an
    image of weight 2 counts as two, one of weight 0 as none. Without a device the fit is f64 on one thread, with
    one it is f32 there.

    Features are centered and divided by one number, not feature by feature: a deviation from a few images is
    noise (digits, 4 per class: .81 against .76 on pixels, .84 against .79 on a 4x4 map of 128 channels, .44
    against .45 on pooled features, level from 8 per class on). C is the one with the least log-loss, classes
    weighing the same: of 2 to 16 images per class it lost .006 to the best C in hindsight, balanced accuracy
    .013, as a fold of ten images takes eleven values of accuracy. A class without images gets a low bias.
    """
    target = _checked(targets, classes)
    order: Integers | None = None
    if device is not None and folds is not None and len(folds) == 1 and sum(map(len, folds[0])) == len(target):
        order = np.concatenate(folds[0])  # then both parts of the one fold are slices, and large sets are held once
        every, count = np.arange(len(order)), len(folds[0][0])
        folds = [(every[:count], every[count:])]
    with _threads(device):
        rows, space = _prepared(features, target, classes, weights, device, order)
        parts: list[tuple[_Rows, _Rows]] = []  # to fit, to validate
        if validation is not None:
            held = _validation(space, validation[0], _checked(validation[1], classes), classes, device)
            parts, reason = [(rows, held)], f"chosen on {len(held):,} validation images"
        elif folds:
            parts = [(rows.take(a), rows.take(b)) for a, b in folds]
            reason = f"chosen by {len(folds)} folds inside the draw"
        else:
            each = int(rows.mass().min())
            reason = f"by rule: {each} label{'s' * (each != 1)} per class cannot be folded{' whole' * (each > 1)}"
        strength, solutions = _chosen(parts) if parts else (RULE, [])
        # in f32 from the solution of one part, which is near; f64 walks the path again, and so keeps its bits
        start = solutions[0] if solutions and device is not None else None
        logits = tuple(held.logits(solution) for (_, held), solution in zip(parts, solutions, strict=True))
        return space.classifier(_path(rows, strength, start), strength, f"C = {strength:g}, {reason}", logits)


def fit_at(
    features: ArrayLike,
    targets: ArrayLike,
    classes: int,
    strength: float,
    *,
    weights: ArrayLike | None = None,
    device: torch.device | str | None = None,
) -> Logistic:
    """The classifier of these features at a known C; all else as in `fit`."""
    with _threads(device):
        rows, space = _prepared(features, _checked(targets, classes), classes, weights, device)
        return space.classifier(_path(rows, strength), strength, f"C = {strength:g}")


def _prepared(
    features: ArrayLike,
    target: Integers | Floats,
    classes: int,
    weights: ArrayLike | None,
    device: torch.device | str | None,
    order: Integers | None = None,
) -> tuple["_Rows", "_Space"]:
    weight = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    assert weight.shape == (len(target),) == np.shape(features)[:1], (weight.shape, np.shape(features), len(target))
    assert (weight >= 0).all(), "a weight below 0"
    assert weight.sum() > 0, "no image has a weight"
    if device is None:
        return _exact(features, target, weight[:, None], classes)
    if order is None:
        return _blocks(features, None, target, weight[:, None], classes, device)
    return _blocks(features, order, target[order], weight[order, None], classes, device)


class _Rows(ABC):
    """Images in their principal axes with targets and weights, held in one arithmetic. (N, r).

    A solution holds the weights of the axes and, in its last column, the biases, which are not penalized: (K, r + 1).
    """

    rough: ClassVar[float]  # largest gradient, in units of curvature, that is good enough to choose C
    final: ClassVar[float]  # and for the answer
    noise: ClassVar[float]  # relative change of the loss that is rounding

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def total(self) -> float:
        """Sum of the weights."""

    @abstractmethod
    def take(self, indices: Integers) -> Self:
        """Some of the images."""

    @abstractmethod
    def mass(self) -> Floats:
        """Weight of each class. -> (K,)."""

    @abstractmethod
    def mean_square(self) -> Floats:
        """Of each axis. -> (r,)."""

    @abstractmethod
    def logits(self, solution: Floats) -> Floats:
        """-> (N, K)."""

    @abstractmethod
    def variance(self, solution: Floats) -> float:
        """Mean of p (1 - p) over images and classes."""

    @abstractmethod
    def losses(self, solution: Floats) -> Floats:
        """Sum of the log-losses of each class. -> (K,)."""

    @abstractmethod
    def objective(self, unit: Floats) -> Callable[[Floats], tuple[float, Floats]]:
        """The mean log-loss and its gradient, as a function of a solution whose axes are measured in `unit`, (r,)."""


@dataclass(frozen=True, eq=False)
class _Exact(_Rows):
    """In f64."""

    x: Floats  # (N, r)
    target: Floats  # (N, K), rows sum to the weight
    weight: Floats  # (N, 1)
    rough, final, noise = 1e-4, 1e-6, 0.0

    def __len__(self) -> int:
        return len(self.x)

    @property
    def total(self) -> float:
        return float(self.weight.sum())

    def take(self, indices: Integers) -> Self:
        return type(self)(self.x[indices], self.target[indices], self.weight[indices])

    def mass(self) -> Floats:
        return np.asarray(self.target.sum(axis=0))

    def mean_square(self) -> Floats:
        return np.asarray((self.weight * np.square(self.x)).sum(axis=0) / self.total)

    def logits(self, solution: Floats) -> Floats:
        return np.asarray(self.x @ solution[:, :-1].T + solution[:, -1])

    def variance(self, solution: Floats) -> float:
        p = np.exp(_log_softmax(self.logits(solution)))
        return float((self.weight * (p * (1 - p))).sum() / (self.total * p.shape[1]))

    def losses(self, solution: Floats) -> Floats:
        return np.asarray(-(self.target * _log_softmax(self.logits(solution))).sum(axis=0))

    def objective(self, unit: Floats) -> Callable[[Floats], tuple[float, Floats]]:
        x, total = self.x * unit, self.total

        def evaluate(w: Floats) -> tuple[float, Floats]:
            logp = _log_softmax(x @ w[:, :-1].T + w[:, -1])
            wrong = np.exp(logp)  # (N, K)
            wrong *= self.weight
            wrong -= self.target
            gradient = np.empty_like(w)
            gradient[:, :-1] = wrong.T @ x / total
            gradient[:, -1] = wrong.sum(axis=0) / total
            return float(-(logp * self.target).sum() / total), gradient

        return evaluate


@dataclass(frozen=True, eq=False)
class _Blocks(_Rows):
    """In f32, on torch's threads or a GPU, some images at a time. M is 1 for labels, K for probabilities."""

    x: Tensor  # (N, r)
    weight: Tensor  # (N, 1)
    index: Tensor  # (N, M) classes with a target
    target: Tensor  # (N, M), rows sum to the weight
    classes: int
    # on digits a tenth of this gradient took five times the steps and changed no answer
    rough, final, noise = 1e-4, 1e-4, 1e-9

    @classmethod
    def of(cls, x: Tensor, target: Integers | Floats, weight: Tensor, classes: int) -> Self:
        """Images with labels, (N,), or probabilities, (N, K)."""
        if target.ndim == 1:
            return cls(x, weight, torch.from_numpy(target)[:, None].to(x.device), weight, classes)
        index = torch.arange(classes, device=x.device).expand(len(x), classes)
        return cls(x, weight, index, weight * torch.as_tensor(target, dtype=x.dtype, device=x.device), classes)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def total(self) -> float:
        return float(self.weight.sum(dtype=torch.float64))

    def take(self, indices: Integers) -> Self:
        some: Tensor | slice = torch.from_numpy(indices).to(self.x.device)
        if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
            some = slice(int(indices[0]), int(indices[0]) + len(indices))  # a view
        return type(self)(self.x[some], self.weight[some], self.index[some], self.target[some], self.classes)

    def mass(self) -> Floats:
        return self._by_class((index, target) for _, _, index, target in self._blocks())

    def mean_square(self) -> Floats:
        found = np.zeros(self.x.shape[1])
        for x, weight, _, _ in self._blocks():
            found += _numpy((weight * x.square()).sum(0, dtype=torch.float64))
        return found / self.total

    def logits(self, solution: Floats) -> Floats:
        w, bias = self._tensors(solution)
        return _numpy(torch.addmm(bias, self.x, w.T))

    def variance(self, solution: Floats) -> float:
        w, bias = self._tensors(solution)
        found = 0.0
        for x, weight, _, _ in self._blocks():
            p = torch.addmm(bias, x, w.T).softmax(1)
            found += float((weight * p * (1 - p)).sum(dtype=torch.float64))
        return found / (self.total * self.classes)

    def losses(self, solution: Floats) -> Floats:
        w, bias = self._tensors(solution)

        def each() -> Iterator[tuple[Tensor, Tensor]]:
            for x, _, index, target in self._blocks():
                logp = torch.addmm(bias, x, w.T).double().log_softmax(1)
                yield index, -target * logp.gather(1, index)

        return self._by_class(each())

    def objective(self, unit: Floats) -> Callable[[Floats], tuple[float, Floats]]:
        units, total = np.append(unit, 1), self.total

        def evaluate(scaled: Floats) -> tuple[float, Floats]:
            w, bias = self._tensors(scaled * units)
            loss, gradient = 0.0, np.zeros_like(scaled)
            for x, weight, index, target in self._blocks():
                logp = torch.addmm(bias, x, w.T)
                # on a CPU log_softmax takes four times as long for ten classes
                logp -= logp.logsumexp(1, keepdim=True)
                loss -= float((target * logp.gather(1, index)).sum(dtype=torch.float64))
                wrong = logp.exp_().mul_(weight).scatter_add_(1, index, -target)  # (B, K)
                gradient[:, :-1] += _numpy(wrong.T @ x)
                gradient[:, -1] += _numpy(wrong.sum(0, dtype=torch.float64))
            return loss / total, gradient * units / total

        return evaluate

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Images, their weights, the classes of their targets, their targets. -> (B, r), (B, 1), (B, M), (B, M)."""
        size = max(1, BLOCK // max(self.classes, self.x.shape[1]))
        for at in range(0, len(self.x), size):
            block = slice(at, at + size)
            yield self.x[block], self.weight[block], self.index[block], self.target[block]

    def _by_class(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> Floats:
        """Sum of values by class. (B, M), (B, M) -> (K,)."""
        found = torch.zeros(self.classes, dtype=torch.float64, device=self.x.device)
        for index, value in blocks:
            found.index_add_(0, index.flatten(), value.double().flatten())
        return _numpy(found)

    def _tensors(self, solution: Floats) -> tuple[Tensor, Tensor]:
        """-> (K, r), (K,)."""
        both = torch.as_tensor(solution, dtype=torch.float32, device=self.x.device)
        return both[:, :-1], both[:, -1]


@dataclass(frozen=True, eq=False)
class _Space:
    """Where the fit happens: (features - center) / scale @ axes, or without axes where they are the features' own."""

    center: Floats  # (d,)
    scale: float
    axes: Floats | None  # (d, r), orthonormal, so that |W| is the same in them

    def classifier(self, solution: Floats, strength: float, how: str, logits: tuple[Floats, ...] = ()) -> Logistic:
        """The solution, for the features as they were given. (K, r + 1)."""
        weight = (solution[:, :-1] if self.axes is None else solution[:, :-1] @ self.axes.T) / self.scale
        return Logistic(weight, solution[:, -1] - weight @ self.center, strength, how, logits)


def _exact(features: ArrayLike, target: Integers | Floats, weight: Floats, classes: int) -> tuple[_Rows, _Space]:
    x, total = np.asarray(features, dtype=np.float64), weight.sum()
    center = (weight * x).sum(axis=0) / total
    x = x - center
    scale = float(np.sqrt((weight[:, 0] * np.square(x).sum(axis=1)).sum() / total)) or 1.0
    x /= scale
    x, axes = _turned(x)
    return _Exact(x, weight * _dense(target, classes), weight), _Space(center, scale, axes)


def _blocks(
    features: ArrayLike,
    order: Integers | None,
    target: Integers | Floats,
    weight: Floats,
    classes: int,
    device: torch.device | str,
) -> tuple[_Rows, _Space]:
    """Of the features, in an order, in which targets and weights are."""
    held = np.asarray(features, dtype=np.float32)
    x = torch.empty(held.shape, device=device)
    for at in range(0, len(held), COPIED):
        rows = slice(at, at + COPIED) if order is None else order[at : at + COPIED]
        x[at : at + COPIED] = torch.tensor(held[rows])
    w = torch.as_tensor(weight, dtype=torch.float32, device=device)
    total = w.sum()
    center = (w.T @ x)[0] / total
    x -= center
    parts = [slice(at, at + COPIED) for at in range(0, len(x), COPIED)]  # the norms of all take as much memory as x
    norms = torch.cat([torch.linalg.vector_norm(x[part], dim=1) for part in parts])
    scale = float(((w[:, 0] * norms.square()).double().sum() / total).sqrt()) or 1.0
    x /= scale
    axes: Floats | None = None  # the identity would be 134 MB for 4,096 features
    if x.shape[1] <= TURNED:
        axes = np.asarray(np.linalg.eigh(_numpy(x.T @ x))[1], dtype=np.float64)
        turn = torch.as_tensor(axes, dtype=torch.float32, device=device)
        for at in range(0, len(x), COPIED):
            x[at : at + COPIED] = x[at : at + COPIED] @ turn
    return _Blocks.of(x, target, w, classes), _Space(_numpy(center), scale, axes)


def _validation(
    space: _Space, features: ArrayLike, target: Integers | Floats, classes: int, device: torch.device | str | None
) -> _Rows:
    """Images that the fit does not see, in its space."""
    x = (np.asarray(features, dtype=np.float64) - space.center) / space.scale
    x = x if space.axes is None else x @ space.axes
    weight = np.ones((len(x), 1))
    if device is None:
        return _Exact(x, _dense(target, classes), weight)
    y, w = (torch.as_tensor(each, dtype=torch.float32, device=device) for each in (x, weight))
    return _Blocks.of(y, target, w, classes)


def _turned(x: Floats) -> tuple[Floats, Floats | None]:
    """The images in their principal axes, and these axes: x = z @ axes.T. (N, d) -> (N, r), (d, r).

    r is at most N, and |W| is the same in the axes, so the fit is the same; its Hessian is nearly diagonal
    there, which `_solve` uses. None, the features' own, where finding them does not pay.
    """
    if len(x) < x.shape[1]:
        q, triangle = np.linalg.qr(x.T)
        left, size, right = np.linalg.svd(triangle.T)
        return left * size, q @ right.T
    if x.shape[1] > TURNED:
        return x, None
    axes = np.asarray(np.linalg.eigh(x.T @ x)[1], dtype=np.float64)
    return x @ axes, axes


def _chosen(parts: Sequence[tuple[_Rows, _Rows]]) -> tuple[float, list[Floats]]:
    """The C of least mean log-loss on the validation parts, ties to the smaller, and the solutions at that C."""
    best, best_loss, since = STRENGTHS[0], np.inf, 0
    starts: Sequence[Floats | None] = [None] * len(parts)
    kept: list[Floats] = []
    for strength in STRENGTHS:
        solutions = [
            _solve(rows, strength, start, rows.rough) for (rows, _), start in zip(parts, starts, strict=True)
        ]
        starts, losses = solutions, []
        for (_, held), solution in zip(parts, solutions, strict=True):
            # each class weighs the same, as it does in balanced accuracy
            each, mass = held.losses(solution), held.mass()
            losses.append(float((each[mass > 0] / mass[mass > 0]).mean()))
        loss = float(np.mean(losses))
        if loss < best_loss - 1e-9:
            best, best_loss, since, kept = strength, loss, 0, solutions
        else:
            since += 1
            if since == PATIENCE:
                break
    return best, kept


def _path(rows: _Rows, strength: float, start: Floats | None = None) -> Floats:
    """The solution at this C; without a start by those at smaller ones, each the start of the next. -> (K, r + 1)."""
    if start is None:
        for smaller in [c for c in STRENGTHS if c < strength]:
            start = _solve(rows, smaller, start, rows.rough)
    return _solve(rows, strength, start, rows.final)


def _solve(rows: _Rows, strength: float, start: Floats | None, tolerance: float) -> Floats:
    """Weights and, in the last column, biases, which are not penalized. -> (K, r + 1)."""
    from scipy.optimize import minimize

    mass, square = rows.mass(), rows.mean_square()
    if start is None:
        start = np.zeros((len(mass), len(square) + 1))
        start[:, -1] = np.log(mass + 0.5)
    curvature = max(rows.variance(start), 1e-3)
    # each axis in units of its own curvature: tens of steps where plain L-BFGS takes hundreds
    unit = 1 / np.sqrt(curvature * square + 1 / (strength * rows.total))  # (r,)
    penalty = np.square(unit) / (strength * rows.total)
    log_loss = rows.objective(unit)

    def objective(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(start.shape)
        loss, gradient = log_loss(w)
        gradient[:, :-1] += w[:, :-1] * penalty
        return loss + float((np.square(w[:, :-1]) * penalty).sum() / 2), gradient.ravel()

    first = start.copy()
    first[:, :-1] /= unit
    found = minimize(
        objective,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": ITERATIONS,
            "gtol": tolerance,
            "ftol": max(1e-2 * tolerance**2, rows.noise),
            "maxcor": 10,
        },
    )
    solution = np.asarray(found.x, dtype=np.float64).reshape(start.shape)
    solution[:, :-1] *= unit
    return solution


def _log_softmax(logits: Floats) -> Floats:
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def _checked(targets: ArrayLike, classes: int) -> Integers | Floats:
    """Labels as integers, (N,), or probabilities as floats, (N, K)."""
    if np.ndim(targets) == 1:
        labels = np.asarray(targets, dtype=np.int64)
        assert ((labels >= 0) & (labels < classes)).all(), "a label outside the classes"
        return labels
    soft = np.asarray(targets, dtype=np.float64)
    assert soft.shape[1:] == (classes,), (soft.shape, classes)
    assert np.allclose(soft.sum(axis=1), 1, atol=1e-4), "probabilities of an image do not sum to 1"
    return soft


def _dense(target: Integers | Floats, classes: int) -> Floats:
    """-> (N, K)."""
    return np.eye(classes)[target] if target.ndim == 1 else np.asarray(target, dtype=np.float64)


def _numpy(tensor: Tensor) -> Floats:
    return np.asarray(tensor.double().cpu().numpy(), dtype=np.float64)


def _threads(device: torch.device | str | None) -> AbstractContextManager[object]:
    """One thread for f64: its bits must not depend on the cores, and on small products a second one costs time."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1) if device is None else nullcontext()
