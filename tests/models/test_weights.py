import argparse
import pickle
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from ssl_app.errors import CheckpointError
from ssl_app.models.backbones import build
from ssl_app.models.weight_files import read_weights
from ssl_app.models.weights import adapt_first_conv, load_backbone


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).state_dict()


def test_one_channel_answers_gray_as_three_equal_channels_do():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 5, 5, generator=generator)
    gray = torch.randn(2, 1, 16, 16, generator=generator)
    three = torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), weight)
    one = torch.nn.functional.conv2d(gray, adapt_first_conv(weight, 1))
    assert torch.allclose(three, one, atol=1e-5)


def test_more_channels_tile_the_filters_and_keep_the_response():
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    five = adapt_first_conv(weight, 5)
    assert five.shape == (8, 5, 3, 3)
    assert torch.allclose(five[:, 3], weight[:, 0] * 3 / 5)
    assert torch.allclose(adapt_first_conv(weight, 6).sum(1), weight.sum(1), atol=1e-6)
    assert adapt_first_conv(weight, 3) is weight


@pytest.mark.parametrize("prefix", ["", "body.", "module.", "module.body.", "backbone.body.", "_orig_mod."])
def test_names_may_carry_prefixes_and_heads_do_not_count(theirs, prefix):
    backbone = build("resnet18", 3, 32)
    sentence = load_backbone(backbone, {prefix + name: t for name, t in theirs.items()}, "weights.pth")
    shown = "" if prefix in ("", "body.", "backbone.body.") else f", named '{prefix}*'"
    assert sentence == f"120 of 120 backbone tensors from weights.pth{shown}"
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in backbone.body.state_dict().items())


def test_a_color_file_is_adapted_to_gray_and_it_is_said(theirs):
    backbone = build("resnet18", 1, 32)
    sentence = load_backbone(backbone, theirs, "imagenet.pth")
    assert sentence == ("120 of 120 backbone tensors from imagenet.pth; conv1.weight adapted from 3 channels to 1")
    assert torch.allclose(backbone.body.conv1.weight, theirs["conv1.weight"].sum(1, keepdim=True))


def test_another_architecture_is_named_and_the_backbone_left_alone(theirs):
    backbone = build("small-resnet", 1, 32)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_backbone(backbone, theirs, "weights.pth")
    count = len(backbone.body.state_dict())
    assert str(error.value) == (
        f"weights.pth: 0 of {count} backbone tensors fit small-resnet, stem.0.weight is missing;"
        " type backbone resnet18, which the file looks like"
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_one_tensor_that_is_missing_or_misshapen_is_named(theirs):
    backbone = build("resnet18", 3, 32)
    lacking = {name: tensor for name, tensor in theirs.items() if name != "layer4.1.bn2.bias"}
    with pytest.raises(CheckpointError, match=r"119 of 120 backbone tensors fit resnet18, layer4.1.bn2.bias is"):
        load_backbone(backbone, lacking, "w.pth")
    with pytest.raises(CheckpointError, match=r"conv1.weight is 64x3x3x3, expected 64x3x7x7"):
        load_backbone(backbone, theirs | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"bn1.bias is not finite"):
        load_backbone(backbone, theirs | {"bn1.bias": torch.full((64,), torch.nan)}, "w.pth")


@pytest.mark.parametrize("name", ["small-resnet", "nin", "alexnet", "resnet18"])
def test_what_is_saved_loads(name, tmp_path):
    torch.manual_seed(0)
    first, second = build(name, 1, 64), build(name, 1, 64)
    save_file(first.state_dict(), tmp_path / "b.safetensors")
    count = len(first.state_dict())
    sentence = load_backbone(second, read_weights(tmp_path / "b.safetensors"), "run 7")
    assert sentence == f"{count} of {count} backbone tensors from run 7"
    assert all(torch.equal(second.state_dict()[n], tensor) for n, tensor in first.state_dict().items())


def others(theirs):
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in theirs.items()}


def lightning(theirs):
    return {"pytorch-lightning_version": "2.4", "state_dict": {f"net.backbone.{k}": t for k, t in theirs.items()}}


def mae(theirs):
    args = argparse.Namespace(lr=np.float64(0.1), epochs=300)
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"model": theirs, "optimizer": moments, "epoch": 299, "args": args}


