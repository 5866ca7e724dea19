import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from ssl_app.errors import SettingsError
from ssl_app.models import backbones
from ssl_app.models.backbones import build

SIZES = {"alexnet": 64, "vgg16_bn": 32}


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", backbones.CORE)
def test_every_core_backbone_works_with_any_channels(name, channels):
    size = SIZES.get(name, 32)
    backbone = build(name, channels, size).eval()
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone(images)
    assert features.shape == (2, *backbone.shape())
    assert features.isfinite().all()
    assert features.dim() == 2
    assert features.shape[1] <= 4096


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("alexnet", ("conv1", "conv2", "conv3", "conv4", "conv5")),
        ("nin", ("block1", "block2", "block3", "block4")),
        ("resnet18", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("small-resnet", ("stem", "stage1", "stage2", "stage3", "stage4")),
        ("vgg16_bn", ("block1", "block2", "block3", "block4", "block5")),
    ],
)
def test_layers_are_named_in_order_and_shrink(name, layers):
    size = 32 if name == "vgg16_bn" else 64
    backbone = build(name, 1, size)
    assert backbone.layers == layers
    shapes = [backbone.shape(layer) for layer in layers]
    sides = [shape[1] for shape in shapes]
    assert sides == sorted(sides, reverse=True)
    assert backbone.eval()(torch.zeros(2, 1, size, size), layers[1]).shape == (2, *shapes[1])


def test_known_sizes_of_the_papers():
    assert build("nin", 3, 32).shape("block2") == (192, 8, 8)
    assert build("nin", 3, 32).shape() == (192,)
    assert build("alexnet", 3, 224).shape("conv4") == (256, 13, 13)
    assert build("alexnet", 3, 224).shape() == (4096,)
    assert build("small-resnet", 1, 32).shape("stem") == (32, 32, 32)
    assert build("small-resnet", 1, 64).shape("stem") == (32, 32, 32)
    parameters = sum(p.numel() for p in build("small-resnet", 1, 64).parameters())
    assert 1.1e6 < parameters < 1.3e6


def test_resnet18_without_its_classifier_computes_what_torchvision_computes():
    theirs = torchvision.models.resnet18(weights=None).eval()
    ours = build("resnet18", 3, 64).eval()
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.body.load_state_dict(state)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))


def test_what_is_cut_is_after_relu_and_nothing_above_it_touches_it():
    backbone = build("alexnet", 3, 64).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = images
    for module in list(backbone.body.features)[:10]:
        expected = module(expected)
    conv4 = backbone(images, "conv4")
    assert torch.equal(conv4, expected)
    assert conv4.min() >= 0
    before_relu = backbone(images, "features.8")
    assert before_relu.min() < 0
    assert torch.equal(before_relu.relu(), conv4)


def test_computing_stops_at_the_layer_and_gradients_with_it():
    backbone = build("small-resnet", 1, 32)
    called = []
    backbone.body.stage3.register_forward_hook(lambda *_: called.append("stage3"))
    backbone(torch.randn(2, 1, 32, 32), "stage2").sum().backward()
    assert called == []
    assert backbone.body.stem[0].weight.grad is not None
    assert backbone.body.stage3.conv1.weight.grad is None
    assert not backbone.body.stage2._forward_hooks


def test_a_dry_run_leaves_modes_statistics_and_randomness_alone():
    backbone = build("resnet18", 1, 32)
    backbone.body.layer1.eval()
    modes = [module.training for module in backbone.modules()]
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    random = torch.get_rng_state()
    backbone.shape()
    backbone.shape("layer2")
    assert backbone.smallest_image == 1
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in backbone.modules()]
    assert all(torch.equal(state[name], tensor) for name, tensor in backbone.state_dict().items())


def test_the_same_seed_gives_the_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build("resnet18", 1, 32).state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_alexnet_says_how_small_an_image_may_be():
    with pytest.raises(SettingsError) as error:
        build("alexnet", 1, 32)
    assert str(error.value) == (
        "alexnet needs images of at least 63 px, --image-size is 32; type --image-size 64, or --backbone small-resnet"
    )
    assert build("alexnet", 1, 64).smallest_image == 63


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet81", "no backbone is named 'resnet81'; did you mean 'resnet18'?"),
        (
            "qqq",
            "no backbone is named 'qqq'; known: alexnet, nin, resnet18, resnet34, resnet50, small-resnet,"
            " vgg16_bn, another of torchvision's, or module:factory",
        ),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, sentence):
    with pytest.raises(SettingsError) as error:
        build(name, 1, 32)
    assert str(error.value) == sentence


def test_an_unknown_layer_is_told_the_nearest():
    with pytest.raises(SettingsError) as error:
        build("alexnet", 1, 64).shape("conv6")
    assert str(error.value).startswith("alexnet has no layer 'conv6'; did you mean 'conv")


class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3)
        self.fc = nn.Linear(6, 10)

    def forward(self, images):
        return self.fc(self.conv(images).mean(dim=(2, 3)))


def test_a_module_of_the_users_own_is_a_backbone(monkeypatch):
    module = types.ModuleType("own_networks")
    module.Own, module.gray_only, module.number = Own, lambda: Own(1), 3
    monkeypatch.setitem(sys.modules, "own_networks", module)
    assert build("own_networks:Own", 2, 16).shape() == (6,)
    assert build("own_networks:gray_only", 2, 16).body.conv.weight.shape == (6, 2, 3, 3)
    assert build("own_networks:Own", 2, 16).layers == ("conv",)
    with pytest.raises(SettingsError, match="'own_networks:number' is int, expected a function"):
        build("own_networks:number", 1, 16)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_other_networks_of_torchvision_lose_their_classifier(name):
    backbone = build(name, 1, 64)
    (width,) = backbone.shape()
    assert width <= 4096
    assert len(backbone.shape(backbone.layers[2])) == 3
