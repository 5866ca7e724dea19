import sys
import types
from functools import cache

import pytest
import torch
import torchvision
from torch import nn

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, Network, PreferredOptimizer, build, core, variant

built = cache(build)  # for what changes nothing of a network: to draw VGG's weights takes a second


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        pytest.param(name, n, marks=[pytest.mark.slow] * (name == "vgg16_bn" and n > 1))
        for name in core()
        for n in (1, 3, 5)
    ],
)
def test_every_core_backbone_works_with_any_channels(name, channels):
    size = 64 if name == "alexnet" else 32
    backbone = built(name, channels, size).eval()
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
        ("vit-tiny", ("patches", "block1", "block2", "block3", "block4", "block5", "block6", "norm")),
        ("vgg16_bn", ("block1", "block2", "block3", "block4", "block5")),
    ],
)
def test_layers_are_named_in_order_and_shrink(name, layers):
    size = 32 if name == "vgg16_bn" else 64
    backbone = built(name, 1, size)
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
    assert error.value.sentence(lambda name: f"--{name.replace('_', '-')}") == (
        "an image size of 32 px is too small for alexnet; expected at least 63 px; "
        "type --image-size 64, or --backbone small-resnet"
    )
    assert build("alexnet", 1, 64).smallest_image == 63


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet81", "no backbone is named 'resnet81'; did you mean 'resnet18'?"),
        (
            "qqq",
            f"no backbone is named 'qqq'; known: {', '.join(core())}, another of torchvision's, or module:factory",
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
    with pytest.raises(SettingsError, match="'own_networks:number' is int; expected a function"):
        build("own_networks:number", 1, 16)
    module.text = lambda: "a network"
    with pytest.raises(SettingsError, match=r"'own_networks:text' returned str; expected an nn\.Module"):
        build("own_networks:text", 1, 16)


class Named(Network):
    layers = ("first", "second")
    map_layer = "first"
    optimizer = PreferredOptimizer("adamw", lr=2e-3, weight_decay=0.05)

    def __init__(self, channels, image_size):
        super().__init__(channels, image_size)
        self.first = nn.Conv2d(channels, 6, 3)
        self.second = nn.Conv2d(6, image_size, 3)
        self.fc = nn.Linear(image_size, 7)

    def forward(self, images):
        return self.fc(self.second(self.first(images)).mean(dim=(2, 3)))


def test_a_network_of_the_users_own_says_its_layers_and_optimizer(monkeypatch):
    module = types.ModuleType("own_networks")
    module.Named = Named
    module.sized = lambda width, img_size: nn.Sequential(nn.Conv2d(width, img_size, 1))
    monkeypatch.setitem(sys.modules, "own_networks", module)
    backbone = build("own_networks:Named", 2, 16)
    assert (backbone.layers, backbone.map_layer(), backbone.optimizer) == (Named.layers, "first", Named.optimizer)
    assert backbone.shape("second") == (16, 12, 12)
    assert backbone.shape() == (7,)  # a Network ends as its author wants
    assert build("own_networks:sized", 2, 16).shape() == (16,)


class Tokens(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 4, 4)
        self.extra = nn.Parameter(torch.full((1, extra, 6), 100.0))
        self.block = nn.Identity()

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.extra.expand(len(images), -1, -1), tokens], 1))


@pytest.mark.parametrize("extra", [0, 1, 4])
def test_tokens_are_a_map_of_patches_in_rows_without_class_tokens(monkeypatch, extra):
    module = types.ModuleType("own_networks")
    module.make = lambda: Tokens(extra)
    monkeypatch.setitem(sys.modules, "own_networks", module)
    backbone = build("own_networks:make", 1, 16)
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = backbone(images, "patches")
    assert torch.equal(backbone(images, "block"), patches)
    torch.testing.assert_close(backbone(images), patches.mean((2, 3)))
    assert backbone.map_layer() == "patches"


def test_what_has_no_map_and_what_has_no_tokens_says_so():
    backbone = build("small-resnet", 1, 16)
    with pytest.raises(SettingsError) as error:
        backbone.embed(torch.zeros(2, 1, 16, 16))
    assert str(error.value) == ("small-resnet has no tokens; expected a vision transformer; type backbone vit-tiny")
    backbone = Backbone("flat", 1, 4, nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), {"last": "1"})
    with pytest.raises(SettingsError) as error:
        backbone.map_layer()
    assert str(error.value) == "flat has no named layer that gives a map; type another backbone"


def test_a_filter_that_is_not_known_is_told_the_one_that_is():
    with pytest.raises(SettingsError) as error:
        build("alexnet+canny", 1, 64)
    assert str(error.value) == "'alexnet+canny' names no filter that is known; type backbone alexnet+sobel"
    backbone = build("small-resnet+sobel", 3, 16)
    assert backbone.body.stem[0].in_channels == 2
    assert backbone.shape() == (256,)


