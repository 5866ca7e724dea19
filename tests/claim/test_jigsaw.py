"""Jigsaw: the claims of methods.md section 5, against one image and one permutation at a time."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.errors import DataError, SettingsError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.jigsaw import Jigsaw, shuffle
from ssl_app.pretext.parts import tiles
from ssl_app.pretext.parts.permutations import permutation_set
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from tests import toys


def batch_of(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=seed)


def made(
    side: int, channels: int = 1, images: int = 16, backbone: str = "small-resnet", **settings: object
) -> Jigsaw:
    torch.manual_seed(0)
    return Jigsaw(build(backbone, channels, side), Jigsaw.Config(**settings), TrainingSet(images, 10))


def known_tiles(task: Jigsaw) -> None:
    """Have the task describe each tile by its number, whatever it shows: the head's input is then the order."""
    embed, count = task.embed, task.layout.tiles

    def numbered(features: torch.Tensor) -> torch.Tensor:
        width = embed(features[:2]).shape[1]
        return functional.pad(torch.eye(count), (0, width - count)).repeat(len(features) // count, 1)

    task.embed = toys.Returns(numbered)


def orders_of(task: Jigsaw, given: torch.Tensor) -> torch.Tensor:
    """Numbers of the permutations that known tiles were given to the head in. (B * P, T * E) -> (B * P,)."""
    seen = given.view(len(given), task.layout.tiles, -1).argmax(2)  # (B * P, T)
    return (seen[:, None] == task.permutations).all(2).float().argmax(1)


def drawn_orders(task: Jigsaw, batch: Batch) -> torch.Tensor:
    """Which permutations a loss draws for each image. -> (B, P)."""
    watched = copy.deepcopy(task)
    known_tiles(watched)
    (given,) = toys.inputs_of(watched.head, lambda: watched.loss(batch, "main"))
    return orders_of(watched, given).view(len(batch.images), -1)


def always_right(task: Jigsaw) -> None:
    """Have the task know the order of every image."""
    known_tiles(task)
    task.head = toys.Returns(lambda given: functional.one_hot(orders_of(task, given), len(task.permutations)).float())


def laid_out(task: Jigsaw, batch: Batch) -> torch.Tensor:
    """Each image's tiles in order, as they were cut: what pictures of a network that is always right show last."""
    watched = copy.deepcopy(task).eval()
    always_right(watched)
    return watched.pictures(batch)["puzzles"][:, 2]


def tiles_of(task: Jigsaw, images: torch.Tensor) -> torch.Tensor:
    """The tiles that a task cuts images into. (B, C, S, S) -> (B, T, C, t, t)."""
    layout = task.layout
    sheets, grid = laid_out(task, batch_of(images)), layout.grid
    before, start = (layout.cell - layout.tile) // 2, (layout.image - grid * layout.cell) // 2
    corners = [start + number * layout.cell + before for number in range(grid)]
    cut = [sheets[:, :, y:, x:][:, :, : layout.tile, : layout.tile] for y in corners for x in corners]
    return torch.stack(cut, 1)


def test_the_inverse_permutation_puts_the_image_back_in_order() -> None:
    numbers = torch.arange(9).expand(72, -1)
    orders = permutation_set(72)
    shuffled = shuffle(numbers, orders)
    assert torch.equal(shuffled, orders)  # at place j lies tile p[j]
    assert torch.equal(shuffle(shuffled, orders.argsort(1)), numbers)


@pytest.mark.parametrize(("side", "grid", "count"), [(32, "auto", 24), (48, "3", 72)])
def test_the_loss_is_the_mean_cross_entropy_over_images_and_orders(side: int, grid: str, count: int) -> None:
    task = made(side, grid=grid, per_image=3).eval()
    torch.nn.init.normal_(task.head[-1].weight)
    images = torch.randn(4, 1, side, side) * 2 + 1
    loss, metrics = task.loss(batch_of(images), "main")
    offsets = tiles.draw_offsets(task.layout, 4, batch_of(images).generator)
    orders = drawn_orders(task, batch_of(images))
    assert task.permutations.shape[0] == count
    losses, hits = [], []
    for image, moved, numbers in zip(images, offsets, orders, strict=True):
        cut = []
        for (top, left), (down, right) in zip(task.layout.corners().tolist(), moved[:, 0].tolist(), strict=True):
            tile = image[:, top + down :, left + right :][:, : task.layout.tile, : task.layout.tile]
            cut.append((tile - tile.mean()) / tile.std(correction=0))
        for number in numbers:
            seen = [task.embed(task.backbone(cut[place][None])) for place in task.permutations[number].tolist()]
            logits = task.head(torch.cat(seen, 1))
            losses.append(functional.cross_entropy(logits, number[None]))
            hits.append(float(logits.argmax() == number))
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(hits))


