"""A summary of a set, kept in a run's folder: images, classes, parts, what was left out, and hashes of all of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling

FILE = runs.DATA
Indices = NDArray[np.int64]


def write_summary(
    folder: Path, dataset: Dataset, parts: Mapping[str, Indices], how: str, scaling: PixelScaling
) -> None:
    """Write it. `parts` are indices by the name of a part, `how` says how they came about.

    Of a part named test it holds each image too: what a report needs to score it and to show it.
    """
    counts = {name: _counts(dataset, indices) for name, indices in parts.items()}
    units = dataset.units
    content = {
        "name": dataset.name,
        "hash": dataset.hash,
        "pack": dataset.key,  # folder of the decoded images in the cache
        "images": len(dataset.keys),
        "pixels": {"shape": list(dataset.images.shape[1:]), "dtype": dataset.images.dtype.name},
        "scaling": scaling.to_json(),
        "image_size": dataset.image_size,
        "classes": list(dataset.classes),
        "split": how,
        "parts": {name: found | {"hash": digest(dataset, parts[name])} for name, found in counts.items()},
        "group": None if dataset.groups is None else dataset.columns.group,
        "groups": None if dataset.groups is None else len({units[i] for i in np.flatnonzero(dataset.grouped())}),
        "copies": len(dataset.content) - len(np.unique(dataset.content)),
        "notes": [str(note) for note in dataset.notes],
        "unreadable": [list(one) for one in dataset.unreadable],
        "test": None if "test" not in parts else _images(dataset, parts["test"]),
    }
    runs.write_json(folder / FILE, content)


def labeled_digest(dataset: Dataset, indices: Indices) -> str:
    """16 hexadecimal digits over the pictures of a draw and their classes, in whatever order they lie."""
    pairs = sorted(f"{dataset.content[k]} {dataset.classes[dataset.labels[k]]}" for k in indices)
    return hashlib.blake2b("\n".join(pairs).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def profile(dataset: Dataset, indices: Indices) -> dict[str, object]:
    """Images of a part for MLflow: how many, of which class, how large."""
    counted = _counts(dataset, indices)
    each = {name: n for name, n in zip(dataset.classes, counted["per_class"], strict=True) if n}
    about = {"images": counted["n"], "unlabeled": counted["unlabeled"], "per_class": each}
    return about | {"pixels": "x".join(map(str, dataset.images.shape[1:])), "dtype": dataset.images.dtype.name}


def _counts(dataset: Dataset, indices: Indices) -> dict[str, Any]:
    """Images of a part: all, those of each class, and those without a label."""
    labeled = dataset.labeled[indices]
    each = np.bincount(dataset.labels[indices][labeled], minlength=len(dataset.classes))
    return {"n": len(indices), "per_class": each.tolist(), "unlabeled": int((~labeled).sum())}


def digest(dataset: Dataset, indices: Indices) -> str:
    """16 hexadecimal digits over the pictures of a part, in whatever order they lie."""
    return hashlib.blake2b(np.sort(dataset.content[indices]).tobytes(), digest_size=8).hexdigest()


def _images(dataset: Dataset, indices: Indices) -> dict[str, Any]:
    """Every image of a part: its row in the pack, its path, its class, and the number of its group."""
    numbers: dict[str, int] = {}
    return {
        "rows": indices.tolist(),
        "paths": [dataset.keys[index] for index in indices],
        "labels": dataset.labels[indices].tolist(),
        "groups": [numbers.setdefault(dataset.units[index], len(numbers)) for index in indices],
    }