def test_weights_fit_between_sizes_of_one_variant():
    assert variant("small-resnet", 32) == variant("small-resnet+sobel", 48) == "a stem of stride 1"
    assert variant("small-resnet", 49) == "a stem of stride 2"
    assert {variant(name, side) for name in ("nin", "resnet18", "own:network") for side in (32, 64)} == {""}


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_other_networks_of_torchvision_lose_their_classifier(name):
    backbone = build(name, 1, 64)
    (width,) = backbone.shape()
    assert width <= 4096
    assert len(backbone.shape(backbone.layers[2])) == 3


@pytest.mark.parametrize(
    ("side", "patch"), [(14, 2), (16, 2), (28, 4), (32, 4), (48, 6), (60, 6), (64, 8), (96, 12), (128, 16), (224, 16)]
)
def test_vit_tiny_cuts_images_into_7_to_16_patches_a_side(side, patch):
    backbone = build("vit-tiny", 1, side)
    assert (backbone.body.patch, backbone.body.grid) == (patch, side // patch)
    assert backbone.shape("norm") == (192, side // patch, side // patch)
    assert variant("vit-tiny", side) == f"patches of {patch} px"


@pytest.mark.parametrize(("side", "near"), [(15, 16), (31, 32), (62, 63), (300, 256)])
def test_vit_tiny_refuses_images_that_it_cannot_cut(side, near):
    with pytest.raises(SettingsError) as error:
        build("vit-tiny", 1, side)
    assert str(error.value) == (
        f"vit-tiny cannot cut an image of {side} px into 7 to 16 patches a side of at most 16 px;"
        f" type image_size {near}, or backbone small-resnet"
    )
    assert build("vit-tiny", 1, near).shape() == (192,)


def test_a_token_of_vit_tiny_is_the_patch_at_its_place_of_the_map():
    backbone = build("vit-tiny", 2, 32).eval()
    images = torch.zeros(1, 2, 32, 32)
    images[0, :, 9, 22] = 1  # row 2, column 5 of 8
    moved = (backbone.embed(images) - backbone.embed(torch.zeros_like(images))).abs().sum(2)
    assert moved[0].nonzero().tolist() == [[2 * 8 + 5]]
    map_moved = (backbone(images, "patches") - backbone(torch.zeros_like(images), "patches")).abs().sum(1)
    assert map_moved[0].nonzero().tolist() == [[2, 5]]


def test_vit_tiny_encodes_any_tokens_in_any_order():
    backbone = build("vit-tiny", 1, 32).eval()
    tokens = backbone.embed(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(backbone.encode(tokens)[:, order], backbone.encode(tokens[:, order]))
    some = backbone.encode(tokens[:, :16])
    tokens[:, 16:] = 9.0
    torch.testing.assert_close(some, backbone.encode(tokens[:, :16]))
    assert some.shape == (2, 16, 192)


def test_the_pooled_features_of_vit_tiny_are_the_mean_of_its_last_map():
    backbone = build("vit-tiny", 1, 32).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone(images), backbone(images, "norm").mean((2, 3)))


def test_the_same_vit_tiny_computes_images_of_other_sizes():
    backbone = build("vit-tiny", 1, 64).eval()
    images = torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    assert backbone(images, "norm").shape == (2, 192, 12, 12)
    assert backbone(images[..., :21, :21], "norm").shape == (2, 192, 3, 3)
    assert backbone(images[..., :5, :5]).isfinite().all()


@pytest.mark.parametrize("name", ["alexnet", "small-resnet", "nin", "vit-tiny"])
def test_several_layers_of_one_pass_are_those_of_a_pass_each(name):
    torch.manual_seed(0)
    backbone = build(name, 1, 64).eval()
    images = torch.randn(2, 1, 64, 64)
    layers = [*backbone.layers, "+".join(backbone.layers[-2:]), None]
    calls = []
    backbone.body.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    with torch.no_grad():
        found = backbone.reduced(images, {layer: lambda features: features for layer in layers})
        assert len(calls) == 1
        for layer in layers:
            torch.testing.assert_close(found[layer], backbone(images, layer))


@pytest.mark.parametrize(("name", "joined"), [("alexnet", "conv3+conv5"), ("small-resnet", "stage3+stage4")])
def test_joined_layers_are_pooled_and_follow_one_another(name, joined):
    backbone = build(name, 1, 64).eval()
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = backbone(images, joined)
        alone = [backbone(images, layer).mean((2, 3)) for layer in joined.split("+")]
    torch.testing.assert_close(found, torch.cat(alone, 1))
    assert backbone.shape(joined) == found.shape[1:]
    with pytest.raises(SettingsError, match="has no layer 'stage9'"):
        backbone(images, "stem+stage9" if name == "small-resnet" else "conv1+stage9")
