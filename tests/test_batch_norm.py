"""Batch-norm statistics, against plain sums over all images."""

import torch
from torch import nn

from ssl_app.batch_norm import as_in_use, of_the_batch, recalibrate
from ssl_app.data.batch import Batch
from ssl_app.models.backbones import Backbone, build


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
    """over_all of one of several processes, its images in pieces; totals add what the others have."""

    def __init__(self, images: torch.Tensor, piece: int, others: list[list[torch.Tensor]], mine: int) -> None:
        self.images, self.piece, self.others, self.mine = images, piece, others, mine
        self.given: list[torch.Tensor] = []

    def share(self, ask, *, as_trained=False):
        with torch.no_grad():
            return torch.cat(
                [ask(Batch((p,), torch.arange(len(p)), None, 0)) for p in self.images.split(self.piece)]
            )[: self.mine]

    def total(self, values):
        self.given.append(values)
        return values + sum(other[len(self.given) - 1] for other in self.others)


def test_several_processes_pieces_and_leftovers_make_no_difference_to_the_first_layer() -> None:
    def one_norm() -> Backbone:
        torch.manual_seed(1)
        body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return Backbone("own", 2, 8, body)

    images = torch.randn(101, 2, 8, 8) * 3 + 1
    others: list[list[torch.Tensor]] = []
    shares = [(images[:70], 70), (images[70:], 31), (images[:1], 0)]  # the last looks at one and has none
    for some, mine in shares:
        process = Pieces(some, 23, others[:], mine)
        backbone = one_norm().eval()
        recalibrate(backbone, process)
        others.append(process.given)
    expected = plain_statistics(one_norm(), images)
    norm = backbone.body[1]
    torch.testing.assert_close(norm.running_mean, expected["body.1.running_mean"])
    torch.testing.assert_close(norm.running_var, expected["body.1.running_var"])
    assert norm.momentum == 0.1
    assert not norm._forward_pre_hooks


def test_one_image_left_over_and_maps_of_one_pixel_are_no_obstacle() -> None:
    network = build("resnet18", 1, 32).eval()
    images = torch.randn(5, 1, 32, 32)
    recalibrate(network, Pieces(images, 4, [], 5))
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
