import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading

from ssl_app.clustering import label_propagation, neighbors
from ssl_app.clustering.label_propagation import affinity, neighbor_graph, propagate, spread


def clusters(count=120, width=8, classes=3, seed=0, noise=0.3):
    """Directions around one center per class, and their classes. -> (N, D), (N,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = np.eye(width)[:classes] + 0.3
    return (centers[labels] + noise * random.normal(size=(count, width))).astype(np.float32), labels


def drawn(labels, each=1):
    """Labels of the first images of each class, -1 for the others."""
    given = np.full(len(labels), -1)
    for label in np.unique(labels):
        some = np.flatnonzero(labels == label)[:each]
        given[some] = label
    return given


def dense_affinity(features, neighbors):
    """W as the paper defines it, row by row."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    w = np.zeros((len(unit), len(unit)))
    for i in range(len(unit)):
        cosine = unit @ unit[i]
        cosine[i] = -np.inf
        for j in np.argsort(-cosine)[:neighbors]:
            w[i, j] = max(cosine[j], 0) ** 3
    return np.maximum(w, w.T)


def test_the_graph_is_that_of_the_paper():
    features, _ = clusters()
    w = dense_affinity(features.astype(np.float64), 7)
    degree = w.sum(1)
    graph = affinity(features, 7).toarray()
    assert np.allclose(graph, w / np.sqrt(degree[:, None] * degree), atol=1e-6)
    assert np.array_equal(graph, graph.T)
    assert not graph.diagonal().any()


def test_blocks_change_nothing(monkeypatch):
    features, labels = clusters()
    whole = propagate(features, drawn(labels), 3)
    monkeypatch.setattr(neighbors, "BLOCK", 7 * len(features))
    assert np.allclose(propagate(features, drawn(labels), 3).targets, whole.targets, atol=1e-5)


def test_it_spreads_as_scikit_learn_does_on_the_same_kernel():
    features, labels = clusters()
    given = drawn(labels, 2)
    w = dense_affinity(features.astype(np.float64), 7)
    theirs = LabelSpreading(kernel=lambda a, b: w, alpha=0.9, max_iter=2000, tol=1e-12).fit(features, given)
    ours = spread(affinity(features, 7), np.eye(4)[given][:, :3], 0.9, 2000)
    assert np.allclose(ours / ours.sum(1, keepdims=True), theirs.label_distributions_, atol=1e-5)


def test_it_comes_near_its_closed_form():
    features, labels = clusters()
    graph, known = affinity(features), np.eye(4)[drawn(labels)][:, :3]
    limit = 0.05 * np.linalg.solve(np.eye(len(features)) - 0.95 * graph.toarray(), known)
    assert np.allclose(spread(graph, known, 0.95, 1000), limit, atol=1e-9)


def test_labels_reach_their_cluster_and_keep_themselves():
    features, labels = clusters(noise=0.2)
    given = drawn(labels)
    given[np.flatnonzero(labels == 0)[:4]] = [0, 0, 0, 1]  # one of the drawn labels is wrong: it stays
    found = propagate(features, given, 3)
    assert np.array_equal(found.targets[given >= 0], np.eye(3)[given[given >= 0]])
    assert (found.certainty[given >= 0] == 1).all()
    assert (found.targets.argmax(1) == labels)[given < 0].all()
    assert found.reached.all()
    assert np.allclose(found.targets.sum(1), 1)
    assert (found.certainty >= 0).all()
    assert (found.certainty <= 1).all()


def test_without_alpha_the_labels_come_back():
    features, labels = clusters()
    given = drawn(labels, 2)
    found = propagate(features, given, 3, alpha=0.0)
    assert np.array_equal(found.reached, given >= 0)
    assert np.array_equal(found.targets[found.reached], np.eye(3)[given[given >= 0]])
    near = spread(affinity(features), np.eye(4)[given][:, :3], 1e-6, 50)
    assert np.allclose(near, np.eye(4)[given][:, :3], atol=1e-5)


