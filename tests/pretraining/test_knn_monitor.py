"""kNN monitor: which labeled images are its bank and its queries, and what its score is."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_app.data.intensity import PixelScaling
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import split
from ssl_app.errors import DataError
from ssl_app.pretext.base import SelfLabeling
from ssl_app.pretraining.knn_monitor import KnnMonitor
from tests import toys

SIDE = 8
SCALING = PixelScaling("range", 0, 255, (0.5,), (0.5,), "uint8")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """80 images of two classes, of which every fifth has no label."""
    lines = ["path,label"]
    for number, pixels in enumerate(toys.images(80, SIDE)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        lines.append(f"{number}.png,{'' if number % 5 == 0 else 'a' if number % 4 else 'b'}")
    path = tmp_path / "labeled.csv"
    path.write_text("\n".join(lines))
    return path


def test_bank_and_queries_are_the_labeled_images_of_either_part(manifest: Path, tmp_path: Path) -> None:
    monitor = KnnMonitor.open(DataSpec(str(manifest), tmp_path / "cache"), PixelSpec(SIDE), SCALING)
    dataset = monitor.dataset
    assert open_source(str(manifest), Columns()).keys == dataset.keys
    parts = split(dataset)
    for indices, part in ((monitor.bank, parts.train), (monitor.queries, parts.test)):
        assert indices.tolist() == [index for index in part if dataset.labeled[index]]


def test_images_of_another_depth_are_refused(manifest: Path, tmp_path: Path) -> None:
    deep = PixelScaling("range", 0, 65535, (0.5,), (0.5,), "uint16")
    with pytest.raises(DataError) as error:
        KnnMonitor.open(DataSpec(str(manifest), tmp_path / "cache"), PixelSpec(SIDE), deep)
    assert str(error.value) == (
        f"the probe data {manifest} hold uint8 images, the data uint16; expected the same depth; "
        "type intensity dtype, or leave the probe data out"
    )


class Angles(nn.Module):
    """A method whose features of an image are a direction of the plane, by the number that its pixels hold."""

    def __init__(self, angles: list[float]) -> None:
        super().__init__()
        self.backbone = SimpleNamespace(image_size=2)
        self.angles = torch.tensor(angles)

    def features(self, images: Tensor) -> Tensor:
        number = ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().long()
        return torch.stack([self.angles[number].cos(), self.angles[number].sin()], 1)


def test_the_score_is_balanced_accuracy_by_few_neighbors() -> None:
    labels = ["b", "b", "a", "a", "a", "a", "a", "a", "b", "a", "a", "a"]
    dataset = toys.dataset(labels)
    dataset.images[:] = np.arange(12, dtype=np.uint8)[:, None, None, None]
    task = Angles([0.3] * 2 + [0.35] * 6 + [0.0] * 3 + [1.5])
    monitor = KnnMonitor(dataset, np.arange(8), np.arange(8, 12))
    found = monitor.scores(task, SCALING, toys.CPU)  # type: ignore[arg-type]
    assert found == {"knn": pytest.approx((1 + 1 / 3) / 2)}, "by two neighbors; of all eight most are of class a"


class Numbered(SelfLabeling, Angles):
    """A method whose first head gives an image the cluster of its number, and whose second one always the same."""

    def log_clusters(self, images: Tensor) -> Tensor:
        number = ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().long()
        return torch.stack([torch.eye(2)[number % 2], torch.eye(2)[torch.zeros_like(number)]], 1)


def test_clusters_of_the_first_head_are_compared_with_the_queries_classes() -> None:
    dataset = toys.dataset(["a", "b"] * 10)
    dataset.images[:] = np.arange(20, dtype=np.uint8)[:, None, None, None]
    monitor = KnnMonitor(dataset, np.arange(8), np.arange(8, 20))
    found = monitor.scores(Numbered([0.1] * 20), SCALING, toys.CPU)  # type: ignore[arg-type]
    assert set(found) == {"knn", "nmi", "ami"}
    assert (found["nmi"], found["ami"]) == (pytest.approx(1), pytest.approx(1))