def test_one_pass_of_the_trunk_serves_all_orders() -> None:
    task = made(32, per_image=24)
    seen = []
    task.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    task.loss(batch_of(torch.randn(3, 1, 32, 32)), "main")
    assert task.layout == tiles.lay_out(32, "auto", gap=0.06, jitter=0.19)
    assert seen == [(12, 1, 12, 12)]


def test_orders_of_an_image_are_all_different_and_all_equally_likely() -> None:
    task = made(32).eval()
    features = task.backbone(torch.zeros(1, 1, 32, 32))
    task.backbone = toys.Returns(lambda tiles: features.expand(len(tiles), -1))
    drawn = drawn_orders(task, batch_of(torch.zeros(6000, 1, 32, 32)))
    assert all(len(row.unique()) == 8 for row in drawn[:50])
    for numbers in (drawn[:, 0], drawn[:, 7], drawn.flatten()):
        share = numbers.bincount(minlength=24).float() / len(numbers)
        assert share.sub(1 / 24).abs().max() < 0.012


def test_the_loss_starts_at_the_logarithm_of_the_number_of_orders() -> None:
    for size in ("72", "504", "1512"):
        task = made(48, grid="3", permutations=size).eval()
        loss, _ = task.loss(batch_of(torch.randn(4, 1, 48, 48)), "main")
        assert loss.item() == pytest.approx(math.log(int(size)), abs=0.3)
        assert task.chance == 1 / int(size)
        assert task.limits is not None
        assert task.limits.no_signal == 2 / int(size)


def test_tiles_of_one_value_each_stay_finite_and_at_chance() -> None:
    task = made(32, per_image=24).eval()
    images = torch.randn(4, 1, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)  # brightness tells nothing
    loss, metrics = task.loss(batch_of(images), "main")
    assert loss.isfinite()
    assert float(metrics["accuracy"]) == pytest.approx(1 / 24)  # every order of an image looks alike: one is right


def test_grays_have_no_colors_and_fringes_keep_to_their_cells() -> None:
    task = made(192, channels=3, gray=0.5)
    count = 40
    images = torch.arange(192.0 * 192).view(1, 1, 192, 192).expand(count, 3, -1, -1).clone()
    cut = tiles_of(task, images)
    rows, columns = cut.long() // 192, cut.long() % 192
    corners = task.layout.corners()
    down = rows.amin((3, 4)) - corners[:, 0, None]  # (B, T, 3) offset of each channel
    right = columns.amin((3, 4)) - corners[:, 1, None]
    for offsets in (down, right):
        assert int(offsets.min()) >= 0
        assert int(offsets.max()) <= task.layout.jitter
    together = ((down == down[..., :1]) & (right == right[..., :1])).all(2).all(1)  # (B,)
    assert 0.25 < together.float().mean() < 0.75  # the grays
    assert (down - down[..., :1]).abs().max() in (2, 4)  # round(48 / 32) = 2 each way
    images = torch.randn(count, 3, 192, 192)
    cut = tiles_of(task, images)
    same = (cut - cut[:, :, :1]).abs().amax((1, 2, 3, 4)) < 1e-5
    assert torch.equal(same, together)


