"""Nearest images against a loop over all pairs."""

import numpy as np
import pytest

from ssl_app.evaluation import nearest as module
from ssl_app.evaluation.nearest import nearest


@pytest.mark.parametrize("block", [1, 256])
def test_they_are_those_of_a_loop_and_never_of_the_query_s_unit(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    random = np.random.default_rng(0)
    features, units = random.normal(size=(40, 6)), [f"patient {n}" for n in random.integers(0, 9, 40)]
    queries = [3, 0, 17]
    for query, (found, cosines) in zip(queries, nearest(features, queries, units, 5), strict=True):
        every = []
        for other in range(40):
            if units[other] != units[query]:
                a, b = features[query], features[other]
                every.append((-(a @ b) / np.linalg.norm(a) / np.linalg.norm(b), other))
        expected = sorted(every)[:5]
        assert found.tolist() == [other for _, other in expected]
        assert cosines == pytest.approx([-minus for minus, _ in expected], abs=1e-6)


def test_fewer_are_found_where_no_more_are_left() -> None:
    features = np.eye(4)
    ((found, _),) = nearest(features, [0], ["a", "a", "b", "c"], 10)
    assert found.tolist() == [2, 3]
    ((none, _),) = nearest(features, [1], ["a"] * 4, 3)
    assert len(none) == 0


def test_length_does_not_count_and_a_row_of_zeros_is_near_to_nothing() -> None:
    features = np.array([[1.0, 0], [100, 1], [0, 0], [0.1, 0], [-1, 0]])
    ((found, cosines),) = nearest(features, [0], list("abcde"), 4)
    assert found.tolist() == [3, 1, 2, 4]
    assert cosines == pytest.approx([1, 1, 0, -1], abs=1e-3)
