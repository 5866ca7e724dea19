"""What every registered backbone keeps: any channels, layers of the shapes that it says, a smallest image."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, Network, build, default_size, family
from ssl_app.registry import describe, find, names

OURS = names("models.backbones")
SIDES = dict.fromkeys(OURS, 32) | {"small-resnet+sobel": 32, "resnet18": 32, "squeezenet1_1": 32}
COUNT = 4


def make(name: str, channels: int = 1) -> Backbone:
    torch.manual_seed(2)
    return build(name, channels, SIDES[name])


def images(backbone: Backbone, side: int | None = None) -> Tensor:
    side = side or backbone.image_size
    return torch.randn(COUNT, backbone.channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", SIDES)
def test_it_gives_the_shapes_that_it_says(name: str, channels: int) -> None:
    backbone = make(name, channels).eval()
    assert len(backbone.shape()) == 1
    assert backbone.shape()[0] <= 4096
    for layer in (None, *backbone.layers):
        features = backbone(images(backbone), layer)
        assert features.shape == (COUNT, *backbone.shape(layer))
        assert features.isfinite().all()


@pytest.mark.parametrize("name", SIDES)
def test_its_maps_shrink_upwards_to_the_last_map(name: str) -> None:
    backbone = make(name)
    shapes = [backbone.shape(layer) for layer in backbone.layers]
    maps = [layer for layer, shape in zip(backbone.layers, shapes, strict=True) if len(shape) == 3]
    assert backbone.map_layer() == maps[-1]
    assert all(below[1] >= above[1] for below, above in pairwise(s for s in shapes if len(s) == 3))


@pytest.mark.parametrize("name", SIDES)
def test_an_image_counts_for_itself_alone_in_eval_mode(name: str) -> None:
    backbone = make(name).eval()
    for layer in (None, backbone.map_layer()):
        with torch.no_grad():
            together, alone = backbone(images(backbone), layer), backbone(images(backbone)[1:2], layer)
        torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SIDES)
def test_the_smallest_image_works_and_one_pixel_less_is_refused(name: str) -> None:
    smallest = make(name).smallest_image
    backbone = build(name, 1, smallest)
    assert backbone.smallest_image == smallest
    assert backbone.eval()(images(backbone)).isfinite().all()
    if smallest > 1:
        with pytest.raises(SettingsError) as error:
            build(name, 1, smallest - 1)
        assert error.value.expected == f"at least {smallest} px"
        assert error.value.fixes
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SIDES)
def test_gradients_move_every_parameter(name: str) -> None:
    backbone = make(name)
    before = {key: parameter.detach().clone() for key, parameter in backbone.named_parameters()}
    target = torch.randn(COUNT, *backbone.shape(), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(backbone.parameters(), 1e-3)  # moves whatever has a gradient
    for _ in range(3):  # what a branch that starts at zero holds back moves in the second step
        optimizer.zero_grad()
        (backbone(images(backbone)) - target).square().mean().backward()
        optimizer.step()
    assert [key for key, parameter in backbone.named_parameters() if torch.equal(parameter, before[key])] == []
    assert all(parameter.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.parametrize("name", SIDES)
def test_its_state_loads_into_another_one_and_the_seed_decides_its_weights(name: str) -> None:
    torch.manual_seed(7)
    other = build(name, 1, SIDES[name]).eval()
    backbone = make(name).eval()
    state = {key: tensor.clone() for key, tensor in make(name).state_dict().items()}
    assert all(torch.equal(state[key], tensor) for key, tensor in backbone.state_dict().items())
    assert not torch.equal(other(images(other)), backbone(images(backbone)))
    other.load_state_dict(state)
    assert torch.equal(other(images(other)), backbone(images(backbone)))


@pytest.mark.parametrize("name", SIDES)
def test_dry_runs_leave_modes_statistics_and_randomness_alone(name: str) -> None:
    backbone = make(name)
    first = next(iter(backbone.body.children()))
    first.eval()
    modes = [module.training for module in backbone.modules()]
    state = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    random = torch.get_rng_state()
    assert backbone.smallest_image <= SIDES[name]
    for layer in (None, backbone.map_layer(), *backbone.layers):
        backbone.shape(layer)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in backbone.modules()]
    assert all(torch.equal(state[key], tensor) for key, tensor in backbone.state_dict().items())
    assert not any(module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize("name", OURS)
def test_its_tensors_are_known_to_be_its(name: str) -> None:
    assert family(make(name).body.state_dict()) == name


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("side", [16, 31, 50, 61, 300])
def test_images_of_any_side_have_a_side_that_it_trains_at(name: str, side: int) -> None:
    chosen = default_size(name, max(side, make(name).smallest_image))
    assert chosen <= 224
    assert build(name, 1, chosen).image_size == chosen


@pytest.mark.parametrize("name", OURS)
def test_it_says_what_it_is(name: str) -> None:
    assert "(" in describe("models.backbones", name), "the first line names the network and its source"
    kind = find("models.backbones", name)
    assert issubclass(kind, Network)
    assert kind.__doc__ != Network.__doc__
    assert kind.layers
    assert kind.map_layer in kind.layers
    assert kind.optimizer.name in ("sgd", "adamw")
    assert 0 < kind.optimizer.lr < 1
    assert 0 <= kind.optimizer.weight_decay < 1


class Broken(Network):
    """Its last layer is for other channels than it has."""

    layers = ("conv",)
    smallest_image = 8

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        self.conv = torch.nn.Conv2d(channels + 1, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


def test_what_is_wrong_with_a_network_is_not_called_a_small_image() -> None:
    with pytest.raises(SettingsError) as error:
        build(f"{__name__}:Broken", 1, 16)
    assert "raises RuntimeError: Given groups=1, weight of size" in str(error.value)
    assert str(error.value).endswith("given images (1, 1, 16, 16); fix it")
