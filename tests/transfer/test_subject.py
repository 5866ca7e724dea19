"""The subject of pictures: images of the training part alone, in the order of their features."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from ssl_app.data.dataset import Dataset
from ssl_app.models.backbones import build
from ssl_app.transfer import subject as module
from ssl_app.transfer.trial import TrialSetup
from tests import toys


def setup(dataset: Dataset, train: list[int]) -> TrialSetup:
    """What of a trial setup a subject is made of."""
    rows = toys.rows(toys.images(len(dataset.keys), 16))
    held: dict[str, Any] = {
        "dataset": dataset,
        "unlabeled": np.array(train),
        "rows": rows.at,
        "hardware": toys.CPU,
        "initialization": SimpleNamespace(name="a-run"),
        "config": SimpleNamespace(seed=4),
    }
    return cast(TrialSetup, SimpleNamespace(**held))


def test_it_holds_the_training_part_with_all_that_is_known(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    torch.manual_seed(0)
    network = build("nin", 1, 16).eval()
    dataset = toys.dataset(["b", "a", None, "b", "a"], groups=["p1", None, "p2", "p2", "p3"])
    found = module.subject_of(setup(dataset, [0, 1, 2, 4]), network, ())
    assert found.layers == network.layers, "all of them where none is named"
    assert list(found.keys) == ["0.png", "1.png", "2.png", "4.png"]
    assert found.labels.tolist() == [1, 0, -1, 0]
    assert found.groups == ["p1", None, "p2", "p3"]
    assert (found.group_word, found.seed) == ("patient", 4)
    assert found.features.shape == (4, 192)
    assert messages == []
    monkeypatch.setattr(module, "MOST", 2)
    fewer = module.subject_of(setup(dataset, [0, 1, 2, 4]), network, ("block1",))
    assert list(fewer.keys) == ["0.png", "2.png"]
    assert fewer.layers == ("block1",)
    assert np.allclose(fewer.features, found.features[[0, 2]], atol=1e-5)
    assert messages == ["pictures: of 2 of the 4 images of the training part"]
