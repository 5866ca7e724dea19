import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_app.evaluation import logistic
from ssl_app.evaluation.logistic import RULE, fit, fit_at

BOTH = pytest.mark.parametrize("device", [None, "cpu"])


def blobs(count, width, classes, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return 3.0 + random.normal(size=(classes, width))[labels] + random.normal(size=(count, width)), labels


def standardized(features, weights=None):
    centered = features - np.average(features, axis=0, weights=weights)
    return centered / np.sqrt(np.average((centered**2).sum(1), weights=weights))


def soft(count, classes, seed=0):
    """Probabilities of classes and weights of images, some of them 0. -> (N, K), (N,)."""
    random = np.random.default_rng(seed)
    weights = random.random(count) * (random.random(count) < 0.9)
    return random.dirichlet(np.full(classes, 0.3), count), weights


@BOTH
@pytest.mark.parametrize(("count", "width"), [(60, 8), (24, 100)])
def test_it_finds_the_optimum_that_scikit_learn_finds(count, width, device):
    features, labels = blobs(count, width, 3)
    ours = fit(features, labels, 3, device=device)
    theirs = LogisticRegression(C=RULE, tol=1e-8, max_iter=5000).fit(standardized(features), labels)
    expected = theirs.predict_proba(standardized(features))
    assert np.abs(ours.probabilities(features) - expected).max() < 2e-3


@BOTH
@pytest.mark.parametrize(("count", "width"), [(60, 8), (24, 100)])
def test_soft_targets_are_the_weighted_sum_over_their_classes(count, width, device):
    features, _ = blobs(count, width, 3)
    targets, weights = soft(count, 3)
    ours = fit_at(features, targets, 3, 3.0, weights=weights, device=device)
    # every image once for each class, weighing what its target says
    x, y = np.repeat(standardized(features, weights), 3, axis=0), np.tile(np.arange(3), count)
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=5000).fit(
        x, y, sample_weight=(weights[:, None] * targets).ravel()
    )
    assert np.abs(ours.probabilities(features) - theirs.predict_proba(x[::3])).max() < 2e-3


@BOTH
def test_labels_and_certain_targets_are_one(device):
    features, labels = blobs(60, 8, 3)
    hard = fit(features, labels, 3, device=device)
    certain = fit(features, np.eye(3)[labels], 3, weights=np.ones(60), device=device)
    assert np.allclose(hard.weight, certain.weight, atol=1e-6)


@BOTH
def test_weight_two_is_an_image_given_twice_and_zero_one_left_out(device):
    features, labels = blobs(60, 8, 3)
    times = np.arange(60) % 4
    weighted = fit_at(features, labels, 3, 10.0, weights=times, device=device)
    repeated = fit_at(features.repeat(times, axis=0), labels.repeat(times), 3, 10.0, device=device)
    assert np.allclose(weighted.logits(features), repeated.logits(features), atol=2e-2 if device else 1e-4)


@BOTH
@pytest.mark.parametrize("strength", [0.1, 30.0, 1e5])
def test_the_gradient_is_small_at_the_end(strength, device):
    features, _ = blobs(80, 20, 3)
    targets, weights = soft(80, 3)
    found = fit_at(features, targets, 3, strength, weights=weights, device=device)
    # in the space of the fit: x = (features - center) / scale, and W scales with 1 / x
    center = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average(((features - center) ** 2).sum(1), weights=weights))
    x, w = (features - center) / scale, found.weight * scale
    wrong = weights[:, None] * (found.probabilities(features) - targets)
    assert np.abs(wrong.T @ x / weights.sum() + w / strength / weights.sum()).max() < (1e-3 if device else 1e-5)
    assert np.abs(wrong.sum(0) / weights.sum()).max() < (1e-3 if device else 1e-5)


