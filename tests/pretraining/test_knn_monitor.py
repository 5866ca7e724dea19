"""The labeled images that watch a pretraining: which vote, which are asked, and what is made of the votes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.splits import split
from ssl_app.pretraining import knn_monitor
from tests.data.test_splits import made

PIXELS = PixelScaling("range", 0, 255, (0.5,), (0.5,), "uint8")


@pytest.fixture
def labeled_set() -> Dataset:
    labels = ["a" if i % 4 else "b" for i in range(80)]
    labels[::5] = [None] * 16
    return made(labels)


def test_labeled_images_of_either_part_vote_and_are_asked(
    labeled_set: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(knn_monitor, "open_source", lambda *about: None)
    monkeypatch.setattr(knn_monitor, "open_dataset", lambda *about, **more: labeled_set)
    settings = SimpleNamespace(probe_data="d", label=None, group=None, split=None, out=tmp_path, max_unreadable=0)
    probe = knn_monitor.Probe.open(settings, 2, 1, PIXELS, 2)
    parts = split(labeled_set)
    for rows, of in ((probe.bank, parts.train), (probe.asked, parts.test)):
        assert rows.tolist() == [row for row in of if labeled_set.labeled[row]]


def test_the_score_is_balanced_accuracy_by_few_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.array([0.3] * 2 + [0.35] * 6 + [0.0] * 3 + [1.5])
    found = np.stack([np.cos(angles), np.sin(angles)], 1)
    dataset = SimpleNamespace(images=None, classes=("a", "b"), labels=np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]))
    monkeypatch.setattr(knn_monitor.features, "pooled", lambda task, rows, *more: found[rows])
    score = knn_monitor.Probe(dataset, np.arange(8), np.arange(8, 12)).score(None, None, None)
    assert score == pytest.approx((1 + 1 / 3) / 2), "by two neighbors; of all eight most are of class a"
