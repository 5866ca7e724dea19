"""Exported files in the hands of others: torchvision, timm, a detector, onnxruntime."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import ssl_app
from ssl_app import checkpoints, runs
from ssl_app.data.intensity import PixelScaling
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.models.stock import LAST
from ssl_app.training.classifier import Classifier
from ssl_app.transfer import trained

SIDE, CLASSES = 32, ("a", "b", "c")
SCALING = PixelScaling("range", 10.0, 240.0, (0.4,), (0.2,), "uint8")


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a finetune run of a network that nothing has trained: finetuned("resnet18", channels=1)."""
    out = tmp_path_factory.mktemp("export")

    def make(network: str, channels: int = 1, head: str = "linear") -> Path:
        folder = runs.new_run(out, None, "finetune", {})
        torch.manual_seed(0)
        backbone = backbones.build(network, channels, SIDE)
        one = Classifier(backbone, build_head(head, backbone.shape(), len(CLASSES)), None, torch.zeros(0))
        moved = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in moved:  # else all features are of one scale
            norm.running_mean.normal_(std=0.1)
        meta = {"kind": "classifier", "pixels": SCALING.to_json(), "backbone": network, "channels": channels}
        meta |= {"image_size": SIDE, "pack_side": SIDE, "classes": CLASSES, "head": head, "layer": None}
        checkpoints.write(folder / trained.CLASSIFIER, one.state_dict(), meta | {"bf16": False, "mirrored": False})
        runs.write_json(folder / runs.RESULT, {})
        return folder

    return make


@pytest.fixture(scope="module")
def gray(finetuned) -> Path:
    """A run of ResNet-18 on one channel."""
    return finetuned("resnet18")


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def exported(ssl, run: Path, path: Path, *words: object) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State and JSON."""
    answer = ssl("export", run, "--output", path, *words)
    assert answer.code == 0, answer.err
    return load_file(path), json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("network", ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v2", "densenet121"])
def test_a_classifier_of_gray_images_goes_into_torchvision(
    network: str, finetuned, gray, pictures, ssl, tmp_path: Path
) -> None:
    run = gray if network == "resnet18" else finetuned(network)
    state, about = exported(ssl, run, tmp_path / "e.safetensors", "--channels", 3)
    assert about["loads_into"] == f"torchvision.models.{network}(num_classes=3)"
    whole = torchvision.models.get_model(network, weights=None, num_classes=3)
    whole.load_state_dict(state, strict=True)
    assert (about["channels"], about["pixels"]["mean"]) == (3, [0.4] * 3)
    ours = trained.load_classifier(run).predictor.classifiers[0]
    with torch.no_grad():
        assert torch.allclose(whole.eval()(pictures.repeat(1, 3, 1, 1)), ours(pictures), atol=1e-4)


def test_every_last_layer_is_torchvisions() -> None:
    smallest = ("resnet18", "resnext50_32x4d", "wide_resnet50_2", "regnet_y_400mf", "shufflenet_v2_x0_5", "googlenet")
    smallest += ("inception_v3", "densenet121", "efficientnet_b0", "mobilenet_v2", "mnasnet0_5")
    for last, families in LAST.items():
        for family in families:
            name = next(one for one in smallest if one.startswith(family))
            how = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            with torch.device("cpu" if family == "regnet" else "meta"):
                network = torchvision.models.get_model(name, weights=None, num_classes=7, **how)
            assert network.get_submodule(last).out_features == 7
            end = [n for n, _ in network.get_submodule(last.split(".")[0]).named_parameters(last.split(".")[0])]
            assert end == [f"{last}.weight", f"{last}.bias"]


def test_a_backbone_lacks_the_last_layer_alone(gray, ssl, tmp_path: Path) -> None:
    state, _ = exported(ssl, gray, tmp_path / "b.safetensors", "--what", "backbone", "--channels", 3)
    found = torchvision.models.resnet18(weights=None).load_state_dict(state, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["fc.weight", "fc.bias"], [])


def test_an_exported_file_goes_into_timm(gray, ssl, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state, _ = exported(ssl, gray, tmp_path / "t.safetensors", "--channels", 3)
    timm.create_model("resnet18", num_classes=3).load_state_dict(state, strict=True)


def test_it_trains_as_the_body_of_a_detector(gray, ssl, tmp_path: Path) -> None:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    state, about = exported(ssl, gray, tmp_path / "d.safetensors", "--what", "backbone", "--channels", 3)
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    found = body.body.load_state_dict(state, strict=False)
    assert found.missing_keys == []
    assert all(name.endswith("num_batches_tracked") for name in found.unexpected_keys), "its norms are frozen"
    pixels = about["pixels"]
    detector = FasterRCNN(
        body,
        2,
        min_size=64,
        max_size=64,
        image_mean=pixels["mean"],
        image_std=pixels["std"],
        box_detections_per_img=5,
    )
    before = detector.backbone.body.conv1.weight.detach().clone()
    boxes = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    loss = sum(detector([torch.rand(3, 64, 64)], [boxes]).values())
    loss.backward()
    torch.optim.SGD(detector.parameters(), lr=0.01).step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, detector.backbone.body.conv1.weight)


def test_other_channels_are_refused(finetuned, ssl, tmp_path: Path) -> None:
    color = finetuned("small-resnet", channels=3)
    words = ["--output", tmp_path / "c.safetensors", "--channels"]
    assert ssl("export", color, *words, 4).error == (
        "the network is one on 3 channels, and only one gray channel is repeated; leave --channels out"
    )
    assert ssl("export", finetuned("small-resnet+sobel"), *words, 3).error.startswith(
        "the network is one on gradients"
    )
    assert ssl("export", color, "--format", "onnx", "--channels", 3).error == (
        "--channels is for weights, and an ONNX file takes the run's own; leave --channels out"
    )


def test_a_head_that_torchvision_has_not_is_called_head(finetuned, ssl, tmp_path: Path) -> None:
    state, about = exported(ssl, finetuned("small-resnet", head="mlp"), tmp_path / "m.safetensors")
    assert "head.0.weight" in state
    assert "loads_into" not in about


@pytest.mark.parametrize("what", ["classifier", "backbone"])
def test_onnx_gives_what_the_run_gives(what: str, finetuned, ssl, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    run, file = finetuned("small-resnet"), tmp_path / "n.onnx"
    result = ssl("export", run, "--format", "onnx", "--what", what, "--output", file, "--json").result
    assert result["difference"] <= 1e-4
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["input"] == {"name": "images", "shape": ["n", 1, SIDE, SIDE], "values": "as in the files"}
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    model = ssl_app.load(run, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 1), dtype=np.uint8)
    wanted = model.predict(images) if what == "classifier" else model.features(images)
    for count in (1, 2, 7):
        values = np.moveaxis(images[:count], -1, 1).astype(np.float32)
        (found,) = session.run([about["output"]], {"images": values})
        assert np.abs(found - wanted[:count]).max() <= 1e-4


def test_both_formats_of_a_run_keep_their_json(finetuned, ssl) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    run = finetuned("resnet18")
    assert ssl("export", run, "--channels", 3, "--json").code == 0
    before = (run / "export.json").read_bytes()
    assert ssl("export", run, "--format", "onnx", "--json").code == 0
    assert (run / "export.json").read_bytes() == before
    assert (run / "network.json").is_file()


def test_without_onnx_one_line_says_what_to_type(gray, ssl, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert ssl("export", gray, "--format", "onnx").error == (
        'onnx is not installed, which ONNX needs; type pip install "ssl-app[onnx]"'
    )
