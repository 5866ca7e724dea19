from itertools import pairwise

import pytest
import torch
from sklearn.cluster import KMeans

from ssl_app.clustering import kmeans
from ssl_app.clustering.kmeans import fit, nearest
from ssl_app.errors import DataError


def noise(count, width, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=random), dim=1)


def mixture(count, width, clusters, seed=0, spread=0.5):
    """Rows of length 1 about random centers; the center of row i is i % clusters."""
    random = torch.Generator().manual_seed(seed)
    centers = torch.randn(clusters, width, generator=random)
    rows = centers[torch.arange(count) % clusters] + spread * torch.randn(count, width, generator=random)
    return torch.nn.functional.normalize(rows, dim=1)


def objective(points, centroids, labels):
    return float((points.double() - centroids.double()[labels]).square().sum(1).mean())


def means(points, labels, k):
    """Slow and plain, (K, d) f64."""
    return torch.stack([points[labels == label].double().mean(0) for label in range(k)])


def slow_distances(points, centroids):
    return (points.double()[:, None] - centroids.double()).square().sum(2)  # (N, K)


@pytest.mark.parametrize("make", [noise, lambda count, width: mixture(count, width, 10)])
def test_the_objective_never_increases(make):
    points = make(600, 16)
    history = []
    for iterations in range(1, 12):
        found = fit(points, 20, iterations=iterations, seed=3, fast=False)
        history.append(objective(points, found.centroids, found.labels))
        assert found.objective == pytest.approx(history[-1], rel=1e-6)
    assert all(after <= before + 1e-9 for before, after in pairwise(history))
    assert history[-1] < history[0]


@pytest.mark.parametrize("fast", [False, True])
def test_every_centroid_is_the_mean_of_its_members(fast):
    points = mixture(700, 12, 9)
    found = fit(points, 25, iterations=7, seed=0, fast=fast)
    assert found.centroids.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    assert torch.allclose(found.centroids.double(), means(points, found.labels, 25), atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 20.0])
