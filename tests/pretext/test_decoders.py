import math

import pytest
import torch

from ssl_app.models.backbones import build
from ssl_app.pretext.parts.decoders import Decoder, mean_within, psnr_gain, sides_between


@pytest.mark.parametrize(("start", "side", "sides"), [
    (4, 32, [8, 16, 32]),
    (3, 64, [8, 16, 32, 64]),  # AlexNet
    (7, 28, [14, 28]),
    (6, 48, [12, 24, 48]),
    (4, 30, [8, 15, 30]),
    (8, 8, [8]),
    (16, 8, [8]),  # a map finer than what is drawn
    (1, 2, [2]),
])  # fmt: skip
def test_maps_about_double_up_to_the_image(start, side, sides):
    assert sides_between(start, side) == sides


@pytest.mark.parametrize(("shape", "channels", "side"), [
    ((256, 4, 4), 3, 32),
    ((256, 3, 3), 5, 64),
    ((12, 8, 8), 1, 30),
    ((64, 16, 16), 313, 8),
])  # fmt: skip
def test_it_draws_any_side_from_any_map(shape, channels, side):
    torch.manual_seed(0)
    drawn = Decoder(shape, channels, side)(torch.randn(2, *shape))
    assert drawn.shape == (2, channels, side, side)
    assert 0.05 < drawn.std() < 3


def test_what_is_drawn_is_float32_under_autocast_too():
    decoder = Decoder((32, 4, 4), 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decoder(torch.randn(2, 32, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize(("name", "side"), [("small-resnet", 32), ("resnet18", 64)])
def test_it_is_small_beside_the_trunk(name, side):
    trunk = build(name, 3, side)
    decoder = Decoder(trunk.shape(trunk.map_layer()), 3, side)
    numbers = [sum(p.numel() for p in module.parameters()) for module in (decoder, trunk)]
    assert numbers[0] < 0.15 * numbers[1]


def test_each_part_of_the_map_draws_its_own_part_of_the_image():
    torch.manual_seed(0)
    decoder = Decoder((8, 4, 4), 1, 32).eval()
    features = torch.randn(1, 8, 4, 4)
    other = features.clone()
    other[..., 0, 0] += 1
    changed = (decoder(features) != decoder(other))[0, 0]
    assert changed[:8, :8].any()
    assert not changed[24:, 24:].any()


def test_a_mean_within_nothing_is_0_and_leaves_a_gradient():
    values = torch.randn(2, 3, 4, 4, requires_grad=True)
    nothing = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mean = mean_within(values, nothing)
    mean.backward()
    assert mean == 0
    assert not values.grad.any()
    half = nothing.clone()
    half[0, 0, :2] = True
    torch.testing.assert_close(mean_within(values, half), values[0, :, :2].mean())


def test_gain_is_the_difference_of_two_psnrs():
    before, after = torch.tensor(0.04), torch.tensor(0.01)
    peak = 2.0
    psnr = [10 * math.log10(peak**2 / float(error)) for error in (before, after)]
    assert float(psnr_gain(before, after)) == pytest.approx(psnr[1] - psnr[0], abs=1e-5)
    assert float(psnr_gain(torch.zeros(()), torch.zeros(()))) == 0
