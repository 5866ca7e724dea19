"""SimCLR against a double loop over pairs, written from the paper."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Frame
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.byol import BYOL
from ssl_app.pretext.parts.contrastive import STRENGTHS, contrastive_views, nt_xent, views_of
from ssl_app.pretext.simclr import SimCLR, SimCLRConfig
from ssl_app.pretraining.schedule import Schedule, plan_of


def make(channels: int = 1, **settings: object) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(build("small-resnet", channels, 32), SimCLRConfig(**settings), TrainingSet(64, 3))


def unit(count: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, width, generator=generator), dim=1)


def by_double_loop(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Equation 1 of the paper: the mean over all 2B views of -log of the partner's share of the exponentials."""
    views = [*first.tolist(), *second.tolist()]
    count = len(views)

    def similarity(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(views[i], views[j], strict=True))

    total = 0.0
    for i in range(count):
        partner = (i + count // 2) % count
        others = sum(math.exp(similarity(i, j) / temperature) for j in range(count) if j != i)
        total -= math.log(math.exp(similarity(i, partner) / temperature) / others)
    return total / count


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_nt_xent_equals_a_double_loop_over_pairs(count: int, temperature: float) -> None:
    first, second = unit(count).double(), unit(count, seed=1).double()
    found = nt_xent(torch.cat([first, second]), torch.arange(count), temperature)
    assert float(found) == pytest.approx(by_double_loop(first, second, temperature), abs=1e-9)


def test_identical_views_of_images_that_all_differ_lose_by_the_temperature_alone() -> None:
    eye = torch.eye(6)
    found = float(nt_xent(torch.cat([eye, eye]), torch.arange(6), 0.2))
    assert found == pytest.approx(math.log(1 + 10 * math.exp(-1 / 0.2)), abs=1e-6)


def test_the_loss_of_embeddings_in_one_point_is_log_2b_minus_1() -> None:
    same = torch.ones(16, 4) / 2
    assert float(nt_xent(same, torch.arange(8), 0.2)) == pytest.approx(math.log(15), abs=1e-5)


def test_views_of_the_same_image_are_never_negatives() -> None:
    first, second = unit(4), unit(4, seed=1)
    twice = torch.tensor([0, 1, 0, 2])
    found = nt_xent(torch.cat([first, second]), twice, 0.2)
    logits = torch.cat([first, second]) @ torch.cat([first, second]).t() / 0.2
    image = [0, 1, 0, 2] * 2
    losses = []
    for i in range(8):
        partner = (i + 4) % 8
        kept = [j for j in range(8) if j == partner or image[j] != image[i]]
        losses.append(torch.logsumexp(logits[i, kept], 0) - logits[i, partner])
    assert torch.allclose(found, torch.stack(losses).mean())


def test_the_second_view_is_the_positive() -> None:
    task = make()
    images = torch.randn(6, 1, 32, 32)
    other = Batch((images, images.flip(0)), torch.arange(6), None, 0)
    same = Batch((images, images), torch.arange(6), None, 0)
    task.eval()
    with torch.no_grad():
        assert float(task.loss(same, "main")[1]["retrieval"]) == 1
        assert float(task.loss(other, "main")[1]["retrieval"]) < 1


def test_batches_are_128_where_the_images_allow_it() -> None:
    assert plan_of(Schedule(epochs=2), SimCLR, 5000).batch_size == 128, (
        "however few the steps: they are the negatives"
    )
    assert plan_of(Schedule(epochs=2), SimCLR, 60).batch_size == 60


def test_chance_depends_on_the_batch() -> None:
    assert make().chance_at(128) == 1 / 128


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_views_are_images_and_differ(strength: str, channels: int) -> None:
    image = np.random.default_rng(0).random((40, 40, channels), dtype=np.float32) * 0.4 + 0.3
    augmentation = contrastive_views(Frame(32, 40, channels), STRENGTHS[strength])
    views = np.stack([augmentation(image, seed, 0) for seed in range(20)])
    assert views.shape == (20, 32, 32, channels)
    assert views.dtype == np.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert len(np.unique(views.reshape(20, -1), axis=0)) == 20
    assert not np.array_equal(augmentation(image, 3, 0), augmentation(image, 3, 1)), "of one image"


def test_strong_views_hide_the_exposure_of_gray_images_and_light_ones_less() -> None:
    """Mean brightness of two views of an image: were it alike, exposure would find the pair."""
    generator = np.random.default_rng(1)
    exposure = generator.uniform(0.25, 0.75, (120, 1, 1, 1))
    images = (exposure + generator.normal(0, 0.05, (120, 40, 40, 1))).clip(0, 1).astype(np.float32)

    def correlation(strength: str) -> float:
        augmentation = contrastive_views(Frame(32, 40), STRENGTHS[strength])
        means = [[augmentation(image, i, view).mean() for i, image in enumerate(images)] for view in (0, 1)]
        return float(np.corrcoef(means)[0, 1])

    assert correlation("strong") < correlation("medium") < correlation("light")
    assert correlation("strong") < 0.5


def test_mixed_views_of_an_image_are_both_strong_or_both_light_for_about_half_of_the_images() -> None:
    image, frame = np.random.default_rng(0).random((40, 40, 1), dtype=np.float32), Frame(32, 40)
    mixed, strong, light = (views_of(frame, name) for name in ("mixed", "strong", "light"))

    def is_strong(seed: int, view: int) -> bool:
        found = mixed(image, seed, view)
        matches = [np.array_equal(found, of(image, seed, view)) for of in (strong, light)]
        assert sum(matches) == 1
        return matches[0]

    drawn = [is_strong(seed, 0) for seed in range(200)]
    assert drawn == [is_strong(seed, 1) for seed in range(200)]
    assert 75 < sum(drawn) < 125


@pytest.mark.parametrize("method", [SimCLR, BYOL])
def test_views_are_mixed_unless_a_strength_is_named(method: type[SimCLR] | type[BYOL]) -> None:
    assert method.Config().views == "mixed"
