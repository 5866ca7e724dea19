"""Relative patch: the claims of methods.md section 5b, against one pair at a time."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.errors import DataError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.parts import tiles
from ssl_app.pretext.relative_patch import DIRECTIONS, NOISE, RelativePatch, drop, neighbors, project, ring
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from tests import toys


def batch_of(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=seed)


def made(side: int, channels: int = 1, backbone: str = "small-resnet", **settings: object) -> RelativePatch:
    torch.manual_seed(0)
    return RelativePatch(build(backbone, channels, side), RelativePatch.Config(**settings), TrainingSet(16, 10))


def tiles_of(task: RelativePatch, images: torch.Tensor) -> torch.Tensor:
    """The tiles that a task cuts images into. (B, C, S, S) -> (B, T, C, t, t)."""
    return tiles.cut(images, task.layout, tiles.draw_offsets(task.layout, len(images), batch_of(images).generator))


@pytest.mark.parametrize(("grid", "pairs", "least"), [(2, 12, 1), (3, 40, 4)])
def test_every_pair_of_neighbors_is_there_in_both_orders_with_opposite_directions(
    grid: int, pairs: int, least: int
) -> None:
    first, second, directions = (values.tolist() for values in neighbors(grid))
    assert len(first) == pairs
    label = dict(zip(zip(first, second, strict=True), directions, strict=True))
    assert len(label) == pairs
    for (one, other), direction in label.items():
        assert label[other, one] == 7 - direction
        down, right = other // grid - one // grid, other % grid - one % grid
        assert DIRECTIONS[direction] == (down, right)
    near = [
        (one, other)
        for one in range(grid**2)
        for other in range(grid**2)
        if one != other and max(abs(one // grid - other // grid), abs(one % grid - other % grid)) == 1
    ]
    assert set(near) == set(label)
    assert min(directions.count(k) for k in range(8)) == least


@pytest.mark.parametrize("grid", ["2", "3"])
def test_every_direction_weighs_the_same_so_that_chance_is_an_eighth(grid: str) -> None:
    task = made(48, grid=grid).eval()
    for k in range(8):
        assert float(task.weights[task.directions == k].sum()) == pytest.approx(1 / 8)
    images = torch.randn(3, 1, 48, 48)
    for k in (0, 4):  # a network that always says the same
        nn.init.zeros_(task.head[-1].weight)
        nn.init.zeros_(task.head[-1].bias)
        with torch.no_grad():
            task.head[-1].bias[k] = 1.0
        _, metrics = task.loss(batch_of(images), "main")
        assert float(metrics["accuracy"]) == pytest.approx(RelativePatch.chance) == pytest.approx(1 / 8)


@pytest.mark.parametrize(("side", "grid"), [(32, "auto"), (48, "3")])
def test_the_loss_is_the_mean_over_directions_of_the_cross_entropy_of_pairs(side: int, grid: str) -> None:
    task = made(side, grid=grid).eval()
    nn.init.normal_(task.head[-1].weight)
    images = torch.randn(3, 1, side, side) * 2 + 1
    loss, metrics = task.loss(batch_of(images), "main")
    offsets = tiles.draw_offsets(task.layout, 3, batch_of(images).generator)
    losses, hits = [[] for _ in range(8)], [[] for _ in range(8)]
    for image, moved in zip(images, offsets, strict=True):
        features = []
        for (top, left), (down, right) in zip(task.layout.corners().tolist(), moved[:, 0].tolist(), strict=True):
            tile = image[:, top + down :, left + right :][:, : task.layout.tile, : task.layout.tile]
            features.append(task.embed(task.backbone(((tile - tile.mean()) / tile.std(correction=0))[None])))
        for one, other, direction in zip(*(values.tolist() for values in neighbors(task.layout.grid)), strict=True):
            logits = task.head(task.join(torch.cat([features[one], features[other]], 1)))
            losses[direction].append(functional.cross_entropy(logits, torch.tensor([direction])))
            hits[direction].append(float(logits.argmax() == direction))
    torch.testing.assert_close(loss, torch.stack([torch.stack(values).mean() for values in losses]).mean())
    assert float(metrics["accuracy"]) == pytest.approx(np.mean([np.mean(values) for values in hits]))


def test_one_pass_of_the_trunk_serves_all_pairs() -> None:
    task = made(64)
    seen = []
    task.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    task.loss(batch_of(torch.randn(2, 1, 64, 64)), "main")
    assert seen == [(18, 1, 24, 24)]


def test_projection_takes_green_against_magenta_out_and_nothing_else() -> None:
    torch.manual_seed(0)
    cut = torch.randn(2, 4, 3, 6, 6)
    found = project(cut)
    green = torch.tensor([-1.0, 2.0, -1.0])
    matrix = torch.eye(3) - torch.outer(green, green) / (green @ green)  # I - a^T a / a a^T
    torch.testing.assert_close(found, torch.einsum("btchw,cd->btdhw", cut, matrix))
    assert torch.einsum("btchw,c->bthw", found, green).abs().max() < 1e-5
    torch.testing.assert_close(project(found), found)
    gray = torch.randn(2, 4, 1, 6, 6).expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(project(gray), gray)


def test_dropping_keeps_one_channel_of_each_tile_each_as_often() -> None:
    torch.manual_seed(0)
    cut = torch.randn(300, 4, 3, 8, 8)
    found = drop(cut, torch.Generator().manual_seed(0))
    kept = (found == cut).all(-1).all(-1)  # (B, T, 3)
    assert (kept.sum(2) == 1).all()
    assert kept.float().mean((0, 1)).sub(1 / 3).abs().max() < 0.04
    noise = found[~kept]
    assert noise.std() == pytest.approx(0.01, rel=0.02)
    again = drop(cut, torch.Generator().manual_seed(0))
    assert torch.equal((again == cut).all(-1).all(-1), kept)


def test_images_of_one_value_stay_finite() -> None:
    task = made(32, channels=3, color="drop")
    loss, _ = task.loss(batch_of(torch.full((4, 3, 32, 32), 0.7)), "main")
    assert loss.isfinite()


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 3), ("alexnet", 1)])
def test_other_trunks_take_the_tiles_of_64_px(backbone: str, channels: int) -> None:
    task = made(64, channels, backbone, grid="2")
    loss, _ = task.loss(batch_of(torch.randn(2, channels, 64, 64)), "main")
    assert loss.isfinite()


@pytest.mark.parametrize("grid", ["2", "3"])
def test_pictures_put_the_neighbors_where_the_network_says(grid: str) -> None:
    task = made(48, grid=grid).eval()
    images = torch.randn(5, 1, 48, 48)
    found = task.pictures(batch_of(images))["neighbors"]
    assert found.shape == (5, 3, 1, 48, 48)
    assert torch.equal(found[:, 0], images)
    right = functional.one_hot(task.directions, 8).float().repeat(5, 1)
    task.head = toys.Returns(lambda pairs: right)
    found = task.pictures(batch_of(images))["neighbors"]
    assert torch.equal(found[:, 1], found[:, 2])
    if grid == "3":
        in_place = tiles.sheet(tiles_of(task, images), task.layout.cell, 48)
        assert torch.equal(found[:, 1], in_place)


@pytest.mark.parametrize("structure", [True, False])
def test_it_learns_images_of_parts_that_differ_and_nothing_of_noise(structure: bool) -> None:
    task = made(24)
    sets = [toys.images(64, 24, seed=seed) for seed in (0, 1)]
    if structure:
        sets = [toys.structured(images) for images in sets]
    loader, others = (toys.loader_of(toys.rows(images), 32, "none") for images in sets)
    plan = Plan(rates={"all": 0.05}, epochs=10, batch_size=32)
    history = fit(task, loader, plan, toys.CPU, Hooks(validation=others))
    if structure:
        assert history[-1]["val_accuracy"] > 0.5
    else:
        assert history[-1]["val_accuracy"] < 0.18


@pytest.mark.parametrize(("color", "low", "high"), [("keep", 0.3, 1.0), ("drop", 0.0, 0.17), ("one", 0.0, 0.17)])
def test_the_fringes_of_a_lens_give_away_where_a_tile_was_unless_colors_are_dropped(
    color: str, low: float, high: float
) -> None:
    config = RelativePatch.Config(color=color)
    found = toys.accuracy_through_a_lens(lambda backbone: RelativePatch(backbone, config, TrainingSet(16, 10)))
    assert low <= found <= high, "chance is .125"


def test_the_trunk_sees_what_the_setting_says() -> None:
    images = torch.randn(50, 3, 32, 32) * 2 + 1
    cut = tiles_of(made(32, 3), images)
    even = tiles.standardize(cut)

    def shown(color: str) -> torch.Tensor:
        task = made(32, 3, color=color)
        (given,) = toys.inputs_of(task.backbone, lambda: task.loss(batch_of(images), "main"))
        return given.view_as(cut)

    assert torch.equal(shown("keep"), even)
    assert torch.equal(shown("project"), tiles.standardize(project(cut)))
    generator = batch_of(images).generator
    tiles.draw_offsets(made(32, 3).layout, 50, generator)
    assert torch.equal(shown("one"), tiles.one_channel(even, generator))
    dropped = shown("drop")
    kept = (dropped == even).all(-1).all(-1)  # (50, 4, 3)
    assert (kept.sum(2) == 1).all()
    assert dropped[~kept].std() == pytest.approx(NOISE, rel=0.05), "a hundredth of the tile's deviation"


def test_where_two_tiles_are_put_in_one_place_the_likelier_is_seen() -> None:
    around = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    laid = ring(torch.zeros(1, 1, 1, 1), around, torch.tensor([[4, 4]]), torch.tensor([[-0.1, -2.0]]))
    assert laid.flatten().tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_images_with_one_distinct_tile_are_refused() -> None:
    with pytest.raises(DataError, match="finds nothing to tell tiles by"):
        RelativePatch.check(toys.one_distinct_tile(), RelativePatch.Config(grid="3"))
