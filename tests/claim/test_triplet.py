"""Triplet: the claims of methods.md section 10, against torch's own loss and brute force over 32 points."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.errors import DataError, SettingsError
from ssl_app.models.backbones import Backbone, build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.parts.contrastive import embedding_std, retrieval
from ssl_app.pretext.triplet import (
    SCALE,
    SHEAR,
    SHIFT,
    TURN,
    Triplet,
    distance,
    mined,
    random_affine,
    warp,
)
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from ssl_app.training.task import Metrics
from tests import toys

SIDE = 16
IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def task_of(channels: int = 1, **settings: object) -> Triplet:
    torch.manual_seed(0)
    return Triplet(build("small-resnet", channels, SIDE), Triplet.Config(**settings), TrainingSet(24, 4))


def compared_in(task: Triplet, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Anchors and positives, as the network sees them. -> (B, C, S, S) each."""
    (both,) = toys.inputs_of(task.backbone, lambda: task.loss(batch, "main"))
    first, second = both.chunk(2)
    return first, second


def batch_of(count: int = 8, views: int = 2, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = tuple(torch.randn(count, 1, SIDE, SIDE, generator=generator) for _ in range(views))
    return Batch(images, torch.arange(count), None, seed)


def points(images: int = 16, dimensions: int = 4, seed: int = 0) -> torch.Tensor:
    """Two views of so many images, on the sphere: the second views near the first."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(images, dimensions, generator=generator)
    second = first + 0.7 * torch.randn(images, dimensions, generator=generator)
    return functional.normalize(torch.cat([first, second]), dim=1)


def brute_force(embedding: torch.Tensor, index: torch.Tensor, margin: float, hardest: bool) -> torch.Tensor:
    """One anchor and one negative at a time. -> the hinge of each anchor, 0 where it has no negative."""
    images = [*index.tolist(), *index.tolist()]
    hinges = []
    for anchor in range(len(embedding)):
        partner = (anchor + len(index)) % len(embedding)
        others = [other for other in range(len(embedding)) if images[other] != images[anchor]]
        if not others:
            hinges.append(torch.zeros(()))
            continue
        far = {other: float((embedding[anchor] - embedding[other]).norm()) for other in others}
        positive = float((embedding[anchor] - embedding[partner]).norm())
        farther = [other for other in others if far[other] > positive]
        if hardest:
            negative = min(others, key=far.get)
        elif farther:
            negative = min(farther, key=far.get)
        else:
            negative = max(others, key=far.get)
        triplet = [embedding[row][None] for row in (anchor, partner, negative)]
        hinges.append(functional.triplet_margin_loss(*triplet, margin=margin, p=2, eps=0))
    return torch.stack(hinges)


@pytest.mark.parametrize("hardest", [False, True])
@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5])
def test_mining_equals_brute_force_and_torchs_loss_on_32_points(margin: float, hardest: bool) -> None:
    for seed in range(3):
        embedding, index = points(seed=seed), torch.arange(16)
        found = mined(embedding, index, margin, hardest=hardest)
        torch.testing.assert_close(found, brute_force(embedding, index, margin, hardest))
        assert (found > 0).any()


def test_semi_hard_takes_the_farthest_where_none_is_farther_than_the_positive() -> None:
    embedding = functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [1.0, 0.2]]), dim=1)
    index = torch.arange(2)  # the positive of the first lies on the other side of the circle
    found = mined(embedding, index, 0.5, hardest=False)
    expected = distance(embedding[:1], embedding[2:3]) - distance(embedding[:1], embedding[3:4]) + 0.5
    torch.testing.assert_close(found[:1], expected)
    torch.testing.assert_close(found, brute_force(embedding, index, 0.5, False))


@pytest.mark.parametrize("hardest", [False, True])
def test_triplets_that_keep_the_margin_cost_nothing_and_have_no_gradient(hardest: bool) -> None:
    embedding = points(dimensions=16).requires_grad_()
    index = torch.arange(16)
    hinge = mined(embedding, index, 0.1, hardest=hardest)
    quiet = (hinge == 0).nonzero().flatten()
    assert 0 < len(quiet) < 32
    (gradient,) = torch.autograd.grad(hinge[quiet].sum(), embedding, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(hinge.sum(), embedding)
    assert gradient.any()
    apart = torch.eye(4).repeat(2, 1)  # views agree, images are sqrt(2) apart
    assert not mined(apart, torch.arange(4), 1.4, hardest=hardest).any()
    assert (mined(apart, torch.arange(4), 1.5, hardest=hardest) > 0).all()


def test_a_collapsed_embedding_costs_the_margin_and_its_gradient_is_finite() -> None:
    embedding = functional.normalize(torch.ones(8, 4), dim=1).requires_grad_()
    hinge = mined(embedding, torch.arange(4), 0.3, hardest=True)
    torch.testing.assert_close(hinge, torch.full((8,), 0.3))
    (gradient,) = torch.autograd.grad(hinge.sum(), embedding)
    assert gradient.isfinite().all()
    assert embedding_std(embedding.detach()) == 0
    assert retrieval(embedding.detach(), torch.arange(4)) == 0.25


@pytest.mark.parametrize("mining", ["semi-hard", "batch-hard"])
def test_the_two_views_play_the_same_part(mining: str) -> None:
    task = task_of(mining=mining)
    batch = batch_of()
    swapped = Batch(batch.views[::-1], batch.index, None, batch.seed)
    (one, metrics), (other, same) = task.loss(batch, "main"), task.loss(swapped, "main")
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(metrics, same)
    assert 0 <= float(metrics["active"]) <= 1


def test_both_views_go_through_the_network_in_one_batch() -> None:
    task = task_of()
    seen = toys.inputs_of(task.backbone, lambda: task.loss(batch_of(8), "main"))
    assert [len(images) for images in seen] == [16]


def test_retrieval_is_the_share_whose_nearest_of_the_other_views_is_the_partner() -> None:
    embedding = points(16)
    first, second = embedding[:16], embedding[16:]
    hits = [int(torch.cdist(a[None], second).argmin()) == row for row, a in enumerate(first)]
    hits += [int(torch.cdist(a[None], first).argmin()) == row for row, a in enumerate(second)]
    assert 0.2 < np.mean(hits) < 1
    assert float(retrieval(embedding, torch.arange(16))) == pytest.approx(np.mean(hits))


def test_embedding_std_is_1_all_over_the_sphere() -> None:
    assert float(embedding_std(functional.normalize(torch.randn(5000, 128), dim=1))) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("mining", ["semi-hard", "batch-hard"])
def test_validation_images_come_in_one_view_and_are_scored_the_same_way_each_time(mining: str) -> None:
    task = task_of(mining=mining).eval()
    with torch.no_grad():
        (one, metrics), (other, same) = (task.loss(batch_of(views=1), "main") for _ in range(2))
        assert torch.equal(one, other)
        assert metrics == same
        loss, metrics = task.loss(batch_of(1, views=1), "main")  # a last batch of one image: no negative
    assert loss == 0
    assert metrics["accuracy"] == 1
    assert torch.isfinite(torch.stack(list(metrics.values()))).all()


@pytest.mark.parametrize("side", [8, 28, 32])
def test_the_identity_is_a_copy(side: int) -> None:
    images = torch.randn(3, 2, side, side)
    copied = warp(images, IDENTITY.expand(3, 2, 3))
    if side == 28:  # 1 / 28 is rounded
        torch.testing.assert_close(copied, images, atol=1e-5, rtol=0)
    else:
        assert torch.equal(copied, images)


def test_a_quarter_turn_and_a_shift_are_numpys() -> None:
    images = torch.randn(1, 1, 8, 8)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    assert torch.equal(warp(images, quarter)[0, 0], torch.from_numpy(np.rot90(images[0, 0].numpy()).copy()))
    right = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # half a half side: what stood two pixels to the right
    moved = warp(images, right)[0, 0]
    assert torch.equal(moved[:, :6], images[0, 0, :, 2:])
    assert torch.equal(moved[:, 6:], images[0, 0, :, 6:].flip(1))  # and beyond the border its reflection


def test_no_wedge_is_filled_in_and_the_memory_format_stays() -> None:
    images = (torch.rand(64, 3, 32, 32) + 1).contiguous(memory_format=torch.channels_last)
    warped = warp(images, random_affine(64, torch.Generator().manual_seed(0)))
    assert warped.min() >= 1
    assert warped.max() <= 2
    assert warped.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(warped[0], images[0])


def test_autocast_does_not_round_where_pixels_come_from() -> None:
    images, maps = torch.randn(2, 1, 32, 32), random_affine(2, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = warp(images, maps)
    assert torch.equal(under, warp(images, maps))


def test_affine_maps_keep_their_bounds() -> None:
    maps = random_affine(4000, torch.Generator().manual_seed(0))
    scale = torch.linalg.det(maps[:, :, :2]).sqrt()  # a shear keeps areas
    assert scale.min() == pytest.approx(1 / SCALE, abs=0.01)
    assert scale.max() == pytest.approx(SCALE, abs=0.01)
    assert maps[:, :, 2].abs().max() == pytest.approx(2 * SHIFT, abs=0.01)
    turn = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert turn.abs().max() == pytest.approx(TURN, abs=0.1)
    columns = maps[:, :, :2] / maps[:, :, :2].norm(dim=1, keepdim=True)
    between = torch.acos((columns[:, :, 0] * columns[:, :, 1]).sum(1)).rad2deg()
    assert (between - 90).abs().max() == pytest.approx(SHEAR, abs=0.1)
    assert maps.mean(0).sub(IDENTITY).abs().max() < 0.02


def test_views_that_are_the_same_are_refused() -> None:
    same = torch.randn(8, 1, SIDE, SIDE)
    batch = Batch((same, same.clone()), torch.arange(8), None, 5)
    with pytest.raises(SettingsError) as error:
        task_of().loss(batch, "main")
    assert str(error.value) == "both views of every image are the same; type affine, or another augment"
    task_of(affine=True).loss(batch, "main")


def test_one_image_of_one_value_refuses_no_set() -> None:
    """A first slice is often black; pictures are drawn of one image at a time."""
    black = torch.zeros(1, 1, SIDE, SIDE)
    task_of().loss(Batch((black, black.clone()), torch.arange(1), None, 5), "main")


def test_affine_alters_both_views_each_in_its_own_way() -> None:
    plain, bent = task_of(), task_of(affine=True)
    same = torch.randn(4, 1, SIDE, SIDE)
    batch = Batch((same, same), torch.arange(4), None, 3)
    apart = Batch((same, same + 1), torch.arange(4), None, 3)
    for seen, view in zip(compared_in(plain, apart), apart.views, strict=True):
        assert torch.equal(seen, view)
    first, second = compared_in(bent, batch)
    assert not torch.allclose(first, same)
    assert not torch.allclose(second, same)
    assert not torch.allclose(first, second)


def test_pictures_are_a_query_and_its_nearest() -> None:
    task = task_of().eval()
    images = batch_of(7, views=1).images
    images[4] = images[1] + 0.001
    with torch.no_grad():
        pictures = task.pictures(Batch((images,), torch.arange(7), None, 0))["nearest"]
        alone = task.pictures(batch_of(1, views=1))
    assert pictures.shape == (7, 6, 1, SIDE, SIDE)
    assert torch.equal(pictures[:, 0], images)
    assert torch.equal(pictures[1, 1], images[4])
    assert torch.equal(pictures[4, 1], images[1])
    assert alone == {}


def test_a_set_of_copies_is_refused() -> None:
    different = np.random.default_rng(0).random((3, SIDE, SIDE, 1), np.float32)
    Triplet.check(different, Triplet.Config())
    with pytest.raises(DataError) as error:
        Triplet.check(np.concatenate([different, different]), Triplet.Config())
    assert str(error.value) == (
        "3 of 6 images looked at are copies of others of them; expected images that differ; "
        "take the copies out, or type another method"
    )


def test_it_learns_to_find_images_again_without_collapse() -> None:
    images = toys.images(48, 4).repeat(4, axis=1).repeat(4, axis=2)  # patterns, which a shift keeps
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 16, 4, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU()
    )
    task = Triplet(Backbone("two", 1, SIDE, body), Triplet.Config(mining="semi-hard"), TrainingSet(48, 30))
    history = fit(task, toys.loader_of(toys.rows(images), 24, views=2), Plan({"all": 0.3}, 30, 24), toys.CPU)
    assert history[0]["accuracy"] < 0.5
    assert history[-1]["accuracy"] > 0.8  # one in 47 by chance
    assert history[-1]["embedding_std"] > 0.5
    assert math.isfinite(history[-1]["loss"])


def test_collapse_and_idle_triplets_give_a_warning() -> None:
    task = task_of(mining="semi-hard")
    assert task.warning([{"embedding_std": 0.9, "active": 0.5}]) is None
    assert "have collapsed: after epoch 1" in str(task.warning([{"embedding_std": 0.02, "active": 1.0}]))
    assert "3% of the triplets still teach after epoch 1" in str(
        task.warning([{"embedding_std": 0.9, "active": 0.03}])
    )


def test_retrieval_takes_a_view_of_the_same_image_wherever_it_is() -> None:
    first = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]])
    embedding = torch.cat([first, first[[2, 1, 0]]])
    assert retrieval(embedding, torch.tensor([0, 1, 0])) == 1
    assert float(retrieval(embedding, torch.tensor([0, 1, 2]))) == pytest.approx(1 / 3)


@pytest.mark.parametrize("hardest", [False, True])
def test_views_of_an_image_that_is_there_again_are_no_negatives(hardest: bool) -> None:
    embedding, index = points(16), torch.arange(16) // 4
    expected = brute_force(embedding, index, 0.5, hardest)
    torch.testing.assert_close(mined(embedding, index, 0.5, hardest=hardest), expected)


def test_of_a_validation_image_the_second_view_is_warped() -> None:
    task, batch = task_of(), batch_of(views=1)
    first, second = compared_in(task, batch)
    assert torch.equal(first, batch.images)
    assert torch.equal(second, warp(first, random_affine(8, batch_of(views=1).generator)))
    assert not torch.allclose(first, second)


def test_the_settings_reach_the_loss() -> None:
    embedding, index = points(8), torch.arange(8)

    def found(**settings: object) -> tuple[torch.Tensor, Metrics]:
        task = task_of(**settings)
        task.head = toys.Returns(lambda features: embedding)
        return task.loss(batch_of(8), "main")

    for mining in ("semi-hard", "batch-hard"):
        loss, metrics = found(mining=mining, margin=0.3)
        hinge = mined(embedding, index, 0.3, hardest=mining == "batch-hard")
        torch.testing.assert_close(loss, hinge.mean())
        assert metrics["active"] == (hinge > 0).float().mean()
        assert 0 < float(metrics["active"]) < 1
