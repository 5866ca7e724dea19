"""Linear probe: a multinomial logistic regression on frozen features, its strength chosen inside the training part.

Few images are fitted by `models/logistic.py`, in f64. It decomposes the features and keeps to one thread, which
is nothing for few images and too much for many: these are fitted here, the same objective in f32 on torch's threads
or a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ssl_app.models import logistic
from ssl_app.models.logistic import PATIENCE, RULE, STRENGTHS, TURNED, Logistic

LARGE = 1000  # training images above which the fit is f32
HELD = 0.2  # share of the training images held out to choose by
# largest gradient, in units of curvature: on digits a tenth of it took five times the steps and changed no answer
TOLERANCE = 1e-4
ITERATIONS = 200  # of L-BFGS for one strength, at most
ROWS = 65_536  # images whose logits are held at once

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """A fit to all training images, and what one to those not held out says of the others."""

    classifier: Logistic
    held_logits: Floats | None  # (h, K) of the held-out images in their order; None where there are none


def hold_out(labels: ArrayLike, groups: Sequence[object] | None, seed: int) -> NDArray[np.bool_]:
    """Which training images to choose by: of each class about a fifth, whole groups. (N,) -> (N,).

    A group counts for the class of its first image. A class whose groups are all larger than a fifth of it
    gives its smallest one; a class of one group gives none.
    """
    truth = np.asarray(labels, dtype=np.int64)
    unit = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    _, first = np.unique(unit, return_index=True)
    sizes, kind = np.bincount(unit), truth[first]  # (U,), (U,)
    order = np.random.default_rng([seed, 6]).permutation(len(sizes))
    order = order[np.argsort(kind[order], kind="stable")]
    held = np.zeros(len(sizes), dtype=bool)
    for mine in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        room = HELD * sizes[mine].sum()
        small = mine[sizes[mine] <= room]
        taken = small[np.cumsum(sizes[small]) <= room]
        if not len(taken) and len(mine) > 1:
            taken = mine[[sizes[mine].argmin()]]
        held[taken] = True
    return np.asarray(held[unit])


def fit(
    features: ArrayLike,
    labels: ArrayLike,
    classes: int,
    held: NDArray[np.bool_],
    *,
    device: torch.device | str = "cpu",
) -> Probe:
    """The classifier of these features, C chosen on those held out and fitted to all. (N, d), (N,), (N,).

    The C of least log-loss, classes weighing the same, of a path that ends where it no longer falls; by rule
    where nothing is held out. The fit itself weighs images the same. Above 1,000 images f32 and `device`.
    """
    truth = np.asarray(labels, dtype=np.int64)
    assert len(truth) == len(held), (len(truth), len(held))
    if len(truth) <= LARGE:
        return _exact(features, truth, classes, held)
    return _large(features, truth, classes, held, device)


def _how(strength: float, held: NDArray[np.bool_]) -> str:
    if not held.any():
        return f"C = {strength:g}, by rule: nothing can be held out"
    return f"C = {strength:g}, chosen on {held.sum():,} training images held out"


def _named(found: Logistic, held: NDArray[np.bool_]) -> Logistic:
    return Logistic(found.weight, found.bias, found.strength, _how(found.strength, held))


def _exact(features: ArrayLike, truth: NDArray[np.int64], classes: int, held: NDArray[np.bool_]) -> Probe:
    x = np.asarray(features, dtype=np.float64)
    if not held.any():
        return Probe(_named(logistic.fit(x, truth, classes, folds=None), held), None)
    fold = (np.flatnonzero(~held), np.flatnonzero(held))
    found = logistic.fit(x, truth, classes, folds=[fold])
    rest = logistic.fit(
        x[~held], truth[~held], classes,
        folds=None, validation=(x[held], truth[held]), strengths=(found.strength,),
    )  # fmt: skip
    return Probe(_named(found, held), rest.logits(x[held]))


def _large(
    features: ArrayLike, truth: NDArray[np.int64], classes: int, held: NDArray[np.bool_], device: torch.device | str
) -> Probe:
    order = np.argsort(held, kind="stable")  # those held out last, so that either part is a view of one copy
    x = torch.from_numpy(np.asarray(features, dtype=np.float32)[order]).to(device)
    y = torch.from_numpy(truth[order]).to(device)
    center = x.mean(0)
    x -= center
    scale = float(torch.linalg.vector_norm(x, dim=1).double().square().mean().sqrt()) or 1.0
    x /= scale
    axes: NDArray[Any] = np.eye(x.shape[1])
    if x.shape[1] <= TURNED:  # in their principal axes the Hessian is nearly diagonal, which `_solve` uses
        axes = np.linalg.eigh((x.T @ x).double().cpu().numpy())[1]
        x = x @ torch.tensor(axes, dtype=torch.float32, device=device)
    split = int((~held).sum())
    solution: Floats | None = None
    strength, logits = RULE, None
    if held.any():
        strength, solution = _chosen(x[:split], y[:split], x[split:], y[split:], classes)
        logits = _logits(x[split:], solution).double().cpu().numpy()
    solution = _solve(x, y, classes, strength, solution)
    weight = solution[:, :-1] @ axes.T / scale
    bias = solution[:, -1] - weight @ center.double().cpu().numpy()
    return Probe(Logistic(weight, bias, strength, _how(strength, held)), logits)


def _chosen(x: Tensor, y: Tensor, held: Tensor, truth: Tensor, classes: int) -> tuple[float, Floats]:
    """The C of least log-loss on what was held out, and the weights that it gives; ties go to the smaller."""
    count = torch.bincount(truth, minlength=classes)
    best, best_loss, since = STRENGTHS[0], np.inf, 0
    solution: Floats | None = None
    kept: Floats | None = None
    for strength in STRENGTHS:
        solution = _solve(x, y, classes, strength, solution)
        losses = -torch.log_softmax(_logits(held, solution).double(), 1).gather(1, truth[:, None])[:, 0]
        each = torch.zeros(classes, dtype=torch.float64, device=x.device).index_add_(0, truth, losses)
        loss = float((each[count > 0] / count[count > 0]).mean())
        if loss < best_loss - 1e-9:
            best, best_loss, since, kept = strength, loss, 0, solution
        else:
            since += 1
            if since == PATIENCE:
                break
    assert kept is not None
    return best, kept


def _logits(x: Tensor, solution: Floats) -> Tensor:
    """(N, r), (K, r + 1) -> (N, K)."""
    w = torch.tensor(solution, dtype=torch.float32, device=x.device)
    return torch.addmm(w[:, -1], x, w[:, :-1].T)


def _solve(x: Tensor, y: Tensor, classes: int, strength: float, start: Floats | None) -> Floats:
    """Weights and, in the last column, unpenalized biases. (N, r), (N,) -> (K, r + 1)."""
    from scipy.optimize import minimize

    rows, width = x.shape
    if start is None:
        start = np.zeros((classes, width + 1))
        start[:, -1] = np.log(torch.bincount(y, minlength=classes).cpu().numpy() + 0.5)
    spread = 0.0
    for at in range(0, rows, ROWS):
        p = _logits(x[at : at + ROWS], start).softmax(1)
        spread += float((p * (1 - p)).double().sum())
    curvature = max(spread / (rows * classes), 1e-3)
    square = (torch.linalg.vector_norm(x, dim=0).double().cpu().numpy() ** 2) / rows  # (r,)
    # each axis in units of its own curvature: tens of steps where plain L-BFGS takes hundreds
    unit = 1 / np.sqrt(curvature * square + 1 / (strength * rows))
    penalty = np.square(unit) / (strength * rows)

    def objective(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(classes, width + 1)
        scaled = np.concatenate([w[:, :-1] * unit, w[:, -1:]], axis=1)
        loss, gradient = 0.0, np.zeros_like(w)
        for at in range(0, rows, ROWS):
            some, truth = x[at : at + ROWS], y[at : at + ROWS]
            logp = torch.log_softmax(_logits(some, scaled), 1)
            loss -= float(logp.gather(1, truth[:, None]).double().sum())
            wrong = logp.exp_()
            wrong.scatter_add_(1, truth[:, None], torch.full_like(truth[:, None], -1, dtype=wrong.dtype))
            gradient[:, :-1] += (wrong.T @ some).double().cpu().numpy()
            gradient[:, -1] += wrong.double().sum(0).cpu().numpy()
        gradient /= rows
        gradient[:, :-1] = gradient[:, :-1] * unit + w[:, :-1] * penalty
        loss = loss / rows + float((np.square(w[:, :-1]) * penalty).sum()) / 2
        return loss, gradient.ravel()

    first = start.copy()
    first[:, :-1] /= unit
    found = minimize(
        objective,
        first.ravel(),
        jac=True,
        method="L-BFGS-B",
        # below 1e-9 the loss is f32's rounding
        options={"maxiter": ITERATIONS, "gtol": TOLERANCE, "ftol": 1e-9, "maxcor": 10},
    )
    solution = np.asarray(found.x, dtype=np.float64).reshape(classes, width + 1)
    solution[:, :-1] *= unit
    return solution
