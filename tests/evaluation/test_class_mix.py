import numpy as np

from ssl_app.evaluation.class_mix import agreed, estimate


def posteriors(mix: np.ndarray, trained_on: np.ndarray, count: int = 4000) -> np.ndarray:
    """Right probabilities for images of `mix`, by a classifier that saw the classes in other shares. (N, K)."""
    generator = np.random.default_rng(0)
    labels = generator.choice(len(mix), count, p=mix)
    seen = generator.normal(size=(count, len(mix))) + 1.5 * np.eye(len(mix))[labels]  # (N, K)
    likelihood = np.exp(1.5 * seen)  # of unit normals around 1.5 e_k, up to a factor of the image's own
    joint = likelihood * trained_on
    return joint / joint.sum(1, keepdims=True)


def slowly(probabilities: np.ndarray, trained_on: np.ndarray, steps: int) -> np.ndarray:
    """Saerens et al., equations 2.7 to 2.9, image by image."""
    mix = trained_on.copy()
    for _ in range(steps):
        new = np.zeros_like(mix)
        for row in probabilities:
            weighted = [row[k] * mix[k] / trained_on[k] for k in range(len(mix))]
            for k in range(len(mix)):
                new[k] += weighted[k] / sum(weighted) / len(probabilities)
        mix = new
    return mix


def test_it_is_the_em_of_the_paper() -> None:
    trained_on = np.array([0.5, 0.3, 0.2])
    found = posteriors(np.array([0.2, 0.2, 0.6]), trained_on, 60)
    np.testing.assert_allclose(estimate(found, trained_on, 7), slowly(found, trained_on, 7), rtol=1e-10)


def test_an_uneven_mix_is_found_from_an_even_draw() -> None:
    mix, even = np.array([0.7, 0.2, 0.1]), np.full(3, 1 / 3)
    found = posteriors(mix, even)
    np.testing.assert_allclose(estimate(found, even), mix, atol=0.03)
    assert abs(found.mean(0) - mix).max() > 0.08, "the mean of the predictions is further from it"


def test_a_class_that_was_not_trained_on_has_no_share() -> None:
    found = estimate([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]], [0.5, 0.5, 0.0])
    assert found[2] == 0
    assert found.sum() == 1
    np.testing.assert_array_equal(estimate(np.empty((0, 2)), [3, 1]), [0.75, 0.25])


def test_two_estimates_far_apart_are_not_believed() -> None:
    one, other = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.5, 0.2])
    found = agreed(one, other)
    assert found is not None
    np.testing.assert_allclose(found, np.sqrt(one * other) / np.sqrt(one * other).sum())
    assert agreed(one, np.array([0.7, 0.25, 0.05])) is None
    assert agreed(np.array([1.0, 0.0]), np.array([0.9, 0.1])) is None
