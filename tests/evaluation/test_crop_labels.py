"""Crops whose pooled label is not the image's, and whether maps lie on their images: toys whose answers are known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_app.data import transforms
from ssl_app.data.class_maps import ClassMaps, Index, MapForm, packed
from ssl_app.data.transforms import Frame
from ssl_app.evaluation.crop_labels import CROPS, PAPER, USUAL, crop_labels, pooled_at, random_boxes
from ssl_app.evaluation.map_orientation import orientation
from ssl_app.training.label_pooling import PooledTargets

CLASSES = ("a", "b", "c")


def targets(top: np.ndarray) -> PooledTargets:
    """Of maps (N, h, w) of the highest class, which is nearly certain."""
    logits = np.full((len(top), len(CLASSES), *top.shape[1:]), -4.0, np.float32)
    np.put_along_axis(logits, top[:, None], 4.0, axis=1)
    number = np.arange(len(top))
    return PooledTargets(ClassMaps(MapForm(CLASSES, 2, top.shape[1:], {}), Index(number), packed(logits, 2)), number)


@pytest.mark.parametrize("least", [USUAL, PAPER])
def test_boxes_are_those_of_random_resized_crop(least: float) -> None:
    boxes = random_boxes(4000, least, np.random.default_rng(0))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (width * height).min() >= least - 1e-6
    assert (width / height).min() >= 3 / 4 - 1e-6
    assert (width / height).max() <= 4 / 3 + 1e-6
    pipeline = transforms.Pipeline(Frame(16, 64), [transforms.crop(Frame(16, 64), least)])
    theirs = np.array([pipeline.located(np.zeros((64, 64, 1), np.float32), seed)[1] for seed in range(800)])
    areas = (theirs[:, 2] - theirs[:, 0]) * (theirs[:, 3] - theirs[:, 1])
    assert (width * height).mean() == pytest.approx(areas.mean(), abs=0.03)
    np.testing.assert_allclose(boxes.mean(0), theirs.mean(0), atol=0.03)


def test_maps_of_one_class_have_no_wrong_crop_and_those_of_another_none_that_is_right() -> None:
    top = np.repeat(np.array([0, 1, 1, 2])[:, None, None], 4, 1).repeat(4, 2)
    found = crop_labels(targets(top), np.array([0, 1, 2, 2]), seed=0)
    assert found is not None
    assert (found.images, found.crops) == (4, CROPS)
    assert (found.whole, found.usual, found.paper) == (0.25, 0.25, 0.25)
    assert found.moved == 0
    assert "0.0 % of crops of 50 to 100 % show another class than their whole image" in found.sentence()
    assert found.sentence().endswith(": pooled labels have little to add")
    assert crop_labels(targets(top), np.zeros(0, np.int64), seed=0) is None


def test_small_crops_of_images_of_two_things_are_wrong_more_often() -> None:
    """The label holds for five columns of nine: whole images are right, and crops of the others wrong."""
    top = np.zeros((50, 8, 9), np.int64)
    top[:, :, 5:] = 1
    found = crop_labels(targets(top), np.zeros(50, np.int64), seed=0)
    assert found is not None
    assert found.whole == 0 < found.usual < found.paper
    by_area = [share for share in found.by_area if share is not None]
    assert by_area[0] > 0.2
    assert by_area == sorted(by_area, reverse=True)
    assert found.moved == found.usual, "the label is what the whole image shows"
    assert found.moved_by_area == found.by_area
    assert found.sentence().endswith("one label for all crops of an image is wrong here")
    other = crop_labels(targets(top), np.full(50, 2), seed=0)
    assert other is not None
    assert (other.whole, other.usual, other.moved) == (1, 1, found.moved), "the teacher's errors apart"


def blobs(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures (N, 32, 32, 1) with a bright rectangle, and maps (N, 8, 8): the label's class there."""
    pictures = generator.random((count, 32, 32, 1), dtype=np.float32) * 0.3
    top = np.ones((count, 8, 8), np.int64)
    for number in range(count):
        y, x, height, width = generator.integers((0, 0, 1, 1), (5, 5, 4, 4))
        pictures[number, 4 * y : 4 * (y + height), 4 * x : 4 * (x + width)] += 0.6
        top[number, y : y + height, x : x + width] = 0
    return pictures, top


@pytest.mark.parametrize("stored", ["straight", "transposed"])
def test_orientation_is_found_where_images_and_maps_change_together(stored: str) -> None:
    pictures, top = blobs(60, np.random.default_rng(1))
    kept = top if stored == "straight" else top.swapaxes(1, 2)
    found = orientation(targets(kept), targets(kept.swapaxes(1, 2)), pictures, np.zeros(60, np.int64))
    assert found.is_transposed is (stored == "transposed")
    assert f"taken {'transposed' if stored == 'transposed' else 'as stored'}" in found.sentence()


def test_orientation_stays_open_where_maps_say_nothing_of_the_image() -> None:
    pictures, _ = blobs(60, np.random.default_rng(1))
    _, top = blobs(60, np.random.default_rng(2))
    found = orientation(targets(top), targets(top.swapaxes(1, 2)), pictures, np.zeros(60, np.int64))
    assert found.is_transposed is None


def test_cross_entropy_of_random_crops_cannot_tell_a_map_from_the_transposed_one() -> None:
    """What docs/relabel.md says of it: the expectation is the same, whatever the maps."""
    _, top = blobs(40, np.random.default_rng(3))
    index = np.repeat(np.arange(40), 200)
    boxes = random_boxes(len(index), PAPER, np.random.default_rng(4))

    def entropy(pooled: PooledTargets, boxes: np.ndarray) -> np.ndarray:
        return -np.log(pooled_at(pooled, index, boxes)[:, 0]).reshape(40, 200).mean(1)

    one, other = targets(top), targets(top.swapaxes(1, 2))
    exchanged = boxes[:, [1, 0, 3, 2]]  # as likely as the boxes themselves
    np.testing.assert_allclose(entropy(one, boxes), entropy(other, exchanged), rtol=1e-5)
    gain = entropy(one, boxes) - entropy(other, boxes)
    assert abs(gain.mean()) < 3 * gain.std(ddof=1) / 40**0.5


def test_many_boxes_are_pooled_some_at_a_time() -> None:
    def pooled(index: Tensor, boxes: Tensor) -> Tensor:
        assert len(index) <= 1024
        return torch.stack([index.float(), boxes[:, 0]], 1)

    index = np.arange(3000)
    boxes = np.random.default_rng(0).random((3000, 4)).astype(np.float32)
    np.testing.assert_allclose(pooled_at(pooled, index, boxes), np.stack([index, boxes[:, 0]], 1))
