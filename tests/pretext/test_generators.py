import pytest
import torch
from torch import nn

from ssl_app.pretext.parts.generators import ImageGenerator, plan_of, start_as_dcgan


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("side", [6, 13, 28, 46])
def test_any_side_and_number_of_channels_within_1(side: int, transposed: bool) -> None:
    torch.manual_seed(0)
    channels = side % 5
    images = ImageGenerator(10, channels, side, transposed=transposed)(100 * torch.randn(3, 10))
    assert images.shape == (3, channels, side, side)
    assert images.abs().max() <= 1
    assert not torch.equal(images[0], images[1])


def test_maps_start_at_4_to_8_pixels_and_reach_every_side() -> None:
    for side in range(4, 400):
        start, doublings = plan_of(side)
        assert 4 <= start <= 8
        assert side <= start * 2**doublings < side + 2**doublings
    assert plan_of(28) == (7, 2)
    assert plan_of(50) == (7, 3)
    assert plan_of(64) == (4, 4)


def test_the_center_is_kept_of_what_is_larger() -> None:
    torch.manual_seed(0)
    generator = ImageGenerator(4, 1, 50).eval()
    whole = []
    generator.last.register_forward_hook(lambda module, inputs, output: whole.append(output))
    images = generator(torch.randn(2, 4))
    assert whole[0].shape[2:] == (56, 56)
    assert torch.equal(images, whole[0][..., 3:53, 3:53].tanh())


def test_dcgans_widths_at_64_px() -> None:
    generator = ImageGenerator(100, 3, 64, transposed=True)
    layers = [layer for layer in [*generator.layers, generator.last] if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in layers] == [512, 256, 128, 64]
    assert layers[-1].out_channels == 3
    assert not any(isinstance(layer, nn.Upsample) for layer in generator.layers)


def test_dcgans_start() -> None:
    torch.manual_seed(0)
    generator = ImageGenerator(100, 3, 32, transposed=True)
    start_as_dcgan(generator)
    for layer in generator.modules():
        if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
            assert layer.weight.mean().item() == pytest.approx(0, abs=0.002)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert all(not parameter.any() for name, parameter in generator.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("transposed", [False, True])
def test_every_parameter_gets_a_gradient(transposed: bool) -> None:
    torch.manual_seed(0)
    generator = ImageGenerator(4, 1, 12, transposed=transposed)
    (generator(torch.randn(4, 4)) * torch.randn(4, 1, 12, 12)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in generator.parameters())


def test_images_are_float32_under_autocast() -> None:
    generator = ImageGenerator(4, 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = generator(torch.randn(2, 4))
    assert images.dtype == torch.float32