@BOTH
def test_separable_classes_stay_finite(device):
    features = np.r_[np.eye(4) + 10, np.eye(4) - 10]
    found = fit_at(features, np.arange(8) // 4, 2, 1e5, device=device)
    assert np.isfinite(found.weight).all()
    assert np.isfinite(found.bias).all()
    assert (found.logits(features).argmax(1) == np.arange(8) // 4).all()


@pytest.mark.parametrize("turned", [0, 1500])
@pytest.mark.parametrize("block", [64, 2**24])
def test_neither_blocks_nor_axes_change_the_optimum(turned, block, monkeypatch):
    features, labels = blobs(150, 8, 3)
    targets, weights = soft(150, 3)
    whole = [fit(features, y, 3, weights=w).probabilities(features) for y, w in ((labels, None), (targets, weights))]
    monkeypatch.setattr(logistic, "TURNED", turned)
    monkeypatch.setattr(logistic, "BLOCK", block)
    for (y, w), expected in zip(((labels, None), (targets, weights)), whole, strict=True):
        found = fit(features, y, 3, weights=w, device="cpu").probabilities(features)
        assert np.abs(found - expected).max() < 2e-3


def test_the_weights_are_those_of_a_linear_layer_on_the_features_as_given():
    features, labels = blobs(24, 100, 3)
    ours = fit(1000 * features + 5, labels, 3)
    plain = fit(features, labels, 3)
    logits = (1000 * features + 5) @ ours.weight.T + ours.bias
    assert ours.weight.shape == (3, 100)
    assert np.allclose(logits, plain.logits(features), atol=1e-5)


def test_more_dimensions_than_images_change_nothing_but_the_space():
    features, labels = blobs(20, 12, 2)
    random = np.random.default_rng(1)
    basis, _ = np.linalg.qr(random.normal(size=(300, 12)))  # an isometry into 300 dimensions
    new = random.normal(size=(9, 12))
    small = fit(features, labels, 2).logits(new)
    large = fit(features @ basis.T, labels, 2).logits(new @ basis.T)
    assert np.allclose(small, large, atol=2e-3)


def test_how_c_was_chosen_is_said():
    features, labels = blobs(16, 40, 2)
    rows = np.arange(16)
    folds = [(rows[rows // 4 != k], rows[rows // 4 == k]) for k in range(4)]
    assert fit(features, labels, 2, folds=folds).how.endswith(", chosen by 4 folds inside the draw")
    validation = (features[8:], labels[8:])
    assert fit(features[:8], labels[:8], 2, validation=validation).how.endswith(", chosen on 8 validation images")
    alone = fit(features[:2], labels[:2], 2)
    assert alone.how == "C = 30, by rule: 1 label per class cannot be folded"
    assert alone.strength == RULE


@BOTH
def test_validation_images_are_judged_by_fits_that_have_not_seen_them(device):
    random = np.random.default_rng(0)
    features, labels, rows = random.normal(size=(60, 200)), random.integers(0, 2, 60), np.arange(60)
    folds = [(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)]
    found = fit(features, labels, 2, folds=folds, device=device)
    assert [each.shape for each in found.validation_logits] == [(20, 2)] * 3
    guesses = np.concatenate([each.argmax(1) for each in found.validation_logits])
    assert (guesses == labels[np.concatenate([held for _, held in folds])]).mean() < 0.75, "noise"
    apart = fit(features[:40], labels[:40], 2, validation=(features[40:], labels[40:]), device=device)
    assert np.allclose(apart.validation_logits[0], apart.logits(features[40:]), atol=0.05)


def test_targets_and_weights_count_in_the_choice_of_c():
    features, labels = blobs(48, 200, 3)
    rows = np.arange(48)
    folds = [(rows[rows // 12 != k], rows[rows // 12 == k]) for k in range(4)]
    noise = np.full((48, 3), 1 / 3)
    assert (
        fit(features, noise, 3, folds=folds).strength
        < 10
        <= fit(features, np.eye(3)[labels], 3, folds=folds).strength
    )
    wrong = np.where(rows % 2, labels, (labels + rows) % 3)
    weights = 0.01 + rows % 2  # the images with wrong labels hardly count
    assert (
        fit(features, wrong, 3, folds=folds).strength < fit(features, wrong, 3, weights=weights, folds=folds).strength
    )


def test_noise_is_regularized_and_signal_is_not():
    random = np.random.default_rng(0)
    rows = np.arange(48)
    folds = [(rows[rows // 12 != k], rows[rows // 12 == k]) for k in range(4)]
    noise = fit(random.normal(size=(48, 200)), rows % 3, 3, folds=folds)
    features, labels = blobs(48, 200, 3)
    signal = fit(features, labels, 3, folds=folds)
    assert noise.strength < 10 <= signal.strength


@BOTH
def test_degenerate_draws_are_fitted(device):
    labels = np.array([0, 0, 1, 1])
    flat = fit(np.ones((4, 6)), labels, 3, device=device)
    assert np.allclose(flat.weight, 0)
    lacking = fit(np.eye(4), labels, 3, folds=[(np.array([0, 1]), np.array([2, 3]))], device=device)
    assert lacking.weight.shape == (3, 4)
    assert (lacking.logits(np.eye(4)).argmax(1) == labels).all()


def test_what_cannot_be_fitted_is_refused():
    features, labels = blobs(6, 4, 3)
    for targets, weights in (
        (labels + 1, None),
        (labels, np.zeros(6)),
        (labels, -np.ones(6)),
        (np.eye(3)[labels] / 2, None),
    ):
        with pytest.raises(AssertionError):
            fit(features, targets, 3, weights=weights)
