"""Facility location against a slow reference, and what it promises of groups, copies and many images."""

import numpy as np
import pytest

from ssl_app.clustering import coverage
from ssl_app.clustering.coverage import choose, similarity
from ssl_app.clustering.label_propagation import ALPHA, neighbor_graph, spread


def blobs(
    sizes: tuple[int, ...] = (60, 40, 25, 15), width: int = 8, noise: float = 0.25, seed: int = 0
) -> np.ndarray:
    """Rows about one direction for each size, not of length 1. (N, D)."""
    random = np.random.default_rng(seed)
    centers = np.eye(width)[: len(sizes)]
    rows = np.concatenate([centers[i] + noise * random.normal(size=(n, width)) for i, n in enumerate(sizes)])
    return (rows * random.uniform(0.5, 3, (len(rows), 1))).astype(np.float32)


def kernel_of(features: np.ndarray) -> np.ndarray:
    """K_ij / sqrt(K_ii K_jj) of K = (I - alpha S)^-1."""
    kernel = np.linalg.inv(np.eye(len(features)) - ALPHA * neighbor_graph(features).toarray())
    return kernel / np.sqrt(np.outer(kernel.diagonal(), kernel.diagonal()))


def greedy(near: np.ndarray, labeled: np.ndarray, wanted: int) -> list[int]:
    """The image that raises the sum of largest similarities most, again and again, by the definition."""
    known, found = np.flatnonzero(labeled).tolist(), []
    for _ in range(wanted):
        free = [i for i in range(len(near)) if i not in known + found]
        found.append(max(free, key=lambda i: near[:, [*known, *found, i]].max(1).sum()))
    return found


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("wanted", [1, 6, 11])
def test_it_chooses_what_covers_most(labels: int, wanted: int) -> None:
    features = blobs()
    labeled = np.zeros(len(features), dtype=bool)
    labeled[np.random.default_rng(1).choice(len(features), labels, replace=False)] = True
    found, near = choose(features, labeled, wanted), kernel_of(features)
    assert found.indices.tolist() == greedy(near, labeled, wanted)
    centers = [*np.flatnonzero(labeled), *found.indices]
    nearest = near[:, centers].argmax(1)
    assert found.stands_for.tolist() == [int((nearest == labels + i).sum()) for i in range(wanted)]
    assert found.stands_for.sum() + (nearest < labels).sum() == 140


def test_the_similarity_is_where_labels_arrive() -> None:
    features = blobs()
    one_image = np.eye(140)
    arrived = spread(neighbor_graph(features), one_image, ALPHA, 2000) / (1 - ALPHA)
    scaled = arrived / np.sqrt(np.outer(arrived.diagonal(), arrived.diagonal()))
    assert np.allclose(similarity(features).numpy(), scaled, atol=1e-5)


def test_the_largest_groups_of_alike_images_come_first_and_each_once() -> None:
    found = choose(blobs(noise=0.1), np.zeros(140, dtype=bool), 4)
    assert np.digitize(found.indices, [60, 100, 125]).tolist() == [0, 1, 2, 3]
    assert found.stands_for.tolist() == [60, 40, 25, 15]


def test_what_is_labeled_already_needs_no_label() -> None:
    labeled = np.zeros(140, dtype=bool)
    labeled[[3, 110]] = True  # of the first and the third
    found = choose(blobs(noise=0.1), labeled, 2)
    assert np.digitize(found.indices, [60, 100, 125]).tolist() == [1, 3]


@pytest.mark.parametrize("wanted", [5, 7, 12])
def test_a_group_gives_one_image_while_other_groups_are_left(wanted: int) -> None:
    features = blobs((100, 20, 20))
    groups = [f"patient {i % 6}" for i in range(140)]
    labeled = np.zeros(140, dtype=bool)
    found = choose(features, labeled, wanted, groups=groups)
    asked = [groups[i] for i in found.indices]
    counts = sorted(asked.count(name) for name in set(groups))
    assert counts[-1] - counts[0] <= 1
    for start in range(0, wanted, 6):
        assert len(set(asked[start : start + 6])) == len(asked[start : start + 6])


def test_a_group_that_is_used_up_holds_nothing_back() -> None:
    groups = ["big"] * 120 + ["small"] * 20
    labeled = np.zeros(140, dtype=bool)
    labeled[121:] = True  # one image of it is left
    asked = [groups[i] for i in choose(blobs(), labeled, 6, groups=groups).indices]
    assert sorted(asked) == ["big"] * 5 + ["small"]
    assert "small" in asked[:2]


def test_copies_of_one_picture_are_chosen_once_and_are_labeled_together() -> None:
    features = blobs()
    content = np.arange(140)
    content[10:60] = 5  # half of the largest blob is one picture
    features[10:60] = features[5]
    labeled = np.zeros(140, dtype=bool)
    found = choose(features, labeled, 90, content=content)
    assert len(set(content[found.indices].tolist())) == 90
    labeled[30] = True  # a copy
    found = choose(features, labeled, 89, content=content)
    assert 5 not in content[found.indices]
    assert not labeled[found.indices].any()
    alone = choose(features[~np.isin(np.arange(140), range(10, 60))], np.zeros(90, dtype=bool), 4)
    twice = choose(features, np.zeros(140, dtype=bool), 4, content=content)
    assert content[twice.indices].tolist() == np.delete(content, range(10, 60))[alone.indices].tolist(), (
        "a picture that lies there fifty times is no denser place"
    )


def test_the_same_seed_chooses_the_same() -> None:
    labeled = np.zeros(140, dtype=bool)
    one, other = (choose(blobs(), labeled, 9, seed=4) for _ in range(2))
    assert np.array_equal(one.indices, other.indices)
    assert np.array_equal(one.stands_for, other.stands_for)


def test_of_many_images_some_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MOST", 70)
    labeled = np.zeros(140, dtype=bool)
    labeled[[3, 110]] = True
    found = choose(blobs(noise=0.1), labeled, 2)
    assert np.digitize(found.indices, [60, 100, 125]).tolist() == [1, 3]
    assert 30 <= found.stands_for[0] <= 50, "of all, not of those looked at"
    every = choose(blobs(noise=0.1), labeled, 138)
    assert sorted(every.indices) == np.flatnonzero(~labeled).tolist()


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        (np.ones((40, 6)), 7),  # of a collapsed network
        (np.zeros((40, 6)), 7),
        (np.random.default_rng(0).normal(size=(40, 1)), 12),
        (np.random.default_rng(0).normal(size=(800, 3)), 600),
        (np.random.default_rng(0).normal(size=(9, 64)), 4),
        (np.random.default_rng(0).normal(size=(1, 4)), 1),
    ],
    ids=["equal", "zero", "narrow", "many", "few", "one"],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_it_chooses_as_many_different_unlabeled_images_as_wanted(
    features: np.ndarray, wanted: int, grouped: bool
) -> None:
    count = len(features)
    labeled = np.arange(count) % 5 == 1
    groups = [str(i // 3) for i in range(count)] if grouped else None
    found = choose(features, labeled, wanted, groups=groups)
    assert len(set(found.indices.tolist())) == len(found.indices) == wanted
    assert not labeled[found.indices].any()
    assert found.stands_for.shape == (wanted,)
    assert found.stands_for.sum() <= count
