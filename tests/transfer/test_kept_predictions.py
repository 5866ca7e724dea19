"""Predictions of trials: the same class first in fp16, joined into one file, and never half of one."""

from pathlib import Path

import numpy as np
import pytest

from ssl_app.errors import RunError
from ssl_app.evaluation.metrics import in_half
from ssl_app.transfer import kept_predictions


def probabilities(seed: int = 0, images: int = 200, classes: int = 5) -> np.ndarray:
    made = np.random.default_rng(seed).random((images, classes)) ** 4
    return made / made.sum(1, keepdims=True)


def test_fp16_keeps_the_class_that_is_first() -> None:
    near = np.array([[0.5, 0.50001, 0.1], [0.25, 0.25, 0.5], [0.4, 0.4, 0.2], [0.3, 0.30001, 0.30002]])
    for one in (near, probabilities(images=5000, classes=1000), np.array([[1.0, 1e-9], [1e-9, 1.0]])):
        kept = in_half(one)
        assert kept.dtype == np.float16
        assert (kept.argmax(1) == one.argmax(1)).all()
        assert np.abs(kept - one).max() < 1e-3


def test_trials_are_joined_and_those_that_come_later_too(tmp_path: Path) -> None:
    labels, groups = np.arange(200) % 5, [f"g{i // 2}" for i in range(200)]
    made = {key: probabilities(seed) for seed, key in enumerate(["a-k4-d0", "b-k4-d0", "c-k4-d0"])}
    right = {key: one.argmax(1) == labels for key, one in made.items()}
    for key in ("a-k4-d0", "b-k4-d0"):
        kept_predictions.write(tmp_path, key, made[key])
    assert kept_predictions.keys(tmp_path) == {"a-k4-d0", "b-k4-d0"}
    kept_predictions.gather(tmp_path, {key: [(key, None)] for key in ("a-k4-d0", "b-k4-d0")}, labels, groups)
    kept_predictions.write(tmp_path, "c-k4-d0", made["c-k4-d0"])
    assert not list(tmp_path.glob("trials/[ab]*/*"))
    assert kept_predictions.keys(tmp_path) == set(made)
    found = kept_predictions.right(tmp_path, list(made), labels)
    assert all((found[key] == right[key]).all() for key in made)
    kept_predictions.gather(tmp_path, {key: [(key, None)] for key in made}, labels, groups)
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert set(arrays) == {*made, "labels", "groups"}
        assert arrays["groups"].tolist() == [i // 2 for i in range(200)]
    kept_predictions.write(tmp_path, "a-s-k4-d0", made["a-k4-d0"])
    again = kept_predictions.answered(tmp_path, [("a", "s", 4, 0)], {})
    assert (again.right["a", "s", 4, 0] == right["a-k4-d0"]).all()


def test_folds_are_joined_when_all_are_there(tmp_path: Path) -> None:
    whole, labels = probabilities(), np.arange(200) % 5
    order = np.random.default_rng(1).permutation(200)
    folds = [(f"a-s-k4-d0-f{number}", np.sort(rows)) for number, rows in enumerate(np.split(order, 4))]
    for key, rows in folds[:3]:
        kept_predictions.write(tmp_path, key, whole[rows])
    kept_predictions.gather(tmp_path, {"a-s-k4-d0": folds}, labels, range(200))
    assert kept_predictions.keys(tmp_path) == {key for key, _ in folds[:3]}
    kept_predictions.write(tmp_path, folds[3][0], whole[folds[3][1]])
    kept_predictions.gather(tmp_path, {"a-s-k4-d0": folds}, labels, range(200))
    assert kept_predictions.keys(tmp_path) == {"a-s-k4-d0"}
    found = kept_predictions.answered(tmp_path, [("a", "s", 4, 0)], {4: 0.5})
    assert (found.right["a", "s", 4, 0] == (whole.argmax(1) == labels)).all()


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    kept_predictions.write(tmp_path, "a", probabilities())
    kept_predictions.gather(tmp_path, {"a": [("a", None)]}, np.zeros(200, dtype=np.int64), range(200))
    path = tmp_path / "predictions.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"predictions\.npz cannot be read .*remove it, and the trials are run again"):
        kept_predictions.keys(tmp_path)
