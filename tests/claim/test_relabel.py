"""ReLabel: class maps and LabelPooling against slow references written from the definitions of the papers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from ssl_app.data import transforms
from ssl_app.data.class_maps import ClassMaps, Index, MapForm, dense, packed, unpacked
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.data.transforms import Frame
from ssl_app.errors import SettingsError
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.dense_classifier import DenseClassifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.label_pooling import PooledTargets, axis_weights, pooled_logits
from ssl_app.training.mixing import cutmix

CLASSES = 7


def bilinear(values: np.ndarray, y: float, x: float) -> float:
    """The value between the centers of four cells, which lie at whole numbers; the border's beyond it."""
    height, width = values.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
    below = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
    return float(above * (1 - (y - top)) + below * (y - top))


def brute_force(values: np.ndarray, box: tuple[float, float, float, float]) -> float:
    """RoIAlign with one bin, a loop over its samples (He et al., 2017, section 3). Box in cells: x0, y0, x1, y1."""
    x0, y0, x1, y1 = box
    rows, columns = max(1, math.ceil(y1 - y0)), max(1, math.ceil(x1 - x0))
    samples = [
        bilinear(values, y0 + (i + 0.5) * (y1 - y0) / rows - 0.5, x0 + (j + 0.5) * (x1 - x0) / columns - 0.5)
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(samples) / len(samples)


def random_boxes(count: int, seed: int) -> np.ndarray:
    """(n, 4) x0, y0, x1, y1 in [0, 1]; the first is the whole, the second a sliver."""
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    boxes = corners.reshape(count, 4)
    boxes[0], boxes[1] = (0, 0, 1, 1), (0.31, 0.2, 0.32, 0.9)
    return boxes


def sparse_of(logits: np.ndarray, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kept classes, their logits and the rest in full precision: pooling apart from rounding. (B, K, h, w)."""
    ids = np.argsort(-logits, axis=1)[:, :k]
    values = np.take_along_axis(logits, ids, 1)
    mass = np.exp(logits).sum(1) - np.exp(values).sum(1)
    return torch.from_numpy(ids), torch.from_numpy(values), torch.from_numpy(np.log(mass.clip(1e-300)))


def filled(logits: np.ndarray, k: int) -> np.ndarray:
    """The map that LabelPooling sees: classes that are not kept share the mass of the rest."""
    found = logits.copy()
    for image, row, column in np.ndindex(len(logits), *logits.shape[2:]):
        place = logits[image, :, row, column]
        others = np.argsort(-place)[k:]
        if len(others):
            found[image, others, row, column] = np.log(np.exp(place[others]).sum() / len(others))
    return found


@pytest.mark.parametrize("grid", [(5, 5), (3, 8), (1, 6), (1, 1)])
@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_separable_pooling_is_roi_align(grid: tuple[int, int], k: int) -> None:
    height, width = grid
    logits = np.random.default_rng(1).normal(0, 3, (20, CLASSES, *grid))
    boxes = random_boxes(20, seed=2)
    found = pooled_logits(*sparse_of(logits, k), torch.from_numpy(boxes), CLASSES).numpy()
    full, in_cells = filled(logits, k), boxes * [width, height, width, height]
    slow = [[brute_force(full[n, c], tuple(in_cells[n])) for c in range(CLASSES)] for n in range(20)]
    np.testing.assert_allclose(found, slow, atol=1e-9)
    numbered = torch.from_numpy(np.concatenate([np.arange(20.0)[:, None], in_cells], axis=1))
    theirs = roi_align(torch.from_numpy(full), numbered, 1, aligned=True)[:, :, 0, 0]
    np.testing.assert_allclose(found, theirs.numpy(), atol=1e-5)


def test_a_linear_ramp_gives_its_value_at_the_center_of_the_box() -> None:
    """Catches x taken for y, and an error of half a cell."""
    height, width = 6, 9
    ramp = np.arange(width)[None, :] + 0.5 + 100 * (np.arange(height)[:, None] + 0.5)
    boxes = np.array([[0.25, 0.3, 0.6, 0.8], [0.1, 0.5, 0.9, 0.7], [0.4, 0.2, 0.5, 0.9]])  # away from the border
    maps = torch.from_numpy(np.stack([ramp, 0 * ramp])[None].repeat(3, 0))
    ids = torch.tensor([0, 1])[None, :, None, None].expand(3, 2, height, width)
    found = pooled_logits(ids, maps, torch.zeros(3, height, width), torch.from_numpy(boxes), 2)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2 * width, (boxes[:, 1] + boxes[:, 3]) / 2 * height
    np.testing.assert_allclose(found[:, 0] - found[:, 1], x + 100 * y, atol=1e-9)


def test_weights_along_an_axis_add_up_to_one_and_stay_within_the_map() -> None:
    low, high = torch.tensor([-3.0, -2.0, 0.0, 5.5, 7.0, 2.0]), torch.tensor([2.0, -1.0, 6.0, 9.0, 9.0, 2.0])
    weights = axis_weights(low, high, 6)
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    torch.testing.assert_close(weights[0], axis_weights(torch.tensor([0.0]), torch.tensor([2.0]), 6)[0])
    assert weights[1].tolist() == [1, 0, 0, 0, 0, 0], "altogether outside: the nearest cell"
    assert weights[4].tolist() == [0, 0, 0, 0, 0, 1]
    torch.testing.assert_close(weights[2], torch.full((6,), 1 / 6))


def test_a_box_mirrored_with_its_map_has_the_same_label() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (8, CLASSES, 4, 5))
    boxes = random_boxes(8, seed=4)
    mirrored = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    one = pooled_logits(*sparse_of(logits, 2), torch.from_numpy(boxes), CLASSES)
    other = pooled_logits(*sparse_of(logits[..., ::-1].copy(), 2), torch.from_numpy(mirrored), CLASSES)
    torch.testing.assert_close(one, other)


# what a file keeps


def test_top_k_is_kept_and_the_rest_has_its_mass() -> None:
    logits = np.random.default_rng(5).normal(0, 4, (6, CLASSES, 3, 4)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for k in (1, 3, CLASSES):
        cells = packed(logits, k)
        assert cells.shape == (6, 2 * k + 1, 3, 4)
        assert cells[0].nbytes == (4 * k + 2) * 12
        ids, values, rest = unpacked(cells, k)
        np.testing.assert_array_equal(ids, np.argsort(-logits, 1)[:, :k])
        kept = np.take_along_axis(probabilities, ids, 1)
        np.testing.assert_allclose(np.exp(values), kept, rtol=0.01)
        if k < CLASSES:
            np.testing.assert_allclose(np.exp(rest), 1 - kept.sum(1), rtol=0.01, atol=1e-4)
        back = np.exp(dense(cells, k, CLASSES))
        np.testing.assert_allclose(back.sum(1), 1, atol=0.01)
        if k == CLASSES:
            np.testing.assert_allclose(back, probabilities, rtol=0.01)


def test_a_missing_class_is_no_logit_of_zero() -> None:
    """Of 1,000 classes, one has a logit of 10: zeros for those that are not kept would take 4 % of its mass."""
    logits = np.full((1, 1000, 2, 2), -30.0, np.float32)
    logits[:, 3] = 10.0
    maps = ClassMaps(form_of(1000, 1, (2, 2)), Index(np.array([5])), packed(logits, 1))
    target = PooledTargets(maps, np.array([5]))(torch.tensor([0]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert target.shape == (1, 1000)
    assert float(target[0, 3]) > 0.9999


# from a teacher


def form_of(classes: int, k: int, grid: tuple[int, int]) -> MapForm:
    return MapForm(tuple(f"c{n:04d}" for n in range(classes)), k, grid, {})


def teacher(
    backbone: str = "small-resnet", kind: str = "linear", layer: str | None = None, side: int = 16
) -> Classifier:
    torch.manual_seed(0)
    network = backbones.build(backbone, 1, side)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    head = build_head(kind, network.shape(layer), CLASSES)
    nn.init.normal_(head.last.weight)
    return Classifier(network, head, layer, torch.zeros(0, dtype=torch.int64)).eval()


def images(count: int = 4, side: int = 16) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("backbone", "layer", "side"),
    [
        ("small-resnet", None, 16), ("small-resnet", None, 18), ("nin", None, 16), ("vit-tiny", None, 16),
        ("resnet18", None, 64), ("small-resnet", "stage3+stage4", 16),
    ],
)  # fmt: skip
@torch.no_grad()
def test_the_mean_of_a_map_is_what_the_teacher_says(backbone: str, layer: str | None, side: int) -> None:
    one = teacher(backbone, layer=layer, side=64 if side == 64 else 16)
    found = DenseClassifier(Ensemble([one]))(images(side=side))
    assert found.shape[-1] > 1
    expected = one.probabilities(images(side=side)).float()
    torch.testing.assert_close(torch.softmax(found.mean((2, 3)), 1), expected, atol=1e-4, rtol=1e-3)
    maps = ClassMaps(
        form_of(CLASSES, CLASSES, tuple(found.shape[2:])), Index(np.arange(4)), packed(found.numpy(), CLASSES)
    )
    target = PooledTargets(maps, np.arange(4))(torch.arange(4), torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(4, 1))
    torch.testing.assert_close(target, expected, atol=0.01, rtol=0.02)


@torch.no_grad()
def test_a_head_with_hidden_layers_acts_on_each_place() -> None:
    one = teacher(kind="mlp")
    found = DenseClassifier(Ensemble([one]))(images())
    features = one.backbone(images(), "stage4")  # (4, D, h, w)
    for row, column in np.ndindex(*features.shape[2:]):
        expected = torch.log_softmax(one.head(features[:, :, row, column]), 1)
        torch.testing.assert_close(found[:, :, row, column], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_ensemble_is_the_mean_of_its_members_at_each_place() -> None:
    one, other = teacher(), teacher(layer="stage3+stage4")
    both = DenseClassifier(Ensemble([one, other], [1.0, 3.0]))(images())
    alone = [DenseClassifier(Ensemble([member]))(images()).exp() for member in (one, other)]
    torch.testing.assert_close(both.exp(), 0.25 * alone[0] + 0.75 * alone[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_maps_of_a_mirrored_predictor_are_mirrored_with_the_image() -> None:
    found = DenseClassifier(Ensemble([teacher()], mirrored=True))
    torch.testing.assert_close(found(images().flip(-1)), found(images()).flip(-1), atol=1e-5, rtol=1e-4)


def test_a_teacher_that_gives_no_maps_is_refused() -> None:
    with pytest.raises(SettingsError, match="has weights for each of 2x2 places, and gives no class maps"):
        DenseClassifier(Ensemble([teacher(layer="stage4")]))
    with pytest.raises(SettingsError, match="alexnet are no mean over the places of a map"):
        DenseClassifier(Ensemble([teacher("alexnet", side=96)]))


# the box of a crop


def pattern(side: int) -> np.ndarray:
    """An image whose pixels name their place: x and y of their center in shares of the side."""
    center = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.stack([*np.meshgrid(center, center), np.zeros((side, side), np.float32)], axis=-1)


@pytest.mark.parametrize("name", ["none", "light", "crop"])
@pytest.mark.parametrize(("size", "pack"), [(32, 37), (32, 32)])
@pytest.mark.parametrize("vertical", [False, True])
def test_the_box_says_which_pixels_a_view_shows(name: str, size: int, pack: int, vertical: bool) -> None:
    augmentation = transforms.preset(name, Frame(size, pack, 3, mirrors=True, vertical_flip=vertical))
    beyond = 0
    for seed in range(20):
        view, (x0, y0, x1, y1) = augmentation.located(pattern(pack), seed, 0)
        np.testing.assert_array_equal(view, augmentation(pattern(pack), seed, 0))
        beyond += min(x0, y0, 1 - x1, 1 - y1) < -1e-9
        inner = view[4:-4, 4:-4]  # away from what is padded or beyond the border
        for channel, low, high in ((0, x0, x1), (1, y0, y1)):
            margin = 4 * (high - low) / size
            if low >= 0 and high <= 1:
                assert inner[..., channel].min() == pytest.approx(low + margin, abs=0.6 / pack)
                assert inner[..., channel].max() == pytest.approx(high - margin, abs=0.6 / pack)
        assert (x1 - x0) * (y1 - y0) <= 1 + 1e-9
    assert (beyond > 0) == (name == "light"), "padded by reflection, and so partly outside"


@pytest.mark.parametrize("name", ["light", "crop"])
def test_a_loader_gives_the_box_of_each_first_view(name: str) -> None:
    """Pixels name their place, so that their mean over a view is the center of its box, mirrored or not."""
    packed_images = np.stack([pattern(24)] * 6)
    scaling = PixelScaling("dtype", 0.0, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "float32")
    rows = ImageRows(packed_images, np.arange(6), scaling, 16)
    augmentation = transforms.preset(name, rows.frame)
    loader = Loader(rows, augmentation, Batching(batch_size=6, seed=3, views=2, boxes=True))
    for batches in loader.epoch(0, 5):
        batch = batches[0].to(torch.device("cpu"), torch.channels_last).halved()
        assert batch.boxes is not None
        inside = (batch.boxes.min(1).values >= 0) & (batch.boxes.max(1).values <= 1)
        centers = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2
        means = batch.images.mean((2, 3))[:, :2]
        torch.testing.assert_close(means[inside], centers[inside], atol=0.02, rtol=0)
    without = Loader(rows, augmentation, Batching(batch_size=6, seed=3, views=2))
    for one, other in zip(loader.epoch(1, 2), without.epoch(1, 2), strict=True):
        assert other[0].boxes is None
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one[0].views, other[0].views, strict=True))
    with pytest.raises(SettingsError, match="Mixed does not say it"):
        Loader(rows, transforms.Mixed(augmentation), Batching(batch_size=6, seed=3, boxes=True))


@pytest.mark.parametrize("name", ["Rotate", "Perspective", "Affine", "RandomRotate90"])
def test_what_breaks_the_box_is_refused(name: str) -> None:
    import albumentations as A

    pipeline = transforms.Pipeline(Frame(16, 16), [getattr(A, name)()])
    with pytest.raises(SettingsError) as refused:
        pipeline.refuse_unlocated()
    assert str(refused.value) == (
        f"targets are pooled from the box of a crop, and {name} leaves none; expected crops, flips and changes of "
        "intensity; type another augment"
    )


# CutMix


def test_cutmix_weighs_by_the_area_that_it_pasted() -> None:
    """Images of one value each: what a mixed image shows of its partner is counted pixel by pixel."""
    count, side = 5, 24
    flat = torch.arange(1.0, count + 1)[:, None, None, None].repeat(1, 2, side, side)
    targets = torch.eye(count)
    shares = []
    for seed in range(40):
        mixed, weighed = cutmix(flat, targets, torch.Generator().manual_seed(seed))
        for own in range(count):
            counted = [float((mixed[own, 0] == other + 1).float().mean()) for other in range(count)]
            np.testing.assert_allclose(weighed[own], counted, atol=1e-6)
        shares.append(float(weighed[0].max()))
    assert flat[0].unique().tolist() == [1.0], "the batch itself is as it was"
    assert min(shares) < 0.7 < max(shares)


def test_a_map_that_is_not_there_is_none(tmp_path: Path) -> None:
    maps = ClassMaps(form_of(2, 1, (1, 1)), Index(np.array([-4, 7])), np.zeros((2, 3, 1, 1), np.uint16))
    np.testing.assert_array_equal(maps.rows_of(np.array([7, 3, -4, 9])), [1, -1, 0, -1])
