"""Temperature against a slow search, and by what it does to the calibration error."""

import numpy as np
import pytest
import torch

from ssl_app.evaluation.calibration import calibration
from ssl_app.evaluation.temperature import fit, tempered
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble


def drawn(images: int, classes: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are `sharpness` times too sure, and labels that are drawn by the true ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(images, classes))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(classes, p=row) for row in true])
    given = np.exp(sharpness * logits)
    return given / given.sum(1, keepdims=True), labels


def slow_loss(probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The log-loss, image by image, and that of a log temperature with a standard deviation of a half."""
    total = 2 * np.log(temperature) ** 2
    for row, label in zip(probabilities, labels, strict=True):
        scaled = row ** (1 / temperature) / (row ** (1 / temperature)).sum()
        total -= np.log(scaled[label])
    return total


@pytest.mark.parametrize(("images", "classes", "sharpness"), [(40, 3, 3.0), (60, 2, 0.5), (24, 6, 1.0)])
def test_it_is_the_minimum_of_a_slow_grid_search(images: int, classes: int, sharpness: float) -> None:
    probabilities, labels = drawn(images, classes, sharpness)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 401))
    best = grid[np.argmin([slow_loss(probabilities, labels, temperature) for temperature in grid])]
    assert fit(probabilities, labels) == pytest.approx(best, rel=0.012), "a step of the grid is 1.2 %"


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_many_images_find_how_much_too_sure_a_classifier_is(sharpness: float) -> None:
    probabilities, labels = drawn(6000, 4, sharpness)
    assert fit(probabilities, labels) == pytest.approx(sharpness, rel=0.06)
    after = calibration(tempered(probabilities, sharpness), labels).ece
    assert after < 0.02
    assert sharpness == 1 or calibration(probabilities, labels).ece > 0.1


@pytest.mark.parametrize("count", [1, 4, 10])
def test_a_few_images_that_are_all_right_do_not_make_it_certain(count: int) -> None:
    probabilities = np.full((count, 2), 0.3)
    probabilities[:, 0] = 0.7
    chosen = fit(probabilities, np.zeros(count, dtype=int))
    assert 0.4 < chosen < 1
    assert tempered(probabilities, chosen).max() < 0.9


@pytest.mark.parametrize("right", [True, False])
def test_one_image_that_is_certain_says_little(right: bool) -> None:
    chosen = fit([[1.0, 0.0]], [0 if right else 1])
    assert (chosen == pytest.approx(1, abs=1e-3)) if right else 1 < chosen < 20


def test_an_ensemble_is_tempered_as_its_table_is() -> None:
    backbone = backbones.build("small-resnet", 1, 16)
    heads = [build_head("linear", backbone.shape(), 3) for _ in range(2)]
    one = Ensemble([Classifier(backbone, head, None, torch.zeros(0)) for head in heads]).eval()
    images = torch.randn(5, 1, 16, 16)
    with torch.no_grad():
        before = one.probabilities(images).numpy()
        one.temperature = 1.7
        assert np.allclose(one.probabilities(images).numpy(), tempered(before, 1.7))
    assert (tempered(before, 1.7).argmax(1) == before.argmax(1)).all()
    assert tempered([[1.0, 0.0]], 2.0) == pytest.approx(np.array([[1.0, 0.0]])), "a probability of 0 has a logarithm"
