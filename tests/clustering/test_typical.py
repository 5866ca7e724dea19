"""TypiClust, against a slow reference written from the paper, and what it promises of groups and copies."""

import numpy as np
import pytest
import torch

from ssl_app.clustering import typical
from ssl_app.clustering.typical import atypicality, choose, cluster_count, select
from ssl_app.errors import DataError


def blobs(
    sizes: tuple[int, ...] = (60, 40, 25, 15), width: int = 8, noise: float = 0.25, seed: int = 0
) -> np.ndarray:
    """Rows about one direction for each size, not of length 1. (N, D)."""
    random = np.random.default_rng(seed)
    centers = np.eye(width)[: len(sizes)]
    rows = np.concatenate([centers[i] + noise * random.normal(size=(n, width)) for i, n in enumerate(sizes)])
    return (rows * random.uniform(0.5, 3, (len(rows), 1))).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def typicality(rows: np.ndarray, i: int) -> float:
    """(1/K sum over the K nearest |x - x'|)^-1 of row i among rows: the paper's equation 1, in float64."""
    distances = sorted(float(np.linalg.norm(rows[i] - rows[j])) for j in range(len(rows)) if j != i)
    k = min(20, len(distances))
    return 1 / (sum(distances[:k]) / k)


def by_the_paper(features: np.ndarray, clusters: np.ndarray, labeled: np.ndarray, wanted: int) -> list[int]:
    """Algorithm 1 with the clusters given: uncovered clusters by size, the most typical image of each."""
    rows = unit(features.astype(np.float64))
    found: list[int] = []
    for _ in range(wanted):
        best = None
        for cluster in range(clusters.max() + 1):
            members = [i for i in range(len(rows)) if clusters[i] == cluster]
            if len(members) <= 5:
                continue
            covered = sum(bool(labeled[i]) or i in found for i in members)
            open_ones = [i for i in members if not labeled[i] and i not in found]
            if open_ones and (best is None or (covered, -len(members)) < best[:2]):
                best = (covered, -len(members), members, open_ones)
        assert best is not None
        members, open_ones = best[2:]
        found.append(max(open_ones, key=lambda i: typicality(rows[members], members.index(i))))
    return found


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("wanted", [1, 6, 11])
def test_it_chooses_what_the_paper_chooses(labels: int, wanted: int) -> None:
    features = blobs()
    labeled = np.zeros(len(features), dtype=bool)
    labeled[np.random.default_rng(1).choice(len(features), labels, replace=False)] = True
    found = choose(features, labeled, wanted)
    assert len(np.unique(found.clusters)) == labels + wanted
    assert found.indices.tolist() == by_the_paper(features, found.clusters, labeled, wanted)


def test_typicality_is_that_of_the_paper_in_blocks_too(monkeypatch) -> None:
    rows = unit(blobs().astype(np.float64))
    clusters = np.repeat([0, 1, 2, 3], (60, 40, 25, 15))
    slow = [
        1 / typicality(rows[clusters == clusters[i]], int((clusters[:i] == clusters[i]).sum())) for i in range(140)
    ]
    as_tensor = torch.tensor(rows, dtype=torch.float32)
    assert np.allclose(atypicality(as_tensor, clusters), slow, rtol=1e-5)
    monkeypatch.setattr(typical, "BLOCK", 100)
    assert np.allclose(atypicality(as_tensor, clusters), slow, rtol=1e-5)


def test_nearly_equal_features_keep_their_distances() -> None:
    rows = np.ones((30, 64)) + 1e-5 * np.random.default_rng(0).normal(size=(30, 64))  # as of a collapsed network
    as_tensor = torch.tensor(unit(rows), dtype=torch.float32)
    exact = as_tensor.double().numpy()
    slow = [1 / typicality(exact, i) for i in range(30)]
    assert np.allclose(atypicality(as_tensor, np.zeros(30, dtype=np.int64)), slow, rtol=1e-3)


def test_largest_clusters_without_a_label_come_first() -> None:
    features = torch.tensor(unit(blobs()), dtype=torch.float32)
    clusters = np.repeat([2, 0, 3, 1], (60, 40, 25, 15))
    labeled = np.zeros(140, dtype=bool)
    labeled[[3, 100, 101]] = True  # of clusters 2 and 3
    found = select(features, clusters, labeled, 8)
    assert clusters[found].tolist() == [0, 1, 2, 0, 1, 2, 0, 3], "then round again, where labels are fewest"
    assert len(set(found.tolist())) == 8
    assert not labeled[found].any()


def test_outliers_come_last() -> None:
    features = torch.tensor(unit(blobs((30, 30, 5, 1))), dtype=torch.float32)
    clusters = np.repeat([0, 1, 2, 3], (30, 30, 5, 1))
    found = select(features, clusters, np.zeros(66, dtype=bool), 66)
    assert set(clusters[found[:60]].tolist()) == {0, 1}
    assert clusters[found[60:]].tolist() == [2, 3, 2, 2, 2, 2]
    assert sorted(found.tolist()) == list(range(66)), "all are chosen in the end"


def test_there_is_a_cluster_for_each_label_while_images_suffice() -> None:
    assert cluster_count(0, 12, 5000) == 12
    assert cluster_count(30, 12, 5000) == 42
    assert cluster_count(3000, 12, 100_000) == typical.MOST_CLUSTERS == 500
    assert cluster_count(0, 12, 60) == 6
    assert cluster_count(0, 3, 4) == 1


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
    assert len(set(found.clusters[content == 5].tolist())) == 1
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
    assert np.array_equal(one.clusters, other.clusters)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        (np.ones((40, 6)), 7),  # of a collapsed network
        (np.zeros((40, 6)), 7),
        (np.random.default_rng(0).normal(size=(40, 1)), 12),
        (np.random.default_rng(0).normal(size=(2000, 3)), 600),  # more than there may be clusters
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
    assert found.clusters.shape == (count,)
    assert len(np.unique(found.clusters)) == found.clusters.max() + 1


def test_features_that_are_not_finite_are_refused() -> None:
    features = blobs()
    features[3, 0] = np.nan
    with pytest.raises(DataError, match="the features of 1 of 140 images are nan or infinite"):
        choose(features, np.zeros(140, dtype=bool), 4)
