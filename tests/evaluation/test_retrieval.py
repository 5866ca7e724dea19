import itertools

import numpy as np
import pytest
from sklearn import metrics

from ssl_app.evaluation import retrieval


def blobs(count, width=6, classes=3, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return random.normal(size=(classes, width))[labels] + random.normal(size=(count, width)), labels


def slowly(features, labels, units, query):
    """Average precision and precision at 1, 5 and 10 of one query, image by image."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    others = [row for row in range(len(labels)) if units[row] != units[query]]
    ranked = sorted(others, key=lambda row: -float(unit[row] @ unit[query]))
    hits = [labels[row] == labels[query] for row in ranked]
    at_hits = [np.mean(hits[: rank + 1]) for rank, hit in enumerate(hits) if hit]
    return [np.mean(at_hits), *(np.mean(hits[:k]) for k in (1, 5, 10))]


@pytest.mark.parametrize("block", [1, 40 * 7, 2**20])
def test_it_is_the_ranking_taken_slowly_whatever_the_block(block, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", block)
    features, labels = blobs(40)
    units = [f"patient {row // 3}" for row in range(40)]
    found = retrieval.retrieve(features, labels, units, seed=0)
    assert found.queries.tolist() == list(range(40))
    expected = np.array([slowly(features, labels, units, query) for query in range(40)])
    np.testing.assert_allclose(found.average_precision, expected[:, 0], atol=1e-6)
    for column, k in enumerate((1, 5, 10), start=1):
        np.testing.assert_allclose(found.precision[k], expected[:, column], atol=1e-6)


def test_without_groups_average_precision_is_that_of_scikit_learn():
    features, labels = blobs(50)
    found = retrieval.retrieve(features, labels, range(50), seed=0)
    cosine = metrics.pairwise.cosine_similarity(features)
    for query in range(50):
        others = np.arange(50) != query
        expected = metrics.average_precision_score(labels[others] == labels[query], cosine[query, others])
        assert found.average_precision[query] == pytest.approx(expected, abs=1e-6)


def test_images_of_the_querys_group_are_never_found():
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 4)
    features = random.normal(size=(20, 8))[patients] + 0.01 * random.normal(size=(80, 8))  # all that is alike
    labels = patients % 2
    leaky = retrieval.retrieve(features, labels, range(80), seed=0)
    honest = retrieval.retrieve(features, labels, patients.tolist(), seed=0)
    assert leaky.precision[1].mean() == 1
    assert honest.precision[1].mean() < 0.75, "the nearest other patient says little"


def test_a_query_with_nothing_to_find_is_left_out():
    features, _ = blobs(6)
    labels, units = [0, 0, 0, 1, 1, 2], ["a", "b", "c", "d", "d", "e"]
    found = retrieval.retrieve(features, labels, units, seed=0)
    assert found.queries.tolist() == [0, 1, 2], "class 1 is one patient's, class 2 one image"
    assert found.chance_precision == pytest.approx(2 / 5)
    none = retrieval.retrieve(features, np.arange(6), units, seed=0)
    assert none.queries.size == none.average_precision.size == none.chance_average_precision.size == 0


def test_chance_is_the_mean_over_all_orders():
    for candidates, relevant in ((5, 2), (6, 1), (4, 4)):
        hits = np.zeros(candidates, dtype=int)
        hits[:relevant] = 1
        every = []
        for order in itertools.permutations(hits):
            at = np.flatnonzero(order)
            every.append(np.mean(np.arange(1, relevant + 1) / (at + 1)))
        found = retrieval._by_chance(np.array([float(candidates)]), np.array([float(relevant)]))
        assert found == pytest.approx(np.mean(every))


def test_features_that_are_all_alike_find_no_more_than_chance():
    labels = np.repeat([0, 1], 200)  # sorted, as sets are
    found = retrieval.retrieve(np.ones((400, 3)), labels, range(400), seed=0)
    assert found.average_precision.mean() == pytest.approx(found.chance_average_precision.mean(), abs=0.02)
