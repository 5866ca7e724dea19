"""What a sweep's trials predicted for the test images: class probabilities in fp16, one file a sweep.

A trial writes a file of its own, in its folder, before its result; `gather` joins them into `predictions.npz`: an
array (N, K) a trial, by its key, and beside them `labels` (N,) and `groups` (N,), the number of each image's group.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.errors import Fix, RunError
from ssl_app.evaluation.comparison import Answered, Trial
from ssl_app.evaluation.difference import ScoredPart
from ssl_app.evaluation.metrics import in_half

FILE = "predictions.npz"
OWN = "probabilities.npy"
LABELS, GROUPS = "labels", "groups"
Rows = NDArray[np.int64] | None  # places of a fold's images among all; None: it tested all of them


def key_of(init: str, strategy: str, per_class: int, draw: int) -> str:
    """The name of a trial, its folder and its predictions."""
    return f"{init}-{strategy}-k{per_class}-d{draw}"


def write(folder: Path, key: str, probabilities: NDArray[np.float64]) -> None:
    """Those of one trial, into its own folder. (N, K)."""
    path = folder / "trials" / key / OWN
    path.parent.mkdir(parents=True, exist_ok=True)
    with runs.draft(path) as draft, draft.open("wb") as file:
        np.save(file, in_half(probabilities))


def keys(folder: Path) -> set[str]:
    """Of the trials whose predictions are kept. Raises RunError where the file is damaged."""
    found = {path.parent.name for path in (folder / "trials").glob(f"*/{OWN}")}
    with _gathered(folder) as arrays:
        return found | (set(arrays) - {LABELS, GROUPS})


def right(folder: Path, wanted: Sequence[str], labels: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Which of its images each trial was right about, (N,). Raises RunError where a file is damaged."""
    found = {}
    with _gathered(folder) as arrays:
        for key in wanted:
            own = folder / "trials" / key / OWN
            with _readable(own if own.is_file() else folder / FILE):
                kept = np.load(own, allow_pickle=False) if own.is_file() else arrays[key]
            found[key] = kept.argmax(axis=1) == labels
    return found


def part(folder: Path) -> ScoredPart | None:
    """The images that trials were tested on; None before any were gathered. Raises RunError."""
    with _gathered(folder) as arrays:
        return ScoredPart(arrays[LABELS], arrays[GROUPS]) if LABELS in arrays else None


def probabilities(folder: Path, wanted: Sequence[str]) -> dict[str, NDArray[np.float16]]:
    """What each of these predicted, (N, K), by its key; those that are not kept are left out. Raises RunError."""
    found = {}
    with _gathered(folder) as arrays:
        for key in wanted:
            own = folder / "trials" / key / OWN
            if own.is_file():
                with _readable(own):
                    found[key] = np.load(own, allow_pickle=False)
            elif key in arrays:
                found[key] = arrays[key]
    return found


def gather(
    folder: Path,
    trials: Mapping[str, Sequence[tuple[str, Rows]]],
    labels: NDArray[np.int64],
    groups: Sequence[object],
) -> None:
    """Join what lies in trials' folders with what is gathered already, and take the former away.

    `trials` are by the key that they are kept under: of one that tested all images, or of folds with their rows of
    the images. Folds are gathered when all of them are there.
    """
    numbers: dict[object, int] = {}
    content: dict[str, NDArray[Any]] = {
        LABELS: labels,
        GROUPS: np.array([numbers.setdefault(group, len(numbers)) for group in groups]),
    }
    joined: list[Path] = []
    for key, folds in trials.items():
        paths = [folder / "trials" / own / OWN for own, _ in folds]
        if all(path.is_file() for path in paths):
            content[key] = _joined(paths, [rows for _, rows in folds], len(labels))
            joined += paths
    if not joined and (folder / FILE).is_file():
        return
    with _gathered(folder) as arrays:
        before = {key: arrays[key] for key in arrays if key not in content}
    with runs.draft(folder / FILE) as draft, draft.open("wb") as file:
        np.savez(file, **(before | content))  # type: ignore[arg-type]  # names are keys of trials
    for path in joined:
        path.unlink()


def _joined(paths: Sequence[Path], rows: Sequence[Rows], images: int) -> NDArray[Any]:
    """Predictions for all images, (N, K), from one file, or from those of folds."""
    whole: NDArray[Any] | None = None
    for path, some in zip(paths, rows, strict=True):
        with _readable(path):
            kept: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if some is None:
            return kept
        whole = np.zeros((images, kept.shape[1]), np.float16) if whole is None else whole
        whole[some] = kept
    assert whole is not None
    return whole


def answered(folder: Path, trials: Sequence[Trial], reuse: Mapping[int, float]) -> Answered:
    """What gathered trials answered. Raises RunError where the file is damaged."""
    with _gathered(folder) as arrays:
        labels, groups = arrays[LABELS], arrays[GROUPS]
    found = right(folder, [key_of(*one) for one in trials], labels)
    return Answered(ScoredPart(labels, groups), {one: found[key_of(*one)] for one in trials}, reuse)


@contextmanager
def _gathered(folder: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    path = folder / FILE
    if not path.is_file():
        yield {}
        return
    with _readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise RunError(
            f"{path} cannot be read ({error})", fix=Fix("remove it, and the trials are run again")
        ) from error
