"""Top activations against brute force over all images at once."""

import numpy as np
import pytest
import torch

from ssl_app.data import loading
from ssl_app.models.backbones import build
from ssl_app.training.activations import top_activations
from ssl_app.training.inference import each_batch
from tests import toys

COUNT, K = 30, 4


@pytest.mark.parametrize("together", [4, 512])
def test_they_are_those_of_brute_force_whatever_the_batch(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ORDERED_BATCH", together)
    monkeypatch.setattr(loading, "FEWEST", 1)
    torch.manual_seed(0)
    network = build("nin", 1, 12).eval()
    rows = toys.rows(toys.images(COUNT))
    sizes = list(each_batch(network, len, rows, toys.CPU))
    assert max(sizes) == min(together, COUNT), "streamed"
    inputs = torch.from_numpy((rows.scaling.scale(rows.images) - 0.5) / 0.25).permute(0, 3, 1, 2)
    layers = ["block1", "block3"]
    for layer, found in zip(layers, top_activations(network, layers, rows, toys.CPU, K), strict=True):
        with torch.no_grad():
            maps = network(inputs, layer).flatten(2).numpy()  # (N, D, hw)
        largest = maps.max(2)
        for channel in range(maps.shape[1]):
            order = np.argsort(-largest[:, channel], kind="stable")[:K]
            assert found.values[channel] == pytest.approx(largest[order, channel], abs=1e-5)
            images, places = found.images[channel], found.places[channel]
            assert maps[images, channel, places] == pytest.approx(found.values[channel], abs=1e-5)
            assert len(set(images)) == K, "an image counts once"
        assert found.mean == pytest.approx(largest.mean(0), abs=1e-5)
        assert found.deviation == pytest.approx(largest.std(0), abs=1e-4)


def test_more_than_there_are_gives_all_and_a_dead_channel_is_not_selective() -> None:
    torch.manual_seed(0)
    network = build("nin", 1, 12).eval()
    last = network.body.block1[7]  # the batch norm before the last ReLU of the block
    with torch.no_grad():
        last.bias[5], last.weight[5] = -100.0, 0.0
    (found,) = top_activations(network, ["block1"], toys.rows(toys.images(3)), toys.CPU, k=8)
    assert found.values.shape == (96, 3)
    assert (np.diff(found.values, axis=1) <= 0).all()
    assert found.deviation[5] == 0
    chosen = found.most_selective(96)
    assert 5 not in chosen
    selectivity = (found.values.mean(1) - found.mean)[chosen] / found.deviation[chosen]
    assert (np.diff(selectivity) <= 1e-9).all()
    assert found.most_selective(2).tolist() == chosen[:2].tolist()
