"""Sets of one source with fewer and fewer images of some classes: the three of SeLa's section on imbalance.

    python benchmarks/imbalance.py --data D --out FOLDER [--count 20000] [--seed 0]

full           as many of each class.
light          half of the last class is taken away (truck, of CIFAR-10).
heavy-literal  class j of 10 keeps 1 - (j + 1) / 10 of its images, so that the last is not there at all.
heavy-floor    the same, but a tenth of the last class stays.

The article says "the first class loses 10 %, the second 20 %, ..."; taken at its word it is heavy-literal. Each is an
.npz for --data, with the test part as it is; the training parts are nested, and cut from --count images of the
training part. heavy-literal has no train image of the last class: evaluate what it taught on full.npz.
"""

import argparse
from pathlib import Path

import numpy as np

from ssl_app.data.dataset import in_class_order
from ssl_app.data.images import Unreadable
from ssl_app.data.sources.base import Columns, Source, open_source


def kept(kind: str, classes: int) -> np.ndarray:
    """Share of each class that stays, (K,)."""
    share = np.ones(classes)
    if kind == "light":
        share[-1] = 0.5
    elif kind.startswith("heavy"):
        share = 1 - (np.arange(classes) + 1) / classes
        if kind == "heavy-floor":
            share = np.maximum(share, 0.1)
    return share


def rows_of(labels: np.ndarray, train: np.ndarray, kind: str, count: int, seed: int) -> np.ndarray:
    """Rows of the training part that stay, in order; fewer of a class are among the more."""
    classes = len(set(labels.tolist()))
    chosen = []
    for label, share in enumerate(kept(kind, classes)):
        own = np.random.default_rng([seed, label]).permutation(train[labels[train] == label])
        chosen.append(own[: round(share * min(len(own), count // classes))])
    return np.sort(np.concatenate(chosen))


def all_images(source: Source) -> np.ndarray:
    """(N, H, W, C), read in order: a shard is a stream."""
    images = []
    for row, image in source.each(lambda array: array):
        if isinstance(image, Unreadable):
            raise SystemExit(f"{source.keys[row]} cannot be read: {image}")
        images.append(image)
    return np.stack(images)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", required=True)
    reader.add_argument("--out", type=Path, required=True)
    reader.add_argument("--count", type=int, default=20_000)
    reader.add_argument("--seed", type=int, default=0)
    asked = reader.parse_args()
    source = open_source(asked.data, Columns())
    if source.labels is None or source.splits is None or None in source.labels:
        raise SystemExit(f"{asked.data} has no labels, or no split; expected a labeled set with train and test")
    names = in_class_order({str(label) for label in source.labels})
    labels = np.array([names.index(str(label)) for label in source.labels])
    split = np.array([str(part) for part in source.splits])
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    asked.out.mkdir(parents=True, exist_ok=True)
    images = all_images(source)
    for kind in ("full", "light", "heavy-literal", "heavy-floor"):
        rows = rows_of(labels, train, kind, asked.count, asked.seed)
        path = asked.out / f"{kind}.npz"
        np.savez(
            path,
            images=images[np.concatenate([rows, test])],
            labels=labels[np.concatenate([rows, test])],
            split=np.array(["train"] * len(rows) + ["test"] * len(test)),
        )
        found = np.bincount(labels[rows], minlength=len(names))
        counts = ", ".join(f"{name} {n}" for name, n in zip(names, found, strict=True))
        print(f"{path}: {len(rows)} to learn from ({counts}), {len(test)} to test")


if __name__ == "__main__":
    main()
