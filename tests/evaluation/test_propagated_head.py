import numpy as np

from ssl_app.evaluation import logistic, propagated_head


def rings(count, seed=0):
    """Two arcs of directions around one axis, bent so that one label says little of its arc. -> (N, 3), (N,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    angle = np.pi * random.random(count)
    x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
    y = np.where(labels == 0, np.sin(angle), 0.4 - np.sin(angle))
    points = np.stack([x, y], 1) + 0.05 * random.normal(size=(count, 2))
    return np.c_[points, np.full(count, 3)].astype(np.float32), labels


def test_unlabeled_images_help_a_head_of_few_labels():
    features, labels = rings(400)
    new, truth = rings(200, seed=1)
    gains = []
    for draw in range(5):
        random = np.random.default_rng(draw)
        drawn = np.concatenate([random.choice(np.flatnonzero(labels == label), 2, replace=False) for label in (0, 1)])
        alone = logistic.fit_at(features[drawn], labels[drawn], 2, logistic.RULE)
        head, _ = propagated_head.fit(features, drawn, labels[drawn], 2)
        right = [(each.logits(new).argmax(1) == truth).mean() for each in (alone, head)]
        gains.append(right[1] - right[0])
    assert np.mean(gains) > 0.05


def test_images_out_of_reach_do_not_count():
    features, labels = rings(60)
    features[50:] *= -1  # opposite to all others
    near, _ = propagated_head.fit(features[:50], [0, 1], labels[:2], 2)
    with_far, _ = propagated_head.fit(features, [0, 1], labels[:2], 2)
    assert np.allclose(near.weight, with_far.weight, atol=1e-3)
    assert np.allclose(near.bias, with_far.bias, atol=1e-3)
    assert with_far.how.startswith("C = 30, by rule, on labels propagated to 50 of 60 images (mean certainty 0.")


def test_without_propagation_it_is_the_head_of_the_drawn_images():
    features, labels = rings(60)
    drawn = np.arange(10)
    head, _ = propagated_head.fit(features, drawn, labels[drawn], 2, alpha=0.0)
    alone = logistic.fit_at(features[drawn], labels[drawn], 2, logistic.RULE)
    assert np.allclose(head.logits(features), alone.logits(features), atol=1e-4)


def test_a_class_without_a_label_is_fitted():
    features, labels = rings(60)
    head, _ = propagated_head.fit(features, [0, 1], labels[:2], 3)
    assert head.weight.shape == (3, 3)
    assert np.isfinite(head.weight).all()
    assert set(head.logits(features).argmax(1)) <= {0, 1}


def test_of_many_images_some_are_fitted_to_and_it_is_said(monkeypatch):
    features, labels = rings(400)
    drawn = np.concatenate([np.flatnonzero(labels == label)[:3] for label in (0, 1)])
    whole, _ = propagated_head.fit(features, drawn, labels[drawn], 2)
    monkeypatch.setattr(propagated_head, "MOST", 150)
    head, found = propagated_head.fit(features, drawn, labels[drawn], 2)
    assert head.how == f"{whole.how}, and fitted to 156 of them"
    assert found.targets.shape == (400, 2)
    assert (head.logits(features).argmax(1) == whole.logits(features).argmax(1)).mean() > 0.95
