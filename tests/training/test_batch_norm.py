"""Batch-norm statistics, against plain sums over all images."""

import copy

import pytest
import torch
from torch import nn

from ssl_app.data.batch import Batch
from ssl_app.models.backbones import Backbone, build
from ssl_app.training import batch_norm
from ssl_app.training.batch_norm import as_in_use, of_the_batch, recalibrate, sample
from ssl_app.training.task import BatchFunction


def plain_statistics(backbone: Backbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean and variance of what each batch norm is given when all images go through at once."""
    inputs: dict[str, torch.Tensor] = {}
    norms = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    hooks = [
        norm.register_forward_pre_hook(lambda module, given, name=name: inputs.update({name: given[0].clone()}))
        for name, norm in norms.items()
    ]
    backbone.train()
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, given in inputs.items():
        values = given.double().transpose(0, 1).flatten(1).numpy()
        found[f"{name}.running_mean"] = torch.from_numpy(values.mean(1)).float()
        found[f"{name}.running_var"] = torch.from_numpy(values.var(1)).float()
    return found


class Pieces:
    """map_dataset of one of several processes, its images in pieces; `others` are the rows that they have."""

    def __init__(self, images: torch.Tensor, mine: slice, others: tuple[torch.Tensor, ...] = ()) -> None:
        self.images, self.index, self.others = images, torch.arange(len(images))[mine], others

    def local(self, fn: BatchFunction, *, as_trained: bool = False) -> torch.Tensor:
        shown = self.index if len(self.index) else torch.tensor([0])  # a process without images is shown one
        found = [fn(Batch((self.images[index],), index, None, 0)) for index in shown.split(300)]
        return torch.cat(found)[: len(self.index)]

    def all_gather(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows, *self.others])


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (2048, 2048), (2049, 1025), (5000, 1667)])
def test_a_sample_is_every_kth_image_in_order(count: int, expected: int) -> None:
    images = torch.arange(float(count)).view(-1, 1, 1, 1)
    found = sample(count, Pieces(images, slice(None))).flatten()
    assert len(found) == expected
    assert len(found.diff().unique()) == 1


def test_processes_make_no_difference_to_a_sample_even_one_without_images() -> None:
    images = torch.randn(3000, 1, 2, 2)
    whole = sample(3000, Pieces(images, slice(None)))
    second = sample(3000, Pieces(images, slice(1000, None)))
    first = sample(3000, Pieces(images, slice(0, 1000), (second,)))
    assert torch.equal(first, whole)
    assert len(sample(3000, Pieces(images, slice(0, 0)))) == 0


def test_large_images_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "MOST_NUMBERS", 2**12)
    images = torch.zeros(1, 1, 1, 1).expand(9, 3, 32, 32)  # 2**12 numbers hold one and a third
    assert len(sample(9, Pieces(images, slice(None)))) == 2


def test_statistics_are_those_of_all_images_at_any_depth() -> None:
    torch.manual_seed(0)
    network = build("small-resnet", 2, 16).train()
    images = torch.randn(40, 2, 16, 16) * 3 + 1
    expected = plain_statistics(copy.deepcopy(network), images)
    recalibrate(network, images)
    state = network.state_dict()
    assert len(expected) == 2 * 12
    for name, values in expected.items():
        torch.testing.assert_close(state[name], values, atol=1e-3, rtol=0.03)  # n or n - 1 in a variance
    assert all(norm.momentum == 0.1 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
    assert all(module.training for module in network.modules())


def test_it_does_not_matter_that_images_are_sorted_by_class(narrow: None) -> None:
    torch.manual_seed(0)
    network = build("small-resnet", 1, 16)
    images = torch.randn(1200, 1, 16, 16) + torch.linspace(-2, 2, 1200).view(-1, 1, 1, 1)
    expected = plain_statistics(copy.deepcopy(network), images)
    recalibrate(network, images)
    for name, values in expected.items():
        ratio = (network.state_dict()[name] + 0.01) / (values + 0.01) if name.endswith("var") else torch.ones(1)
        assert float(ratio.min()) > 0.8, name
        assert float(ratio.max()) < 1.25, name


def test_maps_of_one_pixel_are_no_obstacle() -> None:
    network = build("resnet18", 1, 32).eval()
    recalibrate(network, torch.randn(513, 1, 32, 32))
    assert all(torch.isfinite(buffer).all() for buffer in network.buffers())


def test_going_by_the_batch_keeps_nothing_of_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with of_the_batch(network):
        out = network(torch.randn(6, 1, 8, 8))
    assert out.mean((0, 2, 3)).abs().max() < 1e-5
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network[1].track_running_stats
    assert not any(module.training for module in network.modules())


def test_in_use_it_goes_by_what_it_has_and_learns_nothing() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).train()
    network(torch.randn(6, 1, 8, 8))
    images, mean = torch.randn(6, 1, 8, 8), network[1].running_mean.clone()
    with as_in_use(network):
        assert torch.equal(network(images)[:2], network(images[:2]))
    assert torch.equal(network[1].running_mean, mean)
    assert all(module.training for module in network.modules())


def test_nothing_is_dropped_while_statistics_are_taken() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    images = torch.randn(40, 3)
    recalibrate(network, images)
    torch.testing.assert_close(network[1].running_mean, images.mean(0))


def test_what_did_not_train_before_does_not_after() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).train()
    network[0].eval()
    with as_in_use(network):
        pass
    assert [norm.training for norm in network] == [False, True]