@pytest.mark.parametrize("side", [32, 64])
def test_channels_are_moved_apart_in_small_tiles_too(side: int) -> None:
    task = made(side, channels=3, gray=0.0)
    ramp = torch.arange(float(side * side)).view(1, 1, side, side).expand(20, 3, -1, -1).clone()
    first = tiles_of(task, ramp).amin((3, 4))  # (B, T, 3)
    assert (first != first[..., :1]).any()


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 3), ("alexnet", 1)])
def test_other_trunks_take_the_tiles_of_64_px(backbone: str, channels: int) -> None:
    task = made(64, channels, backbone=backbone, grid="2", per_image=2)
    loss, _ = task.loss(batch_of(torch.randn(2, channels, 64, 64)), "main")
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("channels", "settings", "found", "fix"),
    [
        (
            1,
            {"permutations": "504"},
            "504 permutations are of 9 tiles, the grid has 2x2",
            "permutations 24, or grid 3 image_size 64",
        ),
        (1, {"per_image": 25}, "25 orders per image are requested, there are 24 of 4 tiles", "per_image 24, or less"),
        (3, {"jitter": 0.0}, "0 leaves no pixel to move channels by", "a larger"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    channels: int, settings: dict[str, object], found: str, fix: str
) -> None:
    with pytest.raises(SettingsError) as error:
        made(32, channels, **settings)
    assert f"{found}; type {fix}" in str(error.value)


def test_the_backbone_ends_with_statistics_of_whole_images() -> None:
    task = made(24, images=40)
    loader = toys.loader(count=40, batch_size=20, side=24, preset="none")
    fit(task, loader, Plan(rates={"all": 0.05}, epochs=1, batch_size=20), toys.CPU)
    images = torch.cat([batch.images for batch in loader.ordered()])
    stem = task.backbone.body.stem
    with torch.no_grad():
        seen = stem[0](images)
    torch.testing.assert_close(stem[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(stem[1].running_var, seen.var((0, 2, 3)))


def test_pictures_are_the_image_the_puzzle_and_what_the_network_made_of_it() -> None:
    task = made(32, channels=3, gray=0.0).eval()
    images = torch.randn(5, 3, 32, 32)
    found = task.pictures(batch_of(images))["puzzles"]
    assert found.shape == (5, 3, 3, 32, 32)
    assert torch.equal(found[:, 0], images)
    task = made(32).eval()
    always_right(task)  # puts every tile back
    found = task.pictures(batch_of(images[:, :1]))["puzzles"]
    offsets = tiles.draw_offsets(task.layout, 5, batch_of(images).generator)
    in_order = tiles.sheet(tiles.cut(images[:, :1], task.layout, offsets), task.layout.cell, 32)
    assert torch.equal(found[:, 2], in_order)
    assert not torch.equal(found[:, 1], in_order)


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
        assert history[-1]["val_accuracy"] > 0.8
    else:
        assert history[-1]["val_accuracy"] < 2 / 24


@pytest.mark.parametrize(("color", "low", "high"), [("keep", 0.12, 1.0), ("one", 0.0, 0.07)])
def test_the_fringes_of_a_lens_give_the_order_away_unless_each_tile_has_one_channel(
    color: str, low: float, high: float
) -> None:
    config = Jigsaw.Config(color=color, gray=0.0)
    found = toys.accuracy_through_a_lens(lambda backbone: Jigsaw(backbone, config, TrainingSet(16, 10)))
    assert low <= found <= high, "chance is .042"


def test_images_with_one_distinct_tile_are_refused() -> None:
    with pytest.raises(DataError, match="finds nothing to tell tiles by"):
        Jigsaw.check(toys.one_distinct_tile(), Jigsaw.Config(grid="3"))