@pytest.mark.parametrize(
    ("made", "prefix"),
    [
        (lambda theirs: theirs, ""),
        (lambda theirs: {"epoch": 3, "state_dict": theirs}, "state_dict."),
        (lightning, "state_dict.net.backbone."),
        (mae, "model."),
        (lambda theirs: {"ema": {"shadow": {f"module.{k}": t for k, t in theirs.items()}}}, "ema.shadow.module."),
        (
            lambda theirs: {f"a.encoder.{k}": t for k, t in theirs.items()} | {"a.head.weight": torch.ones(2, 2)},
            "a.encoder.",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "bin"])
def test_tensors_are_found_where_training_scripts_put_them(theirs, made, prefix, suffix, tmp_path):
    torch.save(made(theirs), tmp_path / f"w.{suffix}")
    backbone = build("resnet18", 3, 32)
    sentence = load_backbone(backbone, read_weights(tmp_path / f"w.{suffix}"), "w")
    assert sentence == "120 of 120 backbone tensors from w" + (f", named '{prefix}*'" if prefix else "")
    assert torch.equal(backbone.body.state_dict()["conv1.weight"], theirs["conv1.weight"])


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("student.", "teacher.", ("student", "teacher")),
        ("module.encoder_k.", "module.encoder_q.", ("encoder_k", "encoder_q")),
        ("model.", "ema.model.", ("model", "ema")),
    ],
)
def test_of_two_networks_in_one_file_neither_is_taken_until_one_is_named(theirs, one, other, names):
    both = {f"{one}{k}": t for k, t in theirs.items()} | {f"{other}{k}": t for k, t in others(theirs).items()}
    backbone = build("resnet18", 3, 32)
    with pytest.raises(CheckpointError) as error:
        load_backbone(backbone, both, "w.pth")
    assert error.value.notice.found == (f"w.pth holds 2 networks that fit, '{one.strip('.')}', '{other.strip('.')}'")
    assert error.value.notice.fixes[0].value == f"w.pth:{names[1]}"
    load_backbone(backbone, both, "w.pth", names[1])
    assert torch.equal(backbone.body.state_dict()["conv1.weight"], theirs["conv1.weight"] + 1)
    load_backbone(backbone, both, "w.pth", one.strip("."))
    assert torch.equal(backbone.body.state_dict()["conv1.weight"], theirs["conv1.weight"])
    with pytest.raises(CheckpointError, match="holds no network under 'momentum'"):
        load_backbone(backbone, both, "w.pth", "momentum")


def test_the_same_network_under_two_names_is_one(theirs):
    twice = {f"{prefix}{k}": t for k, t in theirs.items() for prefix in ("model.", "best.")}
    assert load_backbone(build("resnet18", 3, 32), twice, "w.pth").startswith("120 of 120")


def test_counters_that_old_files_lack_are_no_tensors_that_fit(theirs):
    old = {name: tensor for name, tensor in theirs.items() if not name.endswith("num_batches_tracked")}
    sentence = load_backbone(build("resnet18", 3, 32), old, "old.pth")
    assert sentence == "100 of 120 backbone tensors from old.pth; 20 counters of batch norm are not in it"


def test_a_pickle_of_another_tool_is_named(theirs, tmp_path, monkeypatch):
    module = types.ModuleType("lightning.settings")
    module.Hyper = type("Hyper", (), {"__module__": "lightning.settings"})
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.settings", module)
    torch.save({"state_dict": theirs, "hyper_parameters": module.Hyper()}, tmp_path / "w.ckpt")
    with pytest.raises(
        CheckpointError, match="holds more than tensors: it is a Lightning checkpoint, and running what"
    ):
        read_weights(tmp_path / "w.ckpt")


class Malicious:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_malicious_pickle_is_refused_in_one_line(write, tmp_path, capsys):
    write({"state_dict": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError) as error:
        read_weights(tmp_path / "evil.pth")
    assert "holds more than tensors" in str(error.value)
    assert ", and running what a file brings along is refused" in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_what_is_not_weights_is_refused(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "text.pth").write_text("hello, these are no weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"a": torch.zeros(99)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:700])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    expected = {
        "missing.pth": "does not exist; expected a file of weights",
        "folder.pth": "is a folder; expected a file of weights",
        "text.pth": "holds no weights: it is no file of torch.save, and no safetensors",
        "empty.pth": "holds no weights: it is no file of torch.save, and no safetensors",
        "cut.pth": "cannot be read",
        "text.safetensors": "cannot be read as safetensors",
        "notes.txt": "holds no weights: it is no file of torch.save, and no safetensors",
        "list.pth": "holds list without named tensors; expected a state_dict",
    }
    for name, words in expected.items():
        with pytest.raises(CheckpointError) as error:
            read_weights(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name} {words}"), str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid 0\n", "a pointer of Git LFS; run git"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; run git lfs pull"),
        ("a.pth", b"\n<!DOCTYPE html><html>sign in</html>", "a web page, as a server answers in place of a file; d"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as of Keras or MATLAB; write"),
        ("a.gguf", b"GGUF\x03\0\0\0" + bytes(99), "a GGUF file; write it as safetensors"),
        ("a.pth.gz", b"\x1f\x8b\x08" + bytes(99), "compressed by gzip; unpack it"),
    ],
)  # fmt: skip
def test_a_file_that_came_in_the_place_of_weights_is_named(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_weights(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name} holds no weights that are read: it is {words}")


def test_a_compiled_network_is_named(tmp_path):
    """TorchScript is code: it is neither run nor called damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "traced.pt")
    with pytest.raises(CheckpointError, match=r"holds a compiled network \(TorchScript\).*; run torch.save"):
        read_weights(tmp_path / "traced.pt")


def test_the_networks_of_momentum_methods_are_told_apart(theirs):
    """MoCo's names: an encoder for queries and its moving average for keys, in one file under `state_dict`."""
    both = {
        f"module.encoder_{one}.{name}": tensor * (1 + (one == "k")) for one in "qk" for name, tensor in theirs.items()
    }
    backbone = build("resnet18", 3, 64)
    with pytest.raises(CheckpointError) as error:
        load_backbone(backbone, both, "moco.pth")
    assert "encoder_k" in str(error.value)
    assert "encoder_q" in str(error.value)
