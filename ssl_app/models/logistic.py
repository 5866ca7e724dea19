"""Multinomial logistic regression with L2, fitted to the end: feature extraction and probes in closed form.

Few images span few dimensions, so the fit happens there and is exact (the penalized optimum lies in the span
of the training images, whatever d is); the answer comes back as the weights of a linear layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]  # rows to fit, rows to judge

# C of: sum of log-losses + |W|^2 / 2 C, on features of unit mean square norm
STRENGTHS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5)
RULE = 30.0  # where nothing can be held out: within .012 of the best C at 1 to 16 digits per class
PATIENCE = 2  # strengths without a better log-loss after which the path ends; the last ones are the dear ones
ROUGH, FINAL = 1e-4, 1e-6  # largest gradient, in units of curvature: to choose C, and for the answer
ITERATIONS = 300  # of L-BFGS for one C, at most
TURNED = 1500  # dimensions up to which finding the principal axes of many images pays


@dataclass(frozen=True)
class Logistic:
    """A fitted linear classifier in the space of the features as they were given."""

    weight: Floats  # (K, d)
    bias: Floats  # (K,)
    strength: float  # C, as scikit-learn counts it, on features centered and scaled to unit mean square norm
    how: str  # how C was chosen, for people

    def logits(self, features: ArrayLike) -> Floats:
        """(N, d) -> (N, K)."""
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias)

    def probabilities(self, features: ArrayLike) -> Floats:
        """(N, d) -> (N, K), rows sum to 1."""
        return np.exp(_log_softmax(self.logits(features)))


def fit(
    features: ArrayLike,
    labels: ArrayLike,
    classes: int,
    *,
    folds: Folds | None,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Logistic:
    """The classifier of these features; C chosen on `validation`, else by `folds`, else by rule.

    Features are centered and divided by one number, not feature by feature: a deviation from a few images is
    noise (digits, 4 per class: .81 against .76 on pixels, .84 against .79 on a 4x4 map of 128 channels, .44
    against .45 on pooled features, level from 8 per class on). C is the one with the least log-loss, classes
    weighing the same: of 2 to 16 images per class it lost .006 to the best C in hindsight, balanced accuracy
    .013, as a fold of ten images takes eleven values of accuracy. A class without images gets a low bias.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    x = np.asarray(features, dtype=np.float64)
    # one thread: the bits must not depend on the machine's cores, and on small products a second one costs time
    with threadpool_limits(1):
        return _fitted(x, np.asarray(labels, dtype=np.int64), classes, folds, validation, strengths)


def _fitted(
    x: Floats,
    y: Integers,
    classes: int,
    folds: Folds | None,
    validation: tuple[ArrayLike, ArrayLike] | None,
    strengths: Sequence[float],
) -> Logistic:
    center = x.mean(axis=0)
    x = x - center
    scale = float(np.sqrt(np.square(x).sum(axis=1).mean())) or 1.0
    x /= scale
    z, basis = _turned(x)
    parts: list[tuple[Floats, Integers, Floats, Integers]] = []  # to fit, to judge
    if validation is not None:
        v = (np.asarray(validation[0], dtype=np.float64) - center) / scale
        parts = [(z, y, v @ basis, np.asarray(validation[1], dtype=np.int64))]
        reason = f"chosen on {len(v):,} validation images"
    elif folds:
        parts = [(z[a], y[a], z[b], y[b]) for a, b in folds]
        reason = f"chosen by {len(folds)} folds inside the draw"
    else:
        each = int(np.bincount(y, minlength=classes).min())
        reason = f"by rule: {each} label{'s' * (each != 1)} per class cannot be folded{' whole' * (each > 1)}"
    strength = _chosen(parts, classes, strengths) if parts else RULE
    solution = None
    for warm in [c for c in strengths if c < strength] + [strength]:
        solution = _solve(z, y, classes, warm, solution, FINAL if warm == strength else ROUGH)
    assert solution is not None
    w, bias = solution[:, :-1], solution[:, -1]
    weight = w @ basis.T / scale  # (K, d)
    return Logistic(weight, bias - weight @ center, strength, f"C = {strength:g}, {reason}")


