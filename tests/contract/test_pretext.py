"""What every registered method keeps: trains its backbone, stays finite, resumes to the same bits, says its needs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_app.config import fields
from ssl_app.data.batch import Batch
from ssl_app.data.loading import Batching, Loader
from ssl_app.errors import UserError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import Pretext, TrainingSet
from ssl_app.pretraining.schedule import Schedule, plan_of
from ssl_app.registry import describe, find, names
from ssl_app.training.batch_norm import batch_norms, of_the_batch
from ssl_app.training.ema import EMA
from ssl_app.training.history import History
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.resume import Checkpointing
from ssl_app.training.signals import Stopped
from tests import toys
from tests.toys import assert_same_bits, bits

pytestmark = pytest.mark.usefixtures("narrow")
METHODS = names("pretext")
RESIZING = [name for name in METHODS if find("pretext", name).progressive_resizing]
RECALIBRATING = [name for name in METHODS if find("pretext", name).recalibrates_batch_norm]
STEPS, EPOCHS = 2, 2
STILL = 1e-3  # of the smaller of two numbers, by which the same pixels may differ


def side_of(kind: type[Pretext[Any]]) -> int:
    return max(32, kind.needs.smallest_image)


def batch_size_of(kind: type[Pretext[Any]]) -> int:
    return max(8, kind.needs.smallest_batch)


def count_of(kind: type[Pretext[Any]]) -> int:
    return STEPS * batch_size_of(kind)


def channels_of(kind: type[Pretext[Any]], usual: int = 1) -> int:
    return kind.needs.channels or usual


def own_settings(kind: type[Pretext[Any]], keys: list[str], folder: Path) -> dict[str, Path]:
    """A table of labels for each file that a method cannot be without."""
    if kind.standalone:
        return {}
    lines = ["path,cluster,cluster_2", *(f"{key},{i % 3},{i % 2}" for i, key in enumerate(keys))]
    table = folder / "labels.csv"
    table.write_text("\n".join(lines))
    return {field.name: table for field in fields(kind.Config) if field.kind is Path}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """A method as it begins, on the backbone that it is trained on where the user names none."""

    def made(name: str, channels: int) -> Pretext[Any]:
        torch.manual_seed(2)
        kind = find("pretext", name)
        keys = [f"{i}.png" for i in range(count_of(kind))]
        config = kind.Config(**own_settings(kind, keys, tmp_path))
        backbone = build(kind.defaults.backbone, channels, side_of(kind))
        return kind(backbone, config, TrainingSet(len(keys), EPOCHS, keys))

    return made


def loader_for(task: Pretext[Any], preset: str | None = None, batch_size: int | None = None) -> Loader:
    """Images of noise in the range, the views and the augmentation that a method trains on."""
    kind = type(task)
    channels, side = task.backbone.channels, task.backbone.image_size
    scaling = toys.symmetric(channels) if task.needs.value_range == "symmetric" else toys.scaling(channels)
    rows = toys.rows(toys.images(count_of(kind), side, channels), pixels=scaling)
    size, views = batch_size or batch_size_of(kind), task.needs.views
    if preset is not None:
        return toys.loader_of(rows, size, preset, views=views)
    return Loader(rows, task.augmentation(rows.frame), Batching(size, seed=3, views=views))


def train(task: Pretext[Any], checkpointing: Checkpointing | None = None, half_size: float = 0.0) -> History:
    """By the method's own optimizer, at full rate, and without weight decay: it moves what no gradient reaches."""
    kind, loader = type(task), loader_for(task)
    schedule = Schedule(EPOCHS, batch_size=batch_size_of(kind), weight_decay=0.0, schedule="constant", warmup=0.0)
    hooks = Hooks(validation=None if task.per_image_targets else loader)
    plan = replace(plan_of(schedule, kind, count_of(kind)), half_size=half_size)
    return fit(task, loader, plan, toys.CPU, hooks, checkpointing)


