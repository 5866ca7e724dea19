"""Frozen features in files: what the live network would compute, in one pass, once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training import frozen
from ssl_app.training.classifier import Classifier
from ssl_app.training.frozen import FrozenBackbone
from ssl_app.training.inference import pooled_features
from tests import toys

SIDE = 16
LAYERS = [None, "stem", "stage1", "stage3", "stage2+stage4"]


@pytest.fixture
def backbone(narrow: None) -> backbones.Backbone:
    torch.manual_seed(0)
    found = backbones.build("small-resnet", 1, SIDE)
    for norm in (module for module in found.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)  # residual branches begin at zero, and layers would be equal
    return found


def passes(backbone: backbones.Backbone) -> list[int]:
    """Images of each forward pass from here on, without the dry runs of one image that find shapes."""
    calls: list[int] = []
    backbone.body.register_forward_pre_hook(
        lambda module, inputs: calls.append(len(inputs[0])) if len(inputs[0]) > 1 else None
    )
    return calls


def test_kept_features_through_the_head_are_the_live_networks_logits(backbone, tmp_path: Path) -> None:
    rows = toys.rows(toys.images(40, SIDE))
    kept = FrozenBackbone(backbone, toys.CPU, tmp_path).features(LAYERS, rows, "set")
    images = torch.from_numpy(rows.images).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
    for layer, features in kept.items():
        head = build_head("linear", backbone.shape(layer), 5)
        torch.nn.init.normal_(head.last.weight)
        live = Classifier(backbone, head, layer, torch.zeros(0, dtype=torch.int64)).eval()
        with torch.no_grad():
            torch.testing.assert_close(head.layers(torch.tensor(features)), live(images), atol=1e-5, rtol=1e-5)


def test_all_layers_are_computed_in_one_pass_and_once(backbone, tmp_path: Path) -> None:
    rows = toys.rows(toys.images(40, SIDE))
    one = FrozenBackbone(backbone, toys.CPU, tmp_path)
    calls = passes(backbone)
    first = one.features(LAYERS[:3], rows, "set")
    assert sum(calls) == 40
    again = one.features(LAYERS[:3], rows, "set")
    assert sum(calls) == 40, "they lie in the cache"
    assert all(np.array_equal(first[layer], again[layer]) for layer in first)
    one.features(LAYERS, rows, "set")
    assert sum(calls) == 80, "one more pass for the layers that are missing"


def test_other_weights_pixels_or_images_have_other_features(backbone, tmp_path: Path) -> None:
    rows = toys.rows(toys.images(12, SIDE))
    one = FrozenBackbone(backbone, toys.CPU, tmp_path)
    one.features([None], rows, "set")
    one.features([None], replace(rows, indices=rows.indices[::-1].copy()), "set")
    one.features([None], replace(rows, scaling=toys.symmetric()), "set")
    one.features([None], rows, "another set")
    with torch.no_grad():
        next(backbone.parameters()).add_(0.1)
    one.features([None], rows, "set")
    assert len(list((tmp_path / frozen.FOLDER).iterdir())) == 5


def test_a_pass_that_breaks_off_leaves_nothing(backbone, tmp_path: Path, monkeypatch) -> None:
    rows = toys.rows(toys.images(12, SIDE))

    def full(store: object, row: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frozen.Store, "add", full)
    with pytest.raises(OSError, match="No space left") as error:
        FrozenBackbone(backbone, toys.CPU, tmp_path).features([None, "stem"], rows, "set")
    assert Path(error.value.filename).parent == tmp_path / frozen.FOLDER
    assert list((tmp_path / frozen.FOLDER).iterdir()) == []


def test_mirrored_is_the_mean_over_the_image_and_its_mirror_image(backbone, tmp_path: Path) -> None:
    rows = toys.rows(toys.images(12, SIDE))
    frozen.write({"stage3": tmp_path / "a.npy"}, backbone, rows, toys.CPU, mirrored=True)
    head = build_head("linear", backbone.shape("stage3"), 2)
    live = Classifier(backbone, head, "stage3", torch.zeros(0, dtype=torch.int64))
    expected = pooled_features(live, rows, toys.CPU, mirrored=True)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_corners_are_the_mean_over_five_crops(backbone, tmp_path: Path, mirrored: bool) -> None:
    packed = toys.images(12, SIDE + 5)
    rows = toys.rows(packed, SIDE)
    frozen.write({None: tmp_path / "a.npy"}, backbone, rows, toys.CPU, mirrored, corners=True)
    expected = np.zeros((12, backbone.shape()[0]))
    crops = [packed[:, y : y + SIDE, x : x + SIDE] for y, x in [(2, 2), (0, 0), (0, 5), (5, 0), (5, 5)]]
    views = [one for crop in crops for one in ((crop, crop[:, :, ::-1].copy()) if mirrored else (crop,))]
    for view in views:
        expected += pooled_features(_linear(backbone), toys.rows(view, SIDE), toys.CPU) / len(views)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)
    live = pooled_features(_linear(backbone), rows, toys.CPU, mirrored, corners=True)
    np.testing.assert_allclose(live, expected, atol=1e-5)


def test_without_a_margin_corners_are_the_center(backbone, tmp_path: Path) -> None:
    rows = toys.rows(toys.images(12, SIDE))
    seen = passes(backbone)
    frozen.write({None: tmp_path / "a.npy"}, backbone, rows, toys.CPU, corners=True)
    assert sum(seen) == 12
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pooled_features(_linear(backbone), rows, toys.CPU))


def _linear(backbone: backbones.Backbone) -> Classifier:
    return Classifier(backbone, build_head("linear", backbone.shape(), 2), None, torch.zeros(0, dtype=torch.int64))
