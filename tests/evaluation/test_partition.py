import numpy as np
import pytest
from sklearn import metrics

from ssl_app.errors import DataError
from ssl_app.evaluation.partition import agreement_scores, partition


def blobs(count, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    return 6 * np.eye(8)[labels] + random.normal(size=(count, 8)), labels


def test_classes_that_lie_apart_are_found_in_images_that_were_not_clustered():
    (train, train_labels), (test, labels) = blobs(200), blobs(60, seed=1)
    found = partition(train, test, 4, seed=0)
    for clusters, truth in ((found.train, train_labels), (found.test, labels)):
        assert agreement_scores(clusters, truth) == pytest.approx((1, 1, 1))
    assert np.array_equal(found.test, partition(10 * train, 0.1 * test, 4, seed=0).test), "the length says nothing"


def test_test_images_move_no_centroid():
    (train, _), (test, _) = blobs(200), blobs(60, seed=1)
    whole, some = partition(train, test, 7, seed=0), partition(train, test[:9], 7, seed=0)
    assert np.array_equal(whole.train, some.train)
    assert np.array_equal(whole.test[:9], some.test)


def test_the_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    clusters = np.where(random.random(300) < 0.4, labels, random.integers(0, 30, 300))
    assert agreement_scores(clusters, labels) == pytest.approx(
        (
            metrics.normalized_mutual_info_score(labels, clusters, average_method="geometric"),
            metrics.adjusted_mutual_info_score(labels, clusters),
            metrics.adjusted_rand_score(labels, clusters),
        )
    )


def test_more_clusters_than_images_are_refused():
    with pytest.raises(DataError, match="5 images cannot make 6 clusters"):
        partition(np.eye(5), np.eye(5), 6, seed=0)
