"""All that is measured on one layer of a frozen backbone: arrays in, plain numbers out.

Nearest neighbors and a linear probe learn from the training images, and k-means clusters them; what has to be
chosen is chosen on the training images held out. Test images are predicted, clustered and searched once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app.clustering.agreement import nmi_by_chance
from ssl_app.evaluation import knn, linear_probe, retrieval
from ssl_app.evaluation.intervals import Interval, balanced_accuracy_interval, bootstrap_means, jackknife
from ssl_app.evaluation.metrics import classification
from ssl_app.evaluation.partition import agreement_scores, partition
from ssl_app.training.memory import give_back_memory

KINDS = {"knn": "kNN", "linear": "linear probe"}
KEPT = ("n", "accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1")
Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the images: N to learn from, n to test on."""

    train: NDArray[np.int64]  # (N,) labels
    test: NDArray[np.int64]  # (n,) labels
    classes: tuple[str, ...]
    held: NDArray[np.bool_]  # (N,) which training images are held out to choose by
    units: Sequence[str]  # (n,) group or content of the test images, which never count as found
    groups: Sequence[str] | None  # (n,) what intervals are over; None: images


@dataclass(frozen=True)
class Protocol:
    """How a layer is measured."""

    k: tuple[int, ...]  # nearest neighbors, of which one is chosen
    clusters: tuple[int, ...]  # K of k-means, each measured
    seed: int
    device: torch.device


def measure(train: Features, test: Features, truth: Truth, how: Protocol) -> dict[str, Any]:
    """Every measure of one layer, by name. (N, d), (n, d).

    `features` is d; `knn` and `linear` have their scores with what was chosen, and `per_class` is the linear
    probe's; `retrieval` and `clusters` stand beside their chance.
    """
    linear, per_class = _linear(train, test, truth, how)
    give_back_memory()  # each of these copies the layer's features, in pieces of its own
    neighbors = _neighbors(train, test, truth, how)
    give_back_memory()
    found = _retrieval(test, truth, how)
    give_back_memory()
    clusters = [_clusters(train, test, k, truth, how) for k in how.clusters]
    give_back_memory()
    return {
        "features": int(train.shape[1]),
        "knn": neighbors,
        "linear": linear,
        "retrieval": found,
        "clusters": clusters,
        "per_class": per_class,
    }


def best_layer(found: dict[str, dict[str, Any]], kind: str) -> str | None:
    """The layer that did best on what was held out of train; None where nothing was."""
    scored = {layer: one[kind]["held_out"] for layer, one in found.items() if one[kind]["held_out"] is not None}
    return max(scored, key=lambda layer: scored[layer]) if scored else None


def plain_numbers(one: dict[str, Any]) -> dict[str, float]:
    """The scores of a layer as metrics with names, for tracking; the confidence limits are not among them."""
    found = {f"{kind}_{key}": one[kind].get(key) for kind in KINDS for key in KEPT}
    found |= {
        f"retrieval_{key}": one["retrieval"].get(key) for key in ("map", *(f"precision_{k}" for k in retrieval.RANKS))
    }
    for row in one["clusters"]:
        found |= {f"clusters_{row['k']}_{key}": row[key] for key in ("nmi", "ami", "ari")}
    return {name: float(value) for name, value in found.items() if value is not None}


def _neighbors(train: Features, test: Features, truth: Truth, how: Protocol) -> dict[str, Any]:
    labels, held, count = truth.train, truth.held, len(truth.classes)
    chosen: dict[int, float | None] = {how.k[0]: None}
    if held.any():
        voters = np.where(held, -1, labels)
        inside = knn.votes(train, voters, train[held], count, k=how.k, device=how.device)
        chosen = {k: _balanced(votes, labels[held], truth.classes) for k, votes in inside.items()}
    k = max(chosen, key=lambda k: chosen[k] or 0.0)
    scores, _ = _tested(knn.votes(train, labels, test, count, k=(k,), device=how.device)[k], truth, how)
    scores.pop("top5_accuracy", None)  # most classes have no vote at all: the first of them would be right
    return {"k": min(k, len(train)), "sigma": knn.SIGMA, "held_out": chosen[k]} | scores


def _linear(
    train: Features, test: Features, truth: Truth, how: Protocol
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scores, and precision, recall, F1 and n of each class."""
    probe = linear_probe.fit(train, truth.train, len(truth.classes), truth.held, device=how.device)
    scores, per_class = _tested(probe.classifier.logits(test), truth, how)
    held_out = None
    if probe.held_logits is not None:
        held_out = _balanced(probe.held_logits, truth.train[truth.held], truth.classes)
    return {"how": probe.classifier.how, "held_out": held_out} | scores, per_class


def _retrieval(test: Features, truth: Truth, how: Protocol) -> dict[str, Any]:
    """mAP and precision of the n queries that have an image of their class to find, with what chance has."""
    found = retrieval.retrieve(test, truth.test, truth.units, seed=how.seed, device=how.device)
    names = ["map", *(f"precision_{k}" for k in found.precision)]
    count = len(found.queries)
    result: dict[str, Any] = {"n": count, "left_out": len(truth.test) - count}
    if not count:
        limits = [f"{name}{limit}" for name in names for limit in ("", "_low", "_high")]
        return result | dict.fromkeys([*limits, "map_by_chance", "precision_by_chance"])
    groups = None if truth.groups is None else [truth.groups[row] for row in found.queries]
    values = np.column_stack([found.average_precision, *found.precision.values()])
    intervals = bootstrap_means(values, groups, seed=how.seed)
    for name, interval in zip(names, intervals, strict=True):
        result |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return result | {
        "map_by_chance": float(found.chance_average_precision.mean()),
        "precision_by_chance": float(found.chance_precision.mean()),
    }


def _clusters(train: Features, test: Features, k: int, truth: Truth, how: Protocol) -> dict[str, Any]:
    """Agreement of K clusters with the classes of the test images, and of the training images to choose K by."""
    found = partition(train, test, k, seed=how.seed, device=how.device)
    groups = np.arange(len(truth.test)) if truth.groups is None else truth.groups

    def scores(kept: NDArray[np.bool_]) -> tuple[float, float, float]:
        return agreement_scores(found.test[kept], truth.test[kept])

    result: dict[str, Any] = {"k": k, "n": len(truth.test), "k_used": len(np.unique(found.test))}
    named: list[tuple[str, Interval]] = list(
        zip(("nmi", "ami", "ari"), jackknife(scores, groups, seed=how.seed), strict=True)
    )
    for name, interval in named:
        high = None if interval.high is None else min(1.0, interval.high)
        result |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": high}
    inside = agreement_scores(found.train, truth.train)
    return result | {
        "nmi_by_chance": nmi_by_chance(found.test, truth.test, how.seed),
        "train": dict(zip(("nmi", "ami", "ari"), inside, strict=True))
        | {"n": len(truth.train), "nmi_by_chance": nmi_by_chance(found.train, truth.train, how.seed)},
    }


def _tested(scores: NDArray[np.float64], truth: Truth, how: Protocol) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    numbers = classification(scores, truth.test, truth.classes)
    interval = balanced_accuracy_interval(truth.test, scores.argmax(1), truth.groups)
    kept = {key: numbers[key] for key in KEPT if key in numbers}
    return kept | {"low": interval.low, "high": interval.high}, cast(list[dict[str, Any]], numbers["per_class"])


def _balanced(scores: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]) -> float:
    return cast(float, classification(scores, labels, classes)["balanced_accuracy"])
