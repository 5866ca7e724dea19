"""Receptive fields against the arithmetic of convolutions, and on networks whose fields are known."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_app.models.backbones import Backbone, build
from ssl_app.models.receptive_field import Box, receptive_fields
from tests.toys import assert_same_bits, bits

SIDE = 21


def by_taps(steps: list[tuple[int, int, int, int]], place: int) -> list[int]:
    """First pixel and one past the last that a unit reads through a chain of (kernel, stride, padding, dilation)."""
    sizes = [SIDE]
    for kernel, stride, padding, dilation in steps:
        sizes.append((sizes[-1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    read = {place}
    for (kernel, stride, padding, dilation), size in zip(reversed(steps), reversed(sizes[:-1]), strict=True):
        taps = {at * stride - padding + dilation * tap for at in read for tap in range(kernel)}
        read = {tap for tap in taps if 0 <= tap < size}  # the others are padding
    return [min(read), max(read) + 1]


def test_a_chain_has_the_fields_that_its_strides_and_kernels_give() -> None:
    body = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    )
    steps = [(5, 2, 1, 1), (3, 2, 1, 1), (3, 1, 2, 2)]
    found = receptive_fields(Backbone("chain", 1, SIDE, body), ["0", "3", "4"])
    for count, fields in enumerate(found, start=1):
        expected = [by_taps(steps[:count], place) for place in range(len(fields.rows))]
        assert fields.rows.tolist() == fields.columns.tolist() == expected


def test_a_kernel_that_is_no_square_has_a_field_that_is_none() -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, (1, 5), padding=(0, 2)))
    (fields,) = receptive_fields(Backbone("wide", 1, 8, body), ["0"])
    assert fields.largest == (1, 5)
    assert fields.box(3 * 8 + 4) == Box(top=3, left=2, bottom=4, right=7)
    assert fields.box(0) == Box(0, 0, 1, 3)
    assert not fields.whole


def test_a_branch_counts_though_its_weights_are_zero_and_a_relu_is_off() -> None:
    """The residual branches of a new small-resnet are zero, so no gradient knows of them."""
    (fields,) = receptive_fields(build("small-resnet", 1, 64), ["stage1"])
    assert fields.largest == (11, 11)
    images = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network = build("small-resnet", 1, 64).eval()
    network(images, "stage1")[0, :, 16, 16].sum().backward()
    assert images.grad is not None
    assert images.grad[0, 0].nonzero().max() - images.grad[0, 0].nonzero().min() + 1 == 3


def test_attention_sees_the_whole_image_and_its_patches_do_not() -> None:
    patches, block = receptive_fields(build("vit-tiny", 1, 32), ["patches", "block1"])
    assert block.whole
    assert patches.rows.tolist() == [[4 * n, 4 * n + 4] for n in range(8)]


def test_sobel_adds_a_pixel_on_each_side() -> None:
    (plain,), (filtered,) = (receptive_fields(build(f"small-resnet{end}", 1, 16), ["stem"]) for end in ("", "+sobel"))
    assert plain.box(5 * 16 + 5) == Box(4, 4, 7, 7)
    assert filtered.box(5 * 16 + 5) == Box(3, 3, 8, 8)


def test_features_without_a_map_are_one_unit() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (fields,) = receptive_fields(Backbone("pooled", 1, 12, body), ["2"])
    assert fields.whole
    assert len(fields.rows) == len(fields.columns) == 1


class Gate(nn.Module):
    """Weighs channels by their mean over the image, as squeeze and excitation does."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def test_a_gate_over_the_image_makes_the_field_the_image() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Gate())
    before, after = receptive_fields(Backbone("gated", 1, 12, body), ["0", "1"])
    assert before.largest == (3, 3)
    assert after.whole


def test_the_network_stays_as_it_was() -> None:
    network = build("nin", 3, 16).train()
    before, random = bits(network), torch.get_rng_state()
    receptive_fields(network, ["block2"])
    assert_same_bits(before, bits(network))
    assert network.training
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", ["nin", "alexnet"])
def test_no_gradient_leaves_the_box(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 1, 64 if name == "alexnet" else 16).eval()
    layer = network.layers[1]
    (fields,) = receptive_fields(network, [layer])
    rows, columns = len(fields.rows), len(fields.columns)
    for place in itertools.islice(range(rows * columns), 0, None, 7):
        images = torch.randn(4, 1, network.image_size, network.image_size).requires_grad_()
        network(images, layer).flatten(2)[:, :, place].sum().backward()
        assert images.grad is not None
        reached = np.argwhere(images.grad.abs().sum((0, 1)).numpy() > 0)
        box = fields.box(place)
        assert (reached.min(0) >= [box.top, box.left]).all()
        assert (reached.max(0) < [box.bottom, box.right]).all()
