"""What every registered method keeps: trains its backbone, stays finite, resumes to the same bits, says its needs."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_app.batch_norm import batch_norms, of_the_batch
from ssl_app.data.batch import Batch
from ssl_app.errors import UserError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import Pretext, Scope
from ssl_app.registry import describe, find, names
from ssl_app.training.loop import fit
from ssl_app.training.optimizing import Plan
from ssl_app.training.saving import Saver
from ssl_app.training.stopping import Stopped
from tests import toys
from tests.contract.test_loop import assert_same, bits, interrupted, quiet

METHODS = names("pretext")
SIDE = 32


def some_labels(folder: Path, keys: list[str]) -> dict[str, object]:
    lines = ["path,cluster,cluster_2", *(f"{key},{i % 3},{i % 2}" for i, key in enumerate(keys))]
    (folder / "labels.csv").write_text("\n".join(lines))
    return {"labels": folder / "labels.csv"}


OWN = {"from-labels": some_labels}  # settings without which a method cannot be


def make(method: str, channels: int, count: int = 16) -> Pretext:
    torch.manual_seed(2)
    kind = find("pretext", method)
    keys = [f"{i}.png" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        config = kind.Config(**OWN[method](Path(folder), keys)) if method in OWN else kind.Config()
        return kind(build(kind.default_backbone, channels, SIDE), config, Scope(count, 4, keys))


def train(task: Pretext, channels: int, saver: Saver | None = None) -> list[dict[str, float]]:
    loader = toys.loader(count=16, batch_size=8, channels=channels, side=SIDE, views=task.needs.views)
    plan = Plan(rates=dict.fromkeys(task.parts(), 0.2), epochs=3, batch_size=8)
    return fit(task, loader, plan, toys.CPU, title="contract", say=quiet, saver=saver,
        held_out=None if task.remembers else loader,
    )  # fmt: skip


def applies(method: str, channels: int) -> bool:
    return find("pretext", method).needs.channels in (None, channels)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_its_backbone_and_stays_finite(method: str, channels: int) -> None:
    if not applies(method, channels):
        images = np.zeros((4, SIDE, SIDE, channels), np.float32)
        with pytest.raises(UserError):
            find("pretext", method).check(images, find("pretext", method).Config())
        return
    task = make(method, channels)
    before = bits(task.backbone)
    rows = train(task, channels)
    still = [n for n, p in task.backbone.named_parameters() if torch.equal(p, before[n])]
    assert not still
    assert all(np.isfinite(value) for row in rows for value in row.values())
    if task.score is not None:
        assert task.score in rows[-1]
        assert (f"val_{task.score}" in rows[-1]) != task.remembers


@pytest.mark.parametrize("method", METHODS)
def test_it_resumes_to_the_same_bits(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = find("pretext", method).needs.channels or 1
    whole, broken, resumed = (make(method, channels) for _ in range(3))
    train(whole, channels)
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        interrupted(patch, 5)
        with pytest.raises(Stopped):
            train(broken, channels, Saver(path))
    train(resumed, channels, Saver(path, resume=True))
    assert_same(bits(whole), bits(resumed))


@pytest.mark.parametrize("method", METHODS)
def test_its_loss_and_scores_are_f32_in_bf16_training(method: str) -> None:
    channels = find("pretext", method).needs.channels or 3
    task = make(method, channels)
    if task.remembers:
        train(task, channels)  # it has no labels before
    loader = toys.loader(count=16, batch_size=16, channels=channels, side=SIDE, views=task.needs.views)
    (batch,) = next(loader.epoch(0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        for player in task.players:
            loss, metrics = task.loss(batch, player)
            assert loss.dtype == torch.float32
            assert all(value.dtype in (torch.float32, torch.float64) for value in metrics.values())


OTHER_THAN_WHOLE = ("autoencoder", "context-encoder", "gan", "jigsaw", "relative-patch")  # masks, holes, tiles, makes


def test_methods_that_train_on_other_than_whole_images_say_so() -> None:
    assert [name for name in METHODS if find("pretext", name).recalibrates] == [*OTHER_THAN_WHOLE]


@pytest.mark.parametrize("method", OTHER_THAN_WHOLE)
def test_pictures_do_not_go_by_statistics_of_whole_images(method: str) -> None:
    task = make(method, 1).eval()
    images = torch.rand(16, 1, SIDE, SIDE) * 2 - 1

    def drawn() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat(list(task.pictures(Batch((images,), torch.arange(16), None, 0)).values()))

    before = drawn()
    for norm in batch_norms(task.backbone):
        assert isinstance(norm.running_mean, torch.Tensor)
        assert isinstance(norm.running_var, torch.Tensor)
        norm.running_mean += 3
        norm.running_var *= 50
    assert torch.equal(before, drawn())


@pytest.mark.parametrize("method", ["jigsaw", "relative-patch"])
def test_what_compares_places_sees_no_reflected_border(method: str) -> None:
    ramp = np.arange(SIDE, dtype=np.uint8)[None, :, None, None] * 8  # brighter downwards, in each image
    loader = toys.loader(count=16, batch_size=16, side=SIDE, preset=find("pretext", method).augment)
    loader.builder.images = np.broadcast_to(ramp, (16, SIDE, SIDE, 1)).copy()
    (batch,) = next(loader.epoch(0, 1))
    assert (batch.images.diff(dim=2) >= 0).all()


@pytest.mark.parametrize("method", OTHER_THAN_WHOLE)
def test_what_saw_other_than_whole_images_is_handed_on_with_their_statistics(method: str) -> None:
    task = make(method, 1)
    train(task, 1)
    images = next(toys.loader(count=16, batch_size=16, side=SIDE).ordered()).images
    used = task.backbone.eval()(images)
    with of_the_batch(task.backbone):
        torch.testing.assert_close(used, task.backbone(images), atol=0.05, rtol=0.05)  # n or n - 1 in a variance


@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_it_is(method: str) -> None:
    assert "(" in describe("pretext", method), "the first line names the idea and its source"
    kind = find("pretext", method)
    assert kind.__doc__
    assert kind.chance is None or 0 <= kind.chance < 1
