from types import SimpleNamespace

import numpy as np
import pytest

from ssl_app.evaluation import linear_probe, logistic
from ssl_app.evaluation.logistic import STRENGTHS


def blobs(count, width, classes, seed=0, apart=1.0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centers = apart * random.normal(size=(classes, width))
    return 3.0 + centers[labels] + random.normal(size=(count, width)), labels


@pytest.fixture
def large(monkeypatch):
    """Fit few images as many are fitted."""
    monkeypatch.setattr(linear_probe, "LARGE", 0)


def softmax(logits):
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def both(features, labels, classes, held, monkeypatch):
    exact = linear_probe.fit(features, labels, classes, held)
    monkeypatch.setattr(linear_probe, "LARGE", 0)
    return exact, linear_probe.fit(features, labels, classes, held)


@pytest.mark.parametrize(("count", "width"), [(240, 6), (60, 90)])
def test_many_images_are_fitted_as_few_are(count, width, monkeypatch):
    features, labels = blobs(count, width, 3, apart=0.6)
    held = linear_probe.hold_out(labels, None, 0)
    exact, fast = both(features, labels, 3, held, monkeypatch)
    # the choice of C is flat: two paths may end a step apart, and say the same of every image
    assert np.abs(fast.classifier.probabilities(features) - exact.classifier.probabilities(features)).max() < 1e-2
    losses = [
        -np.log(softmax(probe.held_logits)[np.arange(held.sum()), labels[held]]).mean() for probe in (exact, fast)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.15)
    assert np.array_equal(exact.held_logits.argmax(1), fast.held_logits.argmax(1))


def test_few_images_are_fitted_in_f64_and_many_in_f32(monkeypatch):
    features, labels = blobs(1001, 4, 2, apart=2)
    held = linear_probe.hold_out(labels, None, 0)
    devices = []

    def fit(*arguments, device, **options):
        devices.append(device)
        return logistic.fit(*arguments, device=device, **options)

    monkeypatch.setattr(linear_probe, "logistic", SimpleNamespace(fit=fit))
    many = linear_probe.fit(features, labels, 2, held)
    linear_probe.fit(features[:1000], labels[:1000], 2, held[:1000])
    assert devices == ["cpu", None]
    assert (many.classifier.logits(features).argmax(1) == labels).mean() > 0.8


def test_the_weights_are_for_the_features_as_given(large):
    features, labels = blobs(120, 10, 3)
    held = linear_probe.hold_out(labels, None, 0)
    plain = linear_probe.fit(features, labels, 3, held).classifier
    scaled = linear_probe.fit(1000 * features + 5, labels, 3, held).classifier
    assert plain.weight.shape == (3, 10)
    assert np.allclose(scaled.logits(1000 * features + 5), plain.logits(features), atol=2e-2)


@pytest.mark.parametrize("above", [0, 1000])
def test_strength_is_chosen_by_those_held_out_and_said(above, monkeypatch):
    monkeypatch.setattr(linear_probe, "LARGE", above)
    held = np.arange(60) % 5 == 0
    noise = linear_probe.fit(np.random.default_rng(0).normal(size=(60, 100)), np.arange(60) % 3, 3, held)
    features, labels = blobs(60, 100, 3)
    signal = linear_probe.fit(features, labels, 3, held)
    assert noise.classifier.strength < 10 <= signal.classifier.strength
    assert signal.classifier.strength in STRENGTHS
    assert signal.classifier.how == f"C = {signal.classifier.strength:g}, chosen on 12 training images held out"
    assert (signal.held_logits.argmax(1) == labels[held]).mean() > 0.9, "in the order of the images"


@pytest.mark.parametrize("above", [0, 1000])
def test_what_is_held_out_is_judged_by_a_fit_that_has_not_seen_it(above, monkeypatch):
    monkeypatch.setattr(linear_probe, "LARGE", above)
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(80, 200)), random.integers(0, 2, 80)
    held = np.arange(80) % 5 == 0
    probe = linear_probe.fit(features, labels, 2, held)
    turned = linear_probe.fit(features, np.where(held, 1 - labels, labels), 2, held)
    if turned.classifier.strength == probe.classifier.strength:
        assert np.allclose(probe.held_logits, turned.held_logits, atol=1e-3)
    assert (probe.held_logits.argmax(1) == labels[held]).mean() < 0.9, "noise"


@pytest.mark.parametrize("above", [0, 1000])
def test_degenerate_features_are_fitted(above, monkeypatch):
    monkeypatch.setattr(linear_probe, "LARGE", above)
    nothing = linear_probe.fit(np.ones((4, 6)), [0, 0, 1, 1], 3, np.zeros(4, bool))
    assert np.allclose(nothing.classifier.weight, 0)
    assert nothing.held_logits is None
    assert nothing.classifier.how == "C = 30, by rule: nothing can be held out"
    lacking = linear_probe.fit(np.eye(4), [0, 0, 1, 1], 3, np.array([0, 0, 0, 1], bool))
    assert lacking.classifier.weight.shape == (3, 4)
    assert lacking.held_logits.shape == (1, 3)
    assert (lacking.classifier.logits(np.eye(4)).argmax(1) == [0, 0, 1, 1]).all()


def test_a_fifth_of_every_class_is_held_out():
    labels = np.repeat([0, 1, 2, 3], [100, 35, 4, 1])
    held = linear_probe.hold_out(labels, None, 0)
    assert [int(held[labels == k].sum()) for k in range(4)] == [20, 7, 1, 0]
    assert np.array_equal(held, linear_probe.hold_out(labels, None, 0))
    assert not np.array_equal(held, linear_probe.hold_out(labels, None, 1))


def test_no_group_is_cut():
    random = np.random.default_rng(0)
    groups = random.integers(0, 40, 300)
    labels = (groups + (random.random(300) < 0.1)) % 3
    held = linear_probe.hold_out(labels, [f"patient {group}" for group in groups], 0)
    assert not set(groups[held]) & set(groups[~held])
    assert 0.1 < held.mean() <= 0.25
    assert set(labels[held]) == {0, 1, 2}


def test_groups_that_are_large_give_their_smallest():
    groups = np.repeat([0, 1, 2, 3], [30, 15, 20, 40])
    labels = np.repeat([0, 0, 0, 1], [30, 15, 20, 40])
    assert set(groups[linear_probe.hold_out(labels, groups, 0)]) == {1}


@pytest.mark.parametrize("above", [0, 1000])
def test_classes_weigh_the_same_in_the_choice(above, monkeypatch):
    monkeypatch.setattr(linear_probe, "LARGE", above)
    rows = np.arange(200)
    labels, held = (rows % 10 == 0).astype(int), rows // 10 % 5 == 0
    features = np.random.default_rng(1).normal(size=(200, 20))
    features[:, 0] += 1.5 * labels
    assert linear_probe.fit(features, labels, 2, held).classifier.strength == 30, "3 where images weigh the same"
