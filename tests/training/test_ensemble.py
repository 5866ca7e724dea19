import numpy as np
import pytest
import torch

from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.inference import pooled_features, probabilities
from tests import toys

CLASSES, SIDE = 3, 16


@pytest.fixture
def members(narrow: None) -> list[Classifier]:
    """Two heads on one network, on its end and on two layers, and one on another network."""
    torch.manual_seed(0)
    shared, other = (backbones.build("small-resnet", 1, SIDE) for _ in range(2))
    found = []
    for backbone, layer in ((shared, None), (shared, "stage3+stage4"), (other, None)):
        head = build_head("linear", backbone.shape(layer), CLASSES)
        torch.nn.init.normal_(head.last.weight)
        found.append(Classifier(backbone, head, layer, torch.zeros(0, dtype=torch.int64)).eval())
    return found


def images() -> torch.Tensor:
    return torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_it_is_the_weighted_mean_of_the_members_probabilities(members: list[Classifier]) -> None:
    with torch.no_grad():
        found = Ensemble(members, [1, 2, 5]).probabilities(images())
        alone = [torch.softmax(one(images()).double(), 1) for one in members]
    expected = (alone[0] + 2 * alone[1] + 5 * alone[2]) / 8
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))


def test_mirrored_an_image_and_its_mirror_image_are_one(members: list[Classifier]) -> None:
    with torch.no_grad():
        ensemble = Ensemble(members, mirrored=True)
        found, other = ensemble.probabilities(images()), ensemble.probabilities(images().flip(-1))
        logits = [(one(images()) + one(images().flip(-1))) / 2 for one in members]
    torch.testing.assert_close(found, other)
    torch.testing.assert_close(found, torch.stack([torch.softmax(one.double(), 1) for one in logits]).mean(0))


def test_a_network_that_members_share_computes_a_layer_once(members: list[Classifier]) -> None:
    twice = Classifier(members[0].backbone, members[0].head, None, torch.zeros(0, dtype=torch.int64))
    calls: list[int] = []
    members[0].backbone.register_forward_hook(lambda *about: calls.append(1))
    with torch.no_grad():
        Ensemble([members[0], twice]).probabilities(images())
    assert len(calls) == 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_by_features_it_says_the_same_as_by_images(members: list[Classifier], mirrored: bool) -> None:
    rows, frozen = toys.rows(toys.images(6, SIDE)), members[:2]
    kept = {one.layer: torch.from_numpy(pooled_features(one, rows, toys.CPU, mirrored)) for one in frozen}
    ensemble = Ensemble(frozen, mirrored=mirrored)
    with torch.no_grad():
        by_features = ensemble.probabilities_of_features(lambda backbone, layer: kept[layer]).numpy()
    np.testing.assert_allclose(by_features, probabilities(ensemble, rows, toys.CPU), atol=1e-5)
