"""What a classifier is worth on labeled images: probabilities in, plain numbers out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MANY_CLASSES = 5  # above it, top-5 accuracy says something


def classification(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, object]:
    """Accuracy, balanced accuracy, macro F1, per class, and the confusion matrix. (N, K), (N,) -> dict.

    Balanced accuracy is the mean recall over classes that occur in `labels`; macro F1 the mean over classes
    that occur in the labels or the predictions (an absent class has no F1, and 0 would punish a small test
    set). confusion[true][predicted] counts images. A ratio with nothing below the line is None.
    Ties of probability go to the first class; logits do as well as probabilities.
    """
    scores = np.asarray(probabilities)
    truth = np.asarray(labels, dtype=np.int64)
    assert scores.shape == (len(truth), len(classes)), (scores.shape, len(truth), len(classes))
    assert len(truth) > 0, "no test images"
    count = len(classes)
    predicted = scores.argmax(axis=1)
    matrix = confusion(truth, predicted, count)  # (K, K)
    right, true, guessed = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)  # (K,) each
    recall = _ratio(right, true)
    precision = _ratio(right, guessed)
    f1 = _ratio(2 * right, true + guessed)
    result: dict[str, object] = {"n": len(truth), "accuracy": float(right.sum() / len(truth))}
    if count > MANY_CLASSES:
        # rank of the true class: those scored higher, and those as high that come first
        own = scores[np.arange(len(truth)), truth][:, None]
        first = np.arange(count)[None, :] < truth[:, None]
        rank = (scores > own).sum(axis=1) + ((scores == own) & first).sum(axis=1)
        result["top5_accuracy"] = float((rank < 5).mean())
    result["balanced_accuracy"] = float(np.nanmean(recall))
    result["macro_f1"] = float(np.nanmean(f1))
    result["per_class"] = [
        {
            "class": name,
            "n": int(true[k]),
            "precision": _plain(precision[k]),
            "recall": _plain(recall[k]),
            "f1": _plain(f1[k]),
        }
        for k, name in enumerate(classes)
    ]
    result["confusion"] = matrix.tolist()
    return result


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts of images, true class by predicted class. (N,), (N,) -> (K, K)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _ratio(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def _plain(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def in_half(probabilities: NDArray[np.float64]) -> NDArray[np.float16]:
    """In fp16, with the same class first where rounding would have changed it. (N, K) -> (N, K)."""
    kept = probabilities.astype(np.float16)
    first = probabilities.argmax(axis=1)
    moved = np.flatnonzero(kept.argmax(axis=1) != first)
    kept[moved, first[moved]] = np.nextafter(kept[moved].max(axis=1), np.float16(np.inf))
    return kept
