"""Class maps: the evidence of all places and the bias add up to the logits."""

import pytest
import torch
from torch import Tensor, nn

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, build
from ssl_app.models.heads import build_head
from ssl_app.training.class_maps import class_maps, mean_class_maps, spread
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble

CLASSES = 3


def classifier(name: str, layer: str | None, kind: str = "linear", side: int = 32) -> Classifier:
    torch.manual_seed(0)
    network = build(name, 1, side) if isinstance(name, str) else name
    shape = network.shape(layer)
    head = build_head(kind, shape, CLASSES)
    nn.init.normal_(head.last.weight)
    nn.init.normal_(head.last.bias)
    return Classifier(network, head, layer, torch.zeros(0, dtype=torch.int64)).eval()


def images(side: int = 32) -> Tensor:
    return torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("small-resnet", None, 32),
        ("small-resnet", "stage2", 32),  # pooled to a grid of 8 x 8 places, each its own
        ("nin", "block1", 26),  # 13 places pooled to 6 cells, which overlap
        ("small-resnet", "stage1+stage3+stage4", 32),
        ("vit-tiny", None, 32),
        ("alexnet", None, 64),
        ("resnet18", None, 32),
    ],
)
def test_evidence_and_bias_add_up_to_the_logits(name: str, layer: str | None, side: int) -> None:
    one = classifier(name, layer, side=side)
    found = class_maps(one, images(side))
    assert found.shape[:2] == (4, CLASSES)
    with torch.no_grad():
        expected = one(images(side))
    torch.testing.assert_close(found.sum((2, 3)) + one.head.last.bias, expected, atol=1e-3, rtol=1e-3)


def test_of_a_global_average_it_is_the_head_at_every_place() -> None:
    one = classifier("small-resnet", None)
    found = class_maps(one, images())
    maps = one.backbone(images(), "stage4")  # (4, 256, 4, 4)
    for row, column in ((0, 0), (3, 1)):
        expected = maps[:, :, row, column] @ one.head.last.weight.t() / 16
        torch.testing.assert_close(found[:, :, row, column], expected, atol=1e-5, rtol=1e-4)


def test_spreading_keeps_the_sum_and_the_places() -> None:
    evidence = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    finer = spread(evidence, 6, 6)
    torch.testing.assert_close(finer[:, :, :2, :2], (evidence[:, :, :1, :1] / 4).expand(-1, -1, 2, 2))
    torch.testing.assert_close(spread(evidence, 7, 5).sum((2, 3)), evidence.sum((2, 3)))


def test_the_map_of_an_ensemble_is_the_weighted_mean() -> None:
    members = [classifier("small-resnet", None), classifier("small-resnet", "stage3")]
    found = mean_class_maps(Ensemble(members, [3, 1]), images())
    one, other = (class_maps(member, images()) for member in members)
    torch.testing.assert_close(found, 0.75 * spread(one, 8, 8) + 0.25 * other)


def test_a_head_with_hidden_layers_is_refused() -> None:
    with pytest.raises(SettingsError, match="class maps need a linear head, the head is an mlp"):
        class_maps(classifier("small-resnet", None, "mlp"), images())


class Squared(nn.Module):
    """Pools the squares of its last map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.conv(x).square().mean((2, 3))
        return features


def test_features_that_are_not_the_mean_of_the_last_map_are_refused() -> None:
    network = Backbone("squared", 1, 16, Squared(), {"conv": "conv"})
    head = build_head("linear", network.shape(None), CLASSES)
    one = Classifier(network, head, None, torch.zeros(0, dtype=torch.int64)).eval()
    with pytest.raises(SettingsError, match="not the mean of its layer 'conv'"):
        class_maps(one, images(16))
    flat = Classifier(build("nin", 1, 16), build_head("linear", (192,), 2), "fc", torch.zeros(0)).eval()
    with pytest.raises(SettingsError, match="has no layer 'fc'"):
        class_maps(flat, images(16))