def test_components_keep_their_labels():
    features = np.zeros((40, 6), dtype=np.float32)
    features[:20, :3] = 1 + clusters(20, 3, 1)[0]
    features[20:, 3:] = 1 + clusters(20, 3, 1, seed=1)[0]
    given = np.full(40, -1)
    given[[3, 25]] = 0, 1
    found = propagate(features, given, 2)
    assert np.array_equal(found.targets, np.eye(2)[np.arange(40) // 20])
    assert (found.certainty == 1).all()


def test_what_no_label_reaches_stays_unlabeled():
    features = np.zeros((41, 6), dtype=np.float32)
    features[:20, :3] = 1 + clusters(20, 3, 1)[0]
    features[20:40, 3:] = 1 + clusters(20, 3, 1, seed=1)[0]  # a component without a label; the last image has no norm
    given = np.full(41, -1)
    given[[3, 4]] = 0, 1
    found = propagate(features, given, 2)
    assert np.array_equal(found.reached, np.arange(41) < 20)
    assert (found.targets[20:] == 0.5).all()
    assert (found.certainty[20:] == 0).all()
    assert np.isfinite(found.targets).all()


def test_no_labels_reach_nothing():
    found = propagate(clusters()[0], np.full(120, -1), 3)
    assert not found.reached.any()
    assert (found.certainty == 0).all()


def test_a_class_without_a_label_gets_nothing():
    features, labels = clusters()
    given = np.where(drawn(labels) == 2, -1, drawn(labels))
    found = propagate(features, given, 3)
    assert (found.targets[:, 2] == 0).all()
    assert np.allclose(found.targets.sum(1), 1)
    alone = propagate(features, np.where(given == 0, 0, -1), 1)
    assert (alone.targets == 1).all()
    assert (alone.certainty == 1).all()


def test_a_class_of_many_labels_does_not_flood_the_others():
    features, labels = clusters(noise=0.5)
    given = np.where(labels == 0, 0, drawn(labels))  # all of class 0, one of each other
    found = propagate(features, given, 3)
    guess = found.targets.argmax(1)[given < 0]
    graph, known = affinity(features), np.eye(4)[given][:, :3]
    flooded = spread(graph, known).argmax(1)[given < 0]
    assert (guess == labels[given < 0]).mean() > (flooded == labels[given < 0]).mean()


def test_the_order_of_images_does_not_count():
    features, labels = clusters()
    given, order = drawn(labels, 2), np.random.default_rng(0).permutation(120)
    first, second = propagate(features, given, 3), propagate(features[order], given[order], 3)
    assert np.allclose(second.targets, first.targets[order], atol=1e-5)
    assert np.allclose(second.certainty, first.certainty[order], atol=1e-5)
    assert np.array_equal(second.reached, first.reached[order])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_have_fewer_neighbors(count):
    given = np.full(count, -1)
    given[0] = 1
    found = propagate(np.ones((count, 4), dtype=np.float32), given, 2)
    assert np.array_equal(found.targets, np.tile([0.0, 1.0], (count, 1)))
    assert found.reached.all()


def test_copies_are_neighbors_and_no_image_is_its_own():
    features = np.repeat(clusters(30)[0], 4, axis=0)
    graph = affinity(features, 3)
    assert not graph.diagonal().any()
    assert np.array_equal(np.unique(graph.nonzero()[0] // 4 == graph.nonzero()[1] // 4), [True])


def test_opposite_images_are_no_neighbors():
    graph = affinity(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]), 2)
    assert isinstance(graph, csr_array)
    assert graph.nnz == 0


def test_the_graph_is_of_whitened_features():
    """Three classes in directions that vary little, below one that varies most and says nothing of them."""
    random = np.random.default_rng(0)
    few, labels = clusters(300, 8, noise=0.2)
    loud = random.normal(size=(300, 1)) * np.full(64, 3.0)
    features = np.concatenate([few, np.zeros((300, 56))], axis=1) + loud + 0.05 * random.normal(size=(300, 64))
    graphs = {"plain": affinity(features), "whitened": neighbor_graph(features)}
    right = {}
    for name, graph in graphs.items():
        found = propagate(features, drawn(labels), 3, graph=graph)
        right[name] = (found.targets.argmax(1) == labels).mean()
    assert right["whitened"] > 0.9
    assert right["plain"] < 0.7
    assert np.array_equal(propagate(features, drawn(labels), 3).targets, found.targets)
    axes = PCA(8, whiten=True).fit_transform(features)
    assert np.allclose(graphs["whitened"].toarray(), affinity(axes).toarray(), atol=1e-3)


def test_wide_features_are_whitened_too(monkeypatch):
    features = np.random.default_rng(0).normal(size=(200, 80))
    features *= np.where(np.arange(80) < 10, np.linspace(3, 1, 80), 1e-3)  # ten axes stand out
    exact = neighbor_graph(features).toarray()
    monkeypatch.setattr(label_propagation, "WIDE", 64)
    assert np.allclose(neighbor_graph(features).toarray(), exact, atol=1e-2)


@pytest.mark.parametrize("width", [3, 63])
def test_narrow_features_are_left_as_they_are(width):
    features = np.random.default_rng(0).normal(size=(50, width))
    assert np.array_equal(neighbor_graph(features).toarray(), affinity(features).toarray())


def test_few_images_are_left_as_they_are():
    features = np.random.default_rng(0).normal(size=(63, 256))
    assert np.array_equal(neighbor_graph(features).toarray(), affinity(features).toarray())
