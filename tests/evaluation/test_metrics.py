import numpy as np
import pytest
from sklearn import metrics

from ssl_app.evaluation.metrics import classification


@pytest.mark.parametrize("classes", [3, 8])
def test_metrics_are_those_of_scikit_learn(classes):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 200)
    probabilities = random.dirichlet(np.ones(classes), 200) + 0.5 * np.eye(classes)[labels]
    predicted = probabilities.argmax(1)
    result = classification(probabilities, labels, [f"c{k}" for k in range(classes)])
    assert result["n"] == 200
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert result["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert result["confusion"] == metrics.confusion_matrix(labels, predicted).tolist()
    precision, recall, f1, n = metrics.precision_recall_fscore_support(labels, predicted)
    for k, row in enumerate(result["per_class"]):
        assert row["class"] == f"c{k}"
        assert (row["n"], row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (n[k], precision[k], recall[k], f1[k])
        )


def test_top5_is_given_above_five_classes_only():
    random = np.random.default_rng(1)
    labels, scores = random.integers(0, 9, 100), random.normal(size=(100, 9))
    expected = metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(9))
    assert classification(scores, labels, list("abcdefghi"))["top5_accuracy"] == pytest.approx(expected)
    assert "top5_accuracy" not in classification(scores[:, :5], labels % 5, list("abcde"))


def test_equal_scores_are_no_top5_hit_for_all():
    scores, labels = np.zeros((8, 8)), np.arange(8)
    assert classification(scores, labels, list("abcdefgh"))["top5_accuracy"] == 5 / 8


def test_an_absent_class_is_none_and_not_zero():
    result = classification(np.eye(3)[[0, 1, 1]], [0, 1, 0], ["a", "b", "c"])
    assert result["balanced_accuracy"] == 0.75
    assert result["per_class"][2] == {"class": "c", "n": 0, "precision": None, "recall": None, "f1": None}


def test_f1_is_of_the_classes_that_are_there():
    assert classification(np.eye(3)[[0, 1, 1]], [0, 1, 0], ["a", "b", "c"])["macro_f1"] == pytest.approx(2 / 3)


def test_of_equal_scores_the_first_class_is_taken():
    for label, hit in ((0, 1.0), (5, 0.0)):
        assert classification(np.zeros((1, 6)), [label], list("abcdef"))["top5_accuracy"] == hit