@pytest.mark.parametrize(
    ("method", "channels"),
    [
        # who takes one channel and five takes three
        pytest.param(
            method, n, marks=[pytest.mark.slow] * (n == 3 and find("pretext", method).needs.channels is None)
        )
        for method in METHODS
        for n in (1, 3, 5)
    ],
)
def test_it_trains_its_backbone_and_stays_finite(method: str, channels: int, make: Any) -> None:
    kind = find("pretext", method)
    if kind.needs.channels not in (None, channels):
        images = np.zeros((4, side_of(kind), side_of(kind), channels), np.float32)
        with pytest.raises(UserError):
            kind.check(images, kind.Config())
        return
    task = make(method, channels)
    before = bits(task.backbone)
    history = train(task)
    still = {name for name, p in task.backbone.named_parameters() if torch.equal(p, before[name])}
    learning = {name for name, p in task.backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert not still - learning  # a step of 1e-8 leaves a 1 as it is
    assert len(still) < len(before) / 4
    assert all(np.isfinite(value) for metrics in history for value in metrics.values())
    if task.score is not None:
        assert task.score in history[-1]
        assert (f"val_{task.score}" in history[-1]) != task.per_image_targets


@pytest.mark.parametrize("method", METHODS)
def test_it_resumes_to_the_same_bits(method: str, make: Any, tmp_path: Path) -> None:
    channels = channels_of(find("pretext", method))
    whole, broken, resumed = (make(method, channels) for _ in range(3))
    train(whole)
    path = tmp_path / "state.safetensors"
    toys.stop_in_step(broken, STEPS + 1)
    with pytest.raises(Stopped):
        train(broken, Checkpointing(path))
    train(resumed, Checkpointing(path, resume=True))
    assert_same_bits(bits(whole), bits(resumed))


@pytest.mark.parametrize("method", RESIZING)
def test_it_begins_at_half_the_side_and_resumes_to_the_same_bits(method: str, make: Any, tmp_path: Path) -> None:
    channels = channels_of(find("pretext", method))
    whole, broken, resumed = (make(method, channels) for _ in range(3))
    side = side_of(type(whole))
    assert whole.backbone.accepts(side // 2)
    sides = [images.shape[-1] for images in toys.inputs_of(whole.backbone, lambda: train(whole, half_size=0.75))]
    assert {side // 2, side} == set(sides)
    assert sides[-1] == side
    path = tmp_path / "state.safetensors"
    toys.stop_in_step(broken, STEPS + 1)
    with pytest.raises(Stopped):
        train(broken, Checkpointing(path), half_size=0.75)
    train(resumed, Checkpointing(path, resume=True), half_size=0.75)
    assert_same_bits(bits(whole), bits(resumed))


@pytest.mark.parametrize("method", METHODS)
def test_moving_averages_get_no_gradient(method: str, make: Any) -> None:
    task = make(method, channels_of(find("pretext", method)))
    averaged = [p for module in task.modules() if isinstance(module, EMA) for p in module.parameters()]
    if averaged:
        train(task)
        assert all(p.grad is None for p in averaged)


@pytest.mark.parametrize("method", METHODS)
def test_its_loss_and_scores_are_f32_in_bf16_training(method: str, make: Any) -> None:
    kind = find("pretext", method)
    task = make(method, channels_of(kind, 3))
    if task.per_image_targets:
        train(task)  # it has no labels before
    (batch,) = next(loader_for(task, batch_size=count_of(kind)).epoch(0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        for player in task.players:
            loss, metrics = task.loss(batch, player)
            assert loss.dtype == torch.float32
            rounded = {name: value.dtype for name, value in metrics.items() if value.dtype.itemsize < 4}
            assert not rounded, "computed in bf16"


def trained_on_and_used_on(task: Pretext[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the backbone in a training step, and when features of the same views are computed."""
    if task.per_image_targets:
        train(task)  # it has no labels before
    (batch,) = next(loader_for(task).epoch(0, 1))

    def step() -> None:
        for player in task.players:
            task.loss(batch, player)

    def features() -> None:
        for view in batch.views:
            task.features(view)

    return toys.inputs_of(task.backbone, step), toys.inputs_of(task.backbone, features)


def same_pixels(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two lists hold images of one size whose pixels have the same mean and deviation."""
    if {tuple(images.shape[2:]) for images in one} != {tuple(images.shape[2:]) for images in other}:
        return False
    pixels = [torch.cat([images.float().flatten() for images in some]) for some in (one, other)]
    (mean, other_mean), (std, other_std) = ((p.mean() for p in pixels), (p.std() for p in pixels))
    return bool(abs(mean - other_mean) < STILL * std and abs(std - other_std) < STILL * std)


@pytest.mark.parametrize("method", METHODS)
def test_it_says_whether_it_trains_on_other_than_whole_images(method: str, make: Any) -> None:
    kind = find("pretext", method)
    task = make(method, channels_of(kind))
    if batch_norms(task.backbone):  # else there is nothing to recalibrate
        assert kind.recalibrates_batch_norm != same_pixels(*trained_on_and_used_on(task))


@pytest.mark.parametrize("method", RECALIBRATING)
def test_pictures_do_not_go_by_statistics_of_whole_images(method: str, make: Any) -> None:
    kind = find("pretext", method)
    task = make(method, channels_of(kind)).eval()
    images = torch.rand(16, task.backbone.channels, side_of(kind), side_of(kind)) * 2 - 1

    def drawn() -> Tensor:
        with torch.no_grad():
            return torch.cat(list(task.pictures(Batch((images,), torch.arange(16), None, 0)).values()))

    before = drawn()
    for norm in batch_norms(task.backbone):
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        norm.running_mean += 3
        norm.running_var *= 50
    assert torch.equal(before, drawn())


@pytest.mark.parametrize("method", METHODS)
def test_what_trains_on_parts_of_an_image_sees_no_reflected_border(method: str, make: Any) -> None:
    kind = find("pretext", method)
    task = make(method, channels_of(kind))
    side = side_of(kind)
    parts, _ = trained_on_and_used_on(task)
    if all(images.shape[-1] >= side for images in parts):
        return
    ramp = np.arange(side, dtype=np.uint8)[None, :, None, None] * 8  # brighter downwards, in each image
    rows = toys.rows(np.broadcast_to(ramp, (16, side, side, task.backbone.channels)).copy())
    (batch,) = next(Loader(rows, task.augmentation(rows.frame), Batching(16, seed=3)).epoch(0, 1))
    assert (batch.images.diff(dim=2) >= 0).all()


@pytest.mark.parametrize("method", RECALIBRATING)
def test_a_backbone_trained_on_other_than_whole_images_ends_with_their_statistics(method: str, make: Any) -> None:
    task = make(method, channels_of(find("pretext", method)))
    train(task)
    images = next(loader_for(task).ordered()).images
    used = task.backbone.eval()(images)
    with of_the_batch(task.backbone):
        torch.testing.assert_close(used, task.backbone(images), atol=0.05, rtol=0.05)  # n or n - 1 in a variance


@pytest.mark.parametrize("method", METHODS)
def test_it_describes_itself(method: str) -> None:
    assert "(" in describe("pretext", method), "the first line names the idea and its source"
    kind = find("pretext", method)
    assert kind.__doc__
    assert kind.chance is None or 0 <= kind.chance < 1
