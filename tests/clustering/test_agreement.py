import itertools

import numpy as np
import pytest
from sklearn import metrics

from ssl_app.clustering.agreement import agree, ami, ari, nmi, nmi_by_chance, purity, use

PAIRS = {
    "alike": lambda r: (a := r.integers(0, 7, 400), np.where(r.random(400) < 0.7, a, r.integers(0, 9, 400))),
    "unlike": lambda r: (r.integers(0, 5, 300), r.integers(0, 60, 300)),
    "skewed": lambda r: ((r.random(500) ** 4 * 30).astype(int), (r.random(500) ** 2 * 12).astype(int)),
    "one large": lambda r: (np.r_[np.zeros(280), np.arange(20)].astype(int), r.integers(0, 3, 300)),
    "all apart": lambda r: (np.arange(60), r.integers(0, 4, 60)),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("seed", range(3))
def test_nmi_is_over_the_geometric_mean_and_ami_is_that_of_scikit_learn(kind, seed):
    a, b = PAIRS[kind](np.random.default_rng(seed))
    table = np.array([[((a == i) & (b == j)).mean() for j in np.unique(b)] for i in np.unique(a)])
    rows, columns, there = table.sum(1), table.sum(0), table > 0
    information = (table[there] * np.log((table / np.outer(rows, columns))[there])).sum()
    entropies = (-(share * np.log(share)).sum() for share in (rows, columns))
    assert nmi(a, b) == pytest.approx(information / np.sqrt(np.prod(list(entropies))), abs=1e-12)
    assert nmi(b, a) == pytest.approx(nmi(a, b), abs=1e-12)
    for one, other in ((a, b), (b, a)):
        assert ami(one, other) == pytest.approx(metrics.adjusted_mutual_info_score(one, other), abs=1e-12)


@pytest.mark.parametrize("kind", PAIRS)
def test_ari_counts_pairs_of_images(kind):
    a, b = PAIRS[kind](np.random.default_rng(0))
    pairs = np.triu_indices(len(a), 1)
    together, too = ((one[:, None] == one)[pairs] for one in (a, b))
    chance = together.mean() * too.sum()
    expected = ((together & too).sum() - chance) / ((together.sum() + too.sum()) / 2 - chance)
    assert ari(a, b) == pytest.approx(expected, abs=1e-12)


def test_nmi_by_chance_is_what_shuffled_partitions_have():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 100, 5000), random.integers(0, 100, 5000)
    assert nmi_by_chance(a, b, 0) == pytest.approx(0.22, abs=0.01)
    assert nmi_by_chance(a, a, 0) < 0.5 < nmi(a, a) == 1


def test_chance_is_what_ami_takes_away():
    random = np.random.default_rng(0)
    for clusters, chance in ((10, 0.004), (100, 0.22), (1000, 0.75)):
        a, b = random.integers(0, clusters, (2, 5000))
        assert nmi(a, b) == pytest.approx(chance, abs=0.01)
        assert abs(ami(a, b)) < 0.02


def test_the_chance_of_ami_is_the_mean_over_shuffled_partitions():
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    every = {tuple(b[list(order)]) for order in itertools.permutations(range(6))}
    assert np.mean([ami(a, shuffled) for shuffled in every]) == pytest.approx(0, abs=1e-12)


def test_names_of_clusters_do_not_count():
    random = np.random.default_rng(0)
    for clusters in (1, 3, 40, 200):
        a = np.r_[np.arange(clusters), random.integers(0, clusters, 200 - clusters)]
        renamed = 7 * random.permutation(clusters)[a] - 100
        assert nmi(a, renamed) == pytest.approx(1, abs=1e-12)
        assert ami(a, renamed) == pytest.approx(1, abs=1e-9)
        assert nmi(a, [f"cluster {name}" for name in renamed]) == pytest.approx(1, abs=1e-12)
    b = random.integers(0, 9, 200)
    assert nmi(renamed, b) == pytest.approx(nmi(a, b), abs=1e-14)
    assert ami(renamed, b) == pytest.approx(ami(a, b), abs=1e-12)


def test_a_single_cluster_says_nothing_of_anything_but_itself():
    many = np.arange(20) % 4
    for score in (nmi, ami):
        assert score(np.zeros(20), many) == score(many, np.zeros(20)) == 0
        assert score(np.zeros(20), np.full(20, 3)) == 1
    assert nmi(np.arange(4) // 2, np.arange(4) % 2) == 0, "independent to the letter"


def test_many_clusters_of_many_images_need_no_table_of_them():
    a = np.arange(100_000)
    assert nmi(a, a[::-1]) == pytest.approx(1, abs=1e-12)
    assert nmi(a, a // 2) == pytest.approx(np.sqrt(np.log(50_000) / np.log(100_000)))
    assert ami(a, a[::-1]) == 1
    assert ami(a, a // 2) == pytest.approx(0, abs=1e-7)
    assert purity(a // 2, a).overall == 0.5


def test_purity_by_cluster_and_overall():
    found = purity([5, 5, 5, 2, 2, 9], ["cat", "dog", "dog", "cat", "dog", "owl"])
    assert found.clusters.tolist() == [2, 5, 9]
    assert found.sizes.tolist() == [2, 3, 1]
    assert found.each == pytest.approx([1 / 2, 2 / 3, 1])
    assert found.commonest.tolist() == ["cat", "dog", "owl"], "the first of equals"
    assert found.overall == pytest.approx(4 / 6)


def test_purity_is_that_of_the_contingency_table():
    random = np.random.default_rng(0)
    clusters, labels = random.integers(0, 30, 400), random.integers(0, 6, 400)
    table = metrics.cluster.contingency_matrix(labels, clusters)  # (classes, clusters)
    found = purity(clusters, labels)
    assert found.overall == pytest.approx(table.max(0).sum() / 400, abs=1e-12)
    assert found.each == pytest.approx(table.max(0) / table.sum(0), abs=1e-12)
    assert found.commonest.tolist() == table.argmax(0).tolist()
    assert purity(np.arange(400), labels).overall == 1
    assert purity(np.zeros(400), labels).overall == np.bincount(labels).max() / 400


def test_use_is_one_where_clusters_are_as_large_and_a_kth_where_one_has_all() -> None:
    assert use(np.arange(30) % 5, 5) == pytest.approx(1)
    assert use(np.zeros(30, np.int64), 5) == pytest.approx(1 / 5)
    assert use(np.arange(30) % 2, 4) == pytest.approx(1 / 2)


def test_agreement_is_shown_against_chance():
    labels = np.repeat([0, 1], [80, 20])
    one = agree(np.zeros(100, dtype=int), labels)
    assert (one.purity, one.largest_class, one.ami, one.as_by_chance) == (0.8, 0.8, 0.0, True)
    assert one.sentence() == (
        "NMI 0.000, AMI 0.000, purity 0.800 (the largest class alone: 0.800); AMI is about zero, these clusters say "
        "nothing of the labels"
    )
    same = agree(labels, labels)
    assert (same.purity, same.ami, same.as_by_chance) == (1.0, pytest.approx(1.0), False)
    assert same.sentence() == "NMI 1.000, AMI 1.000, purity 1.000 (the largest class alone: 0.800)"


def test_clusters_of_chance_are_seldom_taken_for_more():
    random = np.random.default_rng(5)
    found = [agree(random.integers(0, 20, 300), random.integers(0, 4, 300)) for _ in range(100)]
    assert sum(not one.as_by_chance for one in found) <= 12
    assert np.mean([one.nmi for one in found]) > 0.05, "which NMI hides"