def _turned(x: Floats) -> tuple[Floats, Floats]:
    """The images in their principal axes, and these axes: x = z @ axes.T. (N, d) -> (N, r), (d, r).

    r is at most N, and |W| is the same in the axes, so the fit is the same; its Hessian is nearly diagonal
    there, which `_solve` uses.
    """
    if len(x) < x.shape[1]:
        q, triangle = np.linalg.qr(x.T)
        left, size, right = np.linalg.svd(triangle.T)
        return left * size, q @ right.T
    if x.shape[1] > TURNED:
        return x, np.eye(x.shape[1])
    axes = np.asarray(np.linalg.eigh(x.T @ x)[1], dtype=np.float64)
    return x @ axes, axes


def _chosen(
    parts: list[tuple[Floats, Integers, Floats, Integers]], classes: int, strengths: Sequence[float]
) -> float:
    """The C of least mean log-loss on what was held out; ties go to the smaller."""
    best, best_loss, since = strengths[0], np.inf, 0
    solutions: list[Floats | None] = [None] * len(parts)
    for strength in strengths:
        losses = []
        for i, (x, y, held, truth) in enumerate(parts):
            solved = _solve(x, y, classes, strength, solutions[i], ROUGH)
            solutions[i] = solved
            logp = _log_softmax(held @ solved[:, :-1].T + solved[:, -1])
            # each class weighs the same, as it does in balanced accuracy
            each = np.bincount(truth, weights=-logp[np.arange(len(truth)), truth], minlength=classes)
            count = np.bincount(truth, minlength=classes)
            losses.append(float((each[count > 0] / count[count > 0]).mean()))
        loss = float(np.mean(losses))
        if loss < best_loss - 1e-9:
            best, best_loss, since = strength, loss, 0
        else:
            since += 1
            if since == PATIENCE:
                break
    return best


def _solve(x: Floats, y: Integers, classes: int, strength: float, start: Floats | None, tolerance: float) -> Floats:
    """Weights and, in the last column, unpenalized biases. (N, r), (N,) -> (K, r + 1)."""
    from scipy.optimize import minimize

    rows, width = x.shape
    target = np.eye(classes)[y]  # (N, K)
    if start is None:
        start = np.zeros((classes, width + 1))
        start[:, -1] = np.log(target.sum(axis=0) + 0.5)
    p = np.exp(_log_softmax(x @ start[:, :-1].T + start[:, -1]))
    curvature = max(float((p * (1 - p)).mean()), 1e-3)
    # each axis in units of its own curvature: tens of steps where plain L-BFGS takes hundreds
    unit = 1 / np.sqrt(curvature * np.square(x).mean(axis=0) + 1 / (strength * rows))  # (r,)
    scaled = x * unit
    penalty = np.square(unit) / (strength * rows)

    def objective(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(classes, width + 1)
        logp = _log_softmax(scaled @ w[:, :-1].T + w[:, -1])
        wrong = np.exp(logp) - target  # (N, K)
        gradient = np.empty_like(w)
        gradient[:, :-1] = wrong.T @ scaled / rows + w[:, :-1] * penalty
        gradient[:, -1] = wrong.mean(axis=0)
        loss = (np.square(w[:, :-1]) * penalty).sum() / 2 - (logp * target).sum() / rows
        return float(loss), gradient.ravel()

    first = start.copy()
    first[:, :-1] /= unit
    found = minimize(
        objective,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "gtol": tolerance, "ftol": 1e-2 * tolerance**2, "maxcor": 10},
    )
    solution = np.asarray(found.x, dtype=np.float64).reshape(classes, width + 1)
    solution[:, :-1] *= unit
    return solution


def _log_softmax(logits: Floats) -> Floats:
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