@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_it_is_scikit_learns(iterations, offset):
    points = noise(500, 8) + offset
    start = points[torch.arange(0, 500, 25)]
    ours = fit(points, 20, iterations=iterations, seed=0, start=start, fast=False)
    theirs = KMeans(20, init=start.numpy(), n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(
        points.numpy()
    )
    assert ours.empties_repaired == 0
    assert torch.allclose(ours.centroids, torch.from_numpy(theirs.cluster_centers_), atol=1e-4)
    labels, distance, _ = nearest(points, ours.centroids, fast=False)
    assert (labels.numpy() == theirs.labels_).all()
    assert float(distance.double().sum()) == pytest.approx(theirs.inertia_, rel=1e-4)


def test_it_finds_the_clusters_that_there_are():
    found = fit(mixture(600, 32, 30, spread=0.1), 30, seed=1)
    assert len({tuple(row) for row in found.labels.view(-1, 30).T.tolist()}) == 30
    assert all(len(set(column)) == 1 for column in found.labels.view(-1, 30).T.tolist())


def test_it_ends_where_an_assignment_repeats(monkeypatch):
    passes = []
    search = kmeans._Search.labels
    monkeypatch.setattr(kmeans._Search, "labels", lambda self, c: passes.append(1) or search(self, c))
    points = mixture(300, 16, 5, spread=0.1)
    found = fit(points, 5, iterations=50, seed=0)
    assert len(passes) < 10
    assert torch.equal(found.labels, nearest(points, found.centroids)[0])


def test_empty_clusters_take_half_of_the_widest_one():
    points = noise(400, 8)
    start = torch.cat([points[:10], torch.full((20, 8), 90.0)])  # the last 20 are no point's nearest
    found = fit(points, 30, iterations=1, seed=0, start=start, fast=False)
    assert found.empties_repaired == 20
    assert int(torch.bincount(found.labels, minlength=30).min()) > 0
    assert torch.allclose(found.centroids.double(), means(points, found.labels, 30), atol=1e-6)
    ten = fit(points, 10, iterations=1, seed=0, start=points[:10], fast=False)
    assert found.objective < ten.objective
    assert int(torch.bincount(found.labels).max()) < int(torch.bincount(ten.labels).max())


@pytest.mark.parametrize("iterations", [1, 2, 15])
@pytest.mark.parametrize("fast", [False, True])
def test_no_cluster_is_empty_at_the_end(iterations, fast):
    points = mixture(300, 6, 4, spread=0.05)
    start = points[:1].repeat(40, 1)
    found = fit(points, 40, iterations=iterations, seed=0, start=start, fast=fast)
    assert found.empties_repaired > 0
    assert int(torch.bincount(found.labels, minlength=40).min()) > 0


def test_filling_never_raises_the_objective():
    points = noise(300, 6)
    start = points[:12].repeat(2, 1)
    history = [fit(points, 24, iterations=i, seed=0, start=start, fast=False).objective for i in range(1, 10)]
    assert all(after <= before + 1e-7 for before, after in pairwise(history))


def test_a_split_goes_across_the_main_axis_whatever_an_outlier_says():
    near = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    aside = torch.tensor([10.0, 0.0, 0.0, 0.0])
    points = torch.cat([near - aside, near + aside, torch.tensor([[0.0, 30.0, 0.0, 0.0]])])
    found = fit(points, 2, iterations=1, seed=0, start=torch.zeros(2, 4))
    assert found.empties_repaired == 1
    assert len(set(found.labels[:200].tolist())) == len(set(found.labels[200:400].tolist())) == 1
    assert found.labels[0] != found.labels[200]


def test_which_cluster_is_split_does_not_depend_on_where_zero_is():
    points = torch.cat([mixture(200, 5, 1), 0.1 * noise(200, 5, seed=1)])
    start = torch.cat([points[[0, 1, 200]], torch.full((2, 5), 90.0)])  # the last two are no point's nearest
    there, here = (fit(points + far, 5, iterations=1, seed=0, start=start + far, fast=False) for far in (8.0, 0.0))
    assert there.empties_repaired == here.empties_repaired == 2
    assert torch.equal(there.labels, here.labels)


@pytest.mark.parametrize("distinct", [1, 3, 12])
def test_equal_points_leave_no_cluster_empty(distinct):
    points = noise(distinct, 5).repeat(60 // distinct, 1)
    found = fit(points, 12, seed=0)
    assert int(torch.bincount(found.labels, minlength=12).min()) > 0
    assert found.objective == pytest.approx(0, abs=1e-6)
    assert bool(torch.isfinite(found.centroids).all())


@pytest.mark.parametrize("count", [1, 2, 50, 70])
def test_as_many_clusters_as_points(count):
    found = fit(noise(count, 6), count, seed=0)
    assert sorted(found.labels.tolist()) == list(range(count))
    assert found.objective == pytest.approx(0, abs=1e-6)
    assert found.empties_repaired == 0


@pytest.mark.parametrize(("part", "k", "count"), [(4, 10, 11), (4, 11, 14), (7, 40, 40), (3, 5, 200), (1024, 9, 10)])
def test_the_start_is_distinct_points_whatever_the_parts(monkeypatch, part, k, count):
    monkeypatch.setattr(kmeans, "PART", part)
    points = noise(count, 5)
    start = kmeans._drawn(kmeans._Cloud(points), k, seed=2)
    rows = (start[:, None] == points).all(2).nonzero()
    assert len(rows) == k
    assert len(set(rows[:, 1].tolist())) == k


def test_the_start_beats_random_points_on_clusters():
    def ratio(seed):
        points = mixture(1000, 16, 40, seed)
        random = points[torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:40]]
        return fit(points, 40, seed=seed).objective / fit(points, 40, seed=seed, start=random).objective

    assert sum(ratio(seed) for seed in range(5)) / 5 < 0.95


@pytest.mark.parametrize("k", [1, 2, 5, 64, 65, 200])
def test_nearest_is_a_full_comparison(k):
    points, centroids = noise(150, 7), noise(k, 7, seed=1)
    labels, first, second = nearest(points, centroids, fast=False)
    distances = slow_distances(points, centroids)
    least = distances.sort(1).values
    assert torch.equal(labels, distances.argmin(1))
    assert torch.allclose(first.double(), least[:, 0], atol=1e-6)
    if k == 1:
        assert bool(second.isinf().all())
    else:
        assert torch.allclose(second.double(), least[:, 1], atol=1e-6)


def test_many_groups_of_columns_find_the_same(monkeypatch):
    monkeypatch.setattr(kmeans, "LANES", 4)
    points, centroids = noise(120, 6), noise(90, 6, seed=1)
    labels, _, second = nearest(points, centroids, fast=False)
    distances = slow_distances(points, centroids)
    assert torch.equal(labels, distances.argmin(1))
    assert torch.allclose(second.double(), distances.sort(1).values[:, 1], atol=1e-6)


def test_points_far_from_zero_are_told_apart():
    points = noise(300, 8)
    labels, _, _ = nearest(points, points[:40], fast=False)
    shifted, first, _ = nearest(points + 300, points[:40] + 300, fast=False)
    assert (labels == shifted).double().mean() > 0.999
    assert float(first[:40].max()) == 0


def test_bf16_agrees_with_f32():
    points, centroids = noise(3000, 64), noise(200, 64, seed=1) / 4
    search = kmeans._Search(kmeans._Cloud(points), 200, True)
    plain = nearest(points, centroids, fast=False)
    fast = nearest(points, centroids, fast=True)
    assert float((plain[0] == fast[0]).double().mean()) >= 0.999
    assert float((plain[0] == search.labels(centroids)).double().mean()) >= 0.999
    assert torch.allclose(plain[1], fast[1], atol=1e-3)


@pytest.mark.parametrize("make", [noise, lambda count, width: mixture(count, width, 40)])
def test_the_objective_of_bf16_is_that_of_f32(make):
    points = make(2500, 32)
    plain, fast = (fit(points, 50, seed=0, fast=fast).objective for fast in (False, True))
    assert fast == pytest.approx(plain, rel=1e-3)


def test_what_bf16_leaves_undecided_is_decided_in_f32():
    points = torch.zeros(64, 64)
    points[:, 0] = 1.0
    points[:, 1] = torch.linspace(-1, 1, 64) * 2**-12  # nothing is left of it beside the rounding of 1 + 2^-10
    centroids = torch.zeros(64, 64)
    centroids[:, 0] = 50.0
    centroids[:2, 0] = 1 + 2**-10
    centroids[0, 1], centroids[1, 1] = -(2**-10), 2**-10
    search = kmeans._Search(kmeans._Cloud(points), 64, True)
    assert torch.equal(search.labels(centroids), (points[:, 1] > 0).long())


@pytest.mark.parametrize("fast", [False, True])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(fast):
    points = noise(400, 16)
    one, same, other = (fit(points, 15, iterations=4, seed=seed, fast=fast) for seed in (5, 5, 6))
    assert torch.equal(one.centroids, same.centroids)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("fast", [False, True])
def test_chunks_change_nothing(monkeypatch, fast):
    points = mixture(500, 16, 12)
    whole = fit(points, 30, iterations=6, seed=1, fast=fast)
    monkeypatch.setattr(kmeans, "BLOCK", 64 * 16)
    monkeypatch.setattr(kmeans, "ROWS", 17)
    monkeypatch.setattr(kmeans, "PIECE", 7)
    parts = fit(points, 30, iterations=6, seed=1, fast=fast)
    assert torch.equal(whole.labels, parts.labels)
    assert torch.allclose(whole.centroids, parts.centroids, atol=1e-5)
    assert parts.objective == pytest.approx(whole.objective, rel=1e-5)


def test_points_and_start_are_left_alone():
    points = noise(80, 4)
    start = points[:6].repeat(2, 1)
    kept, begun = points.clone(), start.clone()
    fit(points, 12, seed=0, start=start)
    assert torch.equal(points, kept)
    assert torch.equal(start, begun)


@pytest.mark.parametrize(
    ("count", "k", "line"),
    [
        (412, 1000, "412 images cannot make 1000 clusters; type clusters 41 or fewer"),
        (12, 13, "12 images cannot make 13 clusters; type clusters 1"),
        (1, 2, "1 image cannot make 2 clusters; type clusters 1"),
    ],
)
def test_the_line_for_more_clusters_than_images(count, k, line):
    with pytest.raises(DataError) as error:
        fit(torch.zeros(count, 2), k, seed=0)
    assert str(error.value) == line


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_the_line_for_points_that_are_not_numbers(value):
    points = noise(30, 4)
    points[[3, 8], 1] = value
    line = "the features of 2 of 30 images are nan or infinite; type a smaller lr, or clip 1"
    for call in (lambda: fit(points, 3, seed=0), lambda: nearest(points, noise(3, 4))):
        with pytest.raises(DataError) as error:
            call()
        assert str(error.value) == line


@pytest.mark.parametrize("make", [noise, lambda count, width: mixture(count, width, 40)])
def test_some_points_for_the_first_iterations_cost_no_objective(monkeypatch, make):
    points = make(2400, 32)
    plain = fit(points, 30, seed=0, fast=False)
    monkeypatch.setattr(kmeans, "MANY", 2400)
    some, same = (fit(points, 30, seed=0, fast=False) for _ in range(2))
    assert torch.equal(some.labels, same.labels)
    assert some.objective < 1.01 * plain.objective
    assert torch.allclose(some.centroids.double(), means(points, some.labels, 30), atol=1e-6)


def test_of_huge_sets_all_points_come_at_the_end_and_it_is_announced(monkeypatch, caplog):
    caplog.set_level("INFO")
    rows = []
    search = kmeans._Search.labels
    monkeypatch.setattr(kmeans._Search, "labels", lambda self, c: rows.append(len(self.points)) or search(self, c))
    for name, value in (("MANY", 100), ("HUGE", 1000), ("EACH_EARLY", 20)):
        monkeypatch.setattr(kmeans, name, value)
    found = fit(noise(1000, 8), 10, iterations=7, seed=0)
    assert rows == [200] * 5 + [1000] * 2
    assert int(torch.bincount(found.labels, minlength=10).min()) > 0
    assert caplog.messages == ["k-means: 5 of 7 iterations go over 200 of 1,000 images"]


def test_few_points_a_cluster_and_a_given_start_are_left_to_all_points(monkeypatch):
    rows = []
    search = kmeans._Search.labels
    monkeypatch.setattr(kmeans._Search, "labels", lambda self, c: rows.append(len(self.points)) or search(self, c))
    monkeypatch.setattr(kmeans, "MANY", 100)
    points = noise(200, 8)
    fit(points, 20, seed=0)
    fit(points, 5, seed=0, start=points[:5])
    assert set(rows) == {200}
    fit(points, 5, seed=0)
    assert set(rows) == {100, 200}


def test_bf16_is_left_to_large_problems(monkeypatch):
    monkeypatch.setattr(kmeans, "bf16_multiplies", lambda device: True)
    assert kmeans._bf16_is_faster(torch.zeros(2**15, 256), 1000)
    assert not kmeans._bf16_is_faster(torch.zeros(2000, 256), 100)
    monkeypatch.setattr(kmeans, "bf16_multiplies", lambda device: False)
    assert not kmeans._bf16_is_faster(torch.zeros(2**15, 256), 1000)


def test_bf16_tells_points_far_from_zero_apart():
    points = noise(600, 32) + 50
    labels, _, _ = nearest(points, points[:40], fast=True)
    plain, _, _ = nearest(points, points[:40], fast=False)
    assert (labels == plain).double().mean() > 0.99
