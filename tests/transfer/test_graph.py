"""The graph that labels spread over: of the whole packed images, and the same whether it is kept or not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from ssl_app.clustering.label_propagation import neighbor_graph
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.inference import pooled_features
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.trial import TrialSetup
from tests import toys

SIDE, COUNT, NEAR = 16, 30, 5
INDICES = np.array([7, 2, 25, 11, 0, 19, 28, 3, 14, 22])


@pytest.fixture
def classifier(narrow: None) -> Classifier:
    torch.manual_seed(0)
    backbone = backbones.build("small-resnet", 1, SIDE)
    return Classifier(backbone, build_head("linear", backbone.shape(), 2), None, torch.zeros(0, dtype=torch.int64))


def a_setup(classifier: Classifier, packed: np.ndarray, cache: Path) -> TrialSetup:
    one = SimpleNamespace(
        content="made", backbone="small-resnet", load=lambda channels, size, seed: (classifier.backbone, "as made")
    )
    one.first = one
    keys = tuple(str(i) for i in range(COUNT))
    return TrialSetup(
        opened=cast(
            Any, SimpleNamespace(dataset=SimpleNamespace(images=packed, image_size=SIDE, keys=keys, key="k"))
        ),
        unlabeled=np.arange(COUNT),
        initialization=cast(Any, one),
        scaling=toys.scaling(),
        config=cast(Any, SimpleNamespace(mirror=True, seed=0)),
        hardware=toys.CPU,
        cache=cache,
    )


def a_draw(packed: np.ndarray, kept: TrialSetup | None) -> Draw:
    rows = toys.rows(packed, SIDE)
    made = SimpleNamespace(kept=kept, unlabeled=rows, hardware=toys.CPU)
    return cast(Any, SimpleNamespace(graph=lambda *given: Draw.graph(cast(Any, made), *given)))


@pytest.mark.parametrize("margin", [0, 4])
def test_a_kept_graph_is_that_of_the_whole_packed_images(classifier: Classifier, tmp_path: Path, margin: int) -> None:
    packed = toys.images(COUNT, SIDE + margin)
    setup = a_setup(classifier, packed, tmp_path)
    found = a_draw(packed, setup).graph(classifier, INDICES, NEAR)
    rows = toys.rows(packed, SIDE).at(INDICES)
    whole = pooled_features(classifier, rows, toys.CPU, mirrored=True, corners=True)
    np.testing.assert_allclose(found.toarray(), neighbor_graph(whole, NEAR).toarray(), atol=1e-4)
    alone = a_draw(packed, None).graph(classifier, INDICES, NEAR)
    np.testing.assert_allclose(alone.toarray(), found.toarray(), atol=1e-4)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_features_of_the_center_are_not_those_of_the_graph(classifier: Classifier, tmp_path: Path) -> None:
    setup = a_setup(classifier, toys.images(COUNT, SIDE + 4), tmp_path)
    setup.graph_of(None, np.sort(INDICES), NEAR)
    center = np.array(setup.features_of(None))
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    rows = toys.rows(setup.dataset.images, SIDE)
    np.testing.assert_allclose(center, pooled_features(classifier, rows, toys.CPU, mirrored=True), atol=1e-5)


def test_layers_that_are_taken_together_take_one_pass(classifier: Classifier, tmp_path: Path) -> None:
    setup, layers = a_setup(classifier, toys.images(COUNT, SIDE + 4), tmp_path), [None, "stage3+stage4"]
    seen: list[int] = []
    classifier.backbone.body.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if len(inputs[0]) > 1 else None
    )
    setup.take(layers)
    passes = sum(seen)
    assert passes == COUNT * 2 * (1 + 5), "an image and its mirror image, of the center and of five crops"
    for layer in layers:
        setup.features_of(layer)
        setup.graph_of(layer, np.sort(INDICES), NEAR)
    setup.take(layers)
    assert sum(seen) == passes
