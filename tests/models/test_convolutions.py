"""Weight gradients as products: equal to torch's, used where they are said to be, and nothing else changes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ssl_app import processor
from ssl_app.models import backbones, convolutions
from ssl_app.models.convolutions import Convolution, weight_gradient, with_fast_gradients

Shapes = list[tuple[int, ...]]


@pytest.fixture
def with_amx(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """As on a processor with AMX; shapes of the filters whose gradients were products."""
    monkeypatch.setattr(processor, "features", lambda: frozenset({"amx_bf16"}))
    found: Shapes = []

    def noted(*about: object) -> Tensor:
        result = weight_gradient(*about)  # type: ignore[arg-type]
        found.append(tuple(result.shape))
        return result

    monkeypatch.setattr(convolutions, "weight_gradient", noted)
    return found


@pytest.mark.parametrize(
    ("images", "filters", "stride", "padding"),
    [
        ((3, 4, 4, 4), (8, 4, 3, 3), 1, 1),
        ((2, 4, 7, 5), (3, 4, 3, 3), 2, 1),
        ((2, 6, 4, 4), (8, 6, 1, 1), 2, 0),
        ((2, 3, 9, 9), (4, 3, 5, 5), 3, 2),
        ((1, 2, 4, 6), (5, 2, 4, 4), 2, 0),
        ((2, 1, 3, 3), (5, 1, 3, 3), 1, 0),
    ],
)
def test_the_product_is_the_gradient(images: tuple[int, ...], filters: tuple[int, ...], stride: int, padding: int):
    x = torch.randn(images, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(filters, dtype=torch.float64, requires_grad=True)
    y = torch.conv2d(x, weight, None, stride, padding)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    assert weight.grad is not None
    found = weight_gradient(x, gradient, filters[-1], stride, padding)
    torch.testing.assert_close(found, weight.grad)


def test_a_network_learns_the_same(with_amx: Shapes) -> None:
    torch.manual_seed(0)
    backbone = backbones.build("small-resnet", 1, 16).to(memory_format=torch.channels_last)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # no block is its way around alone
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        if type(module) is Convolution:
            module.__class__ = nn.Conv2d
    assert list(plain.state_dict()) == list(backbone.state_dict())
    images = torch.rand(8, 1, 16, 16).contiguous(memory_format=torch.channels_last)
    outputs = []
    for network in (plain, backbone):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(network(images))
        outputs[-1].float().square().sum().backward()
    assert torch.equal(*outputs)
    for (name, one), other in zip(plain.named_parameters(), backbone.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert other.grad.dtype == torch.float32
        assert (one.grad - other.grad).norm() <= 0.02 * one.grad.norm(), name
    assert set(with_amx) == {(128, 64, 3, 3), (128, 128, 3, 3), (128, 64, 1, 1)} | {
        (256, 128, 3, 3), (256, 256, 3, 3), (256, 128, 1, 1)
    }  # fmt: skip


def test_a_bias_and_the_images_have_their_gradients(with_amx: Shapes) -> None:
    torch.manual_seed(0)
    one = nn.Conv2d(4, 64, 3, padding=1)
    other = copy.deepcopy(one)
    with_fast_gradients(nn.Sequential(other))
    images = torch.randn(3, 4, 4, 4)
    found = []
    for network in (one, other):
        given = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            network(given).float().square().sum().backward()
        found.append([given.grad, *(parameter.grad for parameter in network.parameters())])
    for left, right in zip(*found, strict=True):
        assert (left - right).norm() <= 0.02 * left.norm()
    assert with_amx == [(64, 4, 3, 3)]


@pytest.mark.parametrize("why", ["f32", "no gradient", "frozen", "a large map"])
def test_elsewhere_it_is_torchs(why: str, with_amx: Shapes) -> None:
    network = nn.Sequential(nn.Conv2d(2, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    with_fast_gradients(network)
    network.requires_grad_(why != "frozen")
    images = torch.randn(2, 2, *([5, 5] if why == "a large map" else [4, 4])).requires_grad_()
    with torch.set_grad_enabled(why != "no gradient"), torch.autocast("cpu", torch.bfloat16, enabled=why != "f32"):
        result = network(images)
    if why != "no gradient":
        result.float().sum().backward()
    assert with_amx == []


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 64, 3, groups=2),
        nn.Conv2d(4, 64, 3, dilation=2),
        nn.Conv2d(4, 64, 3, padding="same"),
        nn.Conv2d(4, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 64, (3, 1)),
        nn.Conv2d(4, 64, 3, stride=(1, 2)),
    ],
)
def test_convolutions_of_other_kinds_stay(other: nn.Conv2d) -> None:
    with_fast_gradients(nn.Sequential(other))
    assert type(other) is nn.Conv2d
