import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_app.models.logistic import RULE, fit


def blobs(count, width, classes, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return 3.0 + random.normal(size=(classes, width))[labels] + random.normal(size=(count, width)), labels


def standardized(features):
    centered = features - features.mean(0)
    return centered / np.sqrt((centered**2).sum(1).mean())


@pytest.mark.parametrize(("count", "width"), [(60, 8), (24, 100)])
def test_it_finds_the_optimum_that_scikit_learn_finds(count, width):
    features, labels = blobs(count, width, 3)
    ours = fit(features, labels, 3, folds=None)
    theirs = LogisticRegression(C=RULE, tol=1e-8, max_iter=5000).fit(standardized(features), labels)
    expected = theirs.predict_proba(standardized(features))
    assert np.abs(ours.probabilities(features) - expected).max() < 2e-3


def test_the_weights_are_those_of_a_linear_layer_on_the_features_as_given():
    features, labels = blobs(24, 100, 3)
    ours = fit(1000 * features + 5, labels, 3, folds=None)
    plain = fit(features, labels, 3, folds=None)
    logits = (1000 * features + 5) @ ours.weight.T + ours.bias
    assert ours.weight.shape == (3, 100)
    assert np.allclose(logits, plain.logits(features), atol=1e-5)


def test_more_dimensions_than_images_change_nothing_but_the_space():
    features, labels = blobs(20, 12, 2)
    random = np.random.default_rng(1)
    basis, _ = np.linalg.qr(random.normal(size=(300, 12)))  # an isometry into 300 dimensions
    new = random.normal(size=(9, 12))
    small = fit(features, labels, 2, folds=None).logits(new)
    large = fit(features @ basis.T, labels, 2, folds=None).logits(new @ basis.T)
    assert np.allclose(small, large, atol=2e-3)


def test_how_c_was_chosen_is_said():
    features, labels = blobs(16, 40, 2)
    rows = np.arange(16)
    folds = [(rows[rows // 4 != k], rows[rows // 4 == k]) for k in range(4)]
    assert fit(features, labels, 2, folds=folds).how.endswith(", chosen by 4 folds inside the draw")
    held_out = fit(features[:8], labels[:8], 2, folds=None, validation=(features[8:], labels[8:]))
    assert held_out.how.endswith(", chosen on 8 validation images")
    alone = fit(features[:2], labels[:2], 2, folds=None)
    assert alone.how == "C = 30, by rule: 1 label per class cannot be folded"
    assert alone.strength == RULE


def test_noise_is_regularized_and_signal_is_not():
    random = np.random.default_rng(0)
    rows = np.arange(48)
    folds = [(rows[rows // 12 != k], rows[rows // 12 == k]) for k in range(4)]
    noise = fit(random.normal(size=(48, 200)), rows % 3, 3, folds=folds)
    features, labels = blobs(48, 200, 3)
    signal = fit(features, labels, 3, folds=folds)
    assert noise.strength < 10 <= signal.strength


def test_degenerate_draws_are_fitted():
    labels = np.array([0, 0, 1, 1])
    flat = fit(np.ones((4, 6)), labels, 3, folds=None)
    assert np.allclose(flat.weight, 0)
    lacking = fit(np.eye(4), labels, 3, folds=[(np.array([0, 1]), np.array([2, 3]))])
    assert lacking.weight.shape == (3, 4)
    assert (lacking.logits(np.eye(4)).argmax(1) == labels).all()
