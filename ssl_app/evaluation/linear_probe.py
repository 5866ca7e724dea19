"""Linear probe: a multinomial logistic regression on frozen features, C chosen inside the training part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ssl_app.evaluation import logistic
from ssl_app.evaluation.logistic import Logistic

LARGE = 1000  # training images above which the fit is f32: f64 decomposes the features on one thread
HELD = 0.2  # share of the training images held out to choose by


@dataclass(frozen=True, eq=False)
class Probe:
    """A fit to all training images, and what one to those not held out says of the others."""

    classifier: Logistic
    held_logits: NDArray[np.float64] | None  # (h, K) of the held-out images in their order; None where there are none


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
    where = device if len(held) > LARGE else None
    if not held.any():
        found = logistic.fit(features, labels, classes, device=where)
        how = f"C = {found.strength:g}, by rule: nothing can be held out"
        return Probe(replace(found, how=how), None)
    folds = [(np.flatnonzero(~held), np.flatnonzero(held))]
    found = logistic.fit(features, labels, classes, folds=folds, device=where)
    how = f"C = {found.strength:g}, chosen on {held.sum():,} training images held out"
    return Probe(replace(found, how=how), found.validation_logits[0])
