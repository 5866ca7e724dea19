"""Near copies by features: far closer than all others, under any turn, in small sets and in large ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ssl_app.clustering import near_copies as module
from ssl_app.clustering.near_copies import near_copies
from ssl_app.errors import DataError

Features = list[NDArray[np.float32]]


def features(count: int, planted: dict[tuple[int, int], int], noise: float = 0.1, turns: int = 8) -> Features:
    """Of images that have nothing in common, but for image j, which looks like i under a turn. -> (N, 24) by turn."""
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(count, 24)).astype(np.float32) for _ in range(turns)]
    for (i, j), turn in planted.items():
        found[turn][j] = found[0][i] + noise * rng.normal(size=24)
    return found


@pytest.mark.parametrize("count", [50, 120, 400])
def test_copies_are_found_as_they_are_and_turned(count: int) -> None:
    planted = {(3, 20): 0, (4, 21): 3, (17, 5): 6, (8, 9): 4}
    found = near_copies(features(count, planted))
    turns = {tuple(pair): int(turn) for pair, turn in zip(found.pairs.tolist(), found.turns, strict=True)}
    assert turns == {(3, 20): 0, (4, 21): 3, (5, 17): 6, (8, 9): 4}
    assert (np.diff(found.ratio) >= 0).all()
    assert found.ratio.max() < module.RATIO


def test_others_are_none_and_a_symmetric_image_is_none_of_itself() -> None:
    plain = features(300, {(i, i): 4 for i in range(300)}, noise=0.0)
    assert not len(near_copies(plain).pairs)


def test_what_is_only_nearer_than_others_is_none() -> None:
    """Half as far from an image as its other neighbors are is not yet a copy of it."""
    assert not len(near_copies(features(300, {(3, 20): 0}, noise=0.8)).pairs)
    assert len(near_copies(features(300, {(3, 20): 0}, noise=0.3)).pairs) == 1


def test_a_large_set_is_searched_in_cells_and_to_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = features(1200, {(i, 600 + i): i % 8 for i in range(0, 600, 10)})
    whole = near_copies(given)
    monkeypatch.setattr(module, "EXACT", 500)
    monkeypatch.setattr(module, "CELL", 60)
    cells = near_copies(given)
    assert len(whole.pairs) == 60
    assert {tuple(pair) for pair in cells.pairs} == {tuple(pair) for pair in whole.pairs}


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_of_few_images_nothing_can_be_said(count: int) -> None:
    assert near_copies(features(count, {(0, 1): 0} if count > 2 else {})).pairs.shape == (0, 2)


def test_of_several_copies_each_pair_is_found() -> None:
    """Beside the others of a group the neighbors of an image are no scale, if there are as many: a limit."""
    found = near_copies(features(400, {(0, j): 0 for j in range(1, 6)}, noise=0.03))
    assert {tuple(pair) for pair in found.pairs} >= {(0, j) for j in range(1, 6)}


def test_features_that_are_not_finite_are_refused() -> None:
    given = features(50, {})
    given[0][3, 3] = np.nan
    with pytest.raises(DataError, match="nan or infinite"):
        near_copies(given)
