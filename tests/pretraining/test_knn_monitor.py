"""The kNN monitor: which labeled images are the bank, which the queries, and the score."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import split
from ssl_app.pretraining import knn_monitor
from tests.data.test_splits import made

SCALING = PixelScaling("range", 0, 255, (0.5,), (0.5,), "uint8")


@pytest.fixture
def labeled_set() -> Dataset:
    labels = ["a" if i % 4 else "b" for i in range(80)]
    labels[::5] = [None] * 16
    return made(labels)


def test_labeled_images_of_either_part_are_bank_and_queries(
    labeled_set: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(knn_monitor, "open_source", lambda *about: None)
    monkeypatch.setattr(knn_monitor, "open_images", lambda *about: labeled_set)
    monitor = knn_monitor.KnnMonitor.open(DataSpec("d", tmp_path), PixelSpec(2, 1), SCALING)
    parts = split(labeled_set)
    for found, of in ((monitor.bank, parts.train), (monitor.queries, parts.test)):
        assert found.tolist() == [index for index in of if labeled_set.labeled[index]]


def test_the_score_is_balanced_accuracy_by_few_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.array([0.3] * 2 + [0.35] * 6 + [0.0] * 3 + [1.5])
    found = np.stack([np.cos(angles), np.sin(angles)], 1)
    dataset = SimpleNamespace(images=None, classes=("a", "b"), labels=np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]))
    task = SimpleNamespace(backbone=SimpleNamespace(image_size=2))
    monkeypatch.setattr(knn_monitor.features, "pooled", lambda task, rows, *more: found[rows.indices])
    score = knn_monitor.KnnMonitor(dataset, np.arange(8), np.arange(8, 12)).score(task, SCALING, None)
    assert score == pytest.approx((1 + 1 / 3) / 2), "by two neighbors; of all eight most are of class a"
