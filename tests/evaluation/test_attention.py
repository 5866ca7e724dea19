"""Energy of activations and attention rollout against loops from their definitions."""

import itertools

import numpy as np
import pytest

from ssl_app.evaluation.attention import energy, rollout


@pytest.mark.parametrize("power", [1, 2, 4])
def test_energy_sums_powers_over_channels(power: float) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    found = energy(maps, power)
    for image, row, column in np.ndindex(2, 3, 4):
        expected = sum(abs(maps[image, channel, row, column]) ** power for channel in range(5))
        assert found[image, row, column] == pytest.approx(expected)


def test_rollout_is_the_sum_over_all_paths_through_the_blocks() -> None:
    weights = np.random.default_rng(0).random((3, 4, 4))
    weights /= weights.sum(2, keepdims=True)
    found = rollout(weights)
    for top, bottom in np.ndindex(4, 4):
        paths = 0.0
        for inner in itertools.product(range(4), repeat=2):
            stops = (bottom, *inner, top)  # one token of the input, of the blocks between, and of the output
            share = 1.0
            for block, (below, above) in enumerate(itertools.pairwise(stops)):
                share *= 0.5 * weights[block, above, below] + 0.5 * (above == below)
            paths += share
        assert found[top, bottom] == pytest.approx(paths)
    assert found.sum(1) == pytest.approx(np.ones(4))


def test_tokens_that_look_at_themselves_stay_where_they_are() -> None:
    assert rollout(np.stack([np.eye(3)] * 4)) == pytest.approx(np.eye(3))
