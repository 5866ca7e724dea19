"""Masked autoencoder: the claims of He et al. (2022, arXiv:2111.06377), against slow references."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock

from ssl_app.data.batch import Batch
from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, TokenNetwork, build
from ssl_app.models.positions import sines_and_cosines
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.mae import MAE, cut, joined, take

SIDE, PATCH, GRID = 32, 4, 8


def batch_of(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=seed)


def make(side: int = SIDE, channels: int = 1, **settings: object) -> MAE:
    torch.manual_seed(0)
    return MAE(build("vit-tiny", channels, side), MAE.Config(**settings), TrainingSet(8, 10))


def rough(count: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.7


def ramps(count: int, seed: int = 0) -> torch.Tensor:
    """Images that three numbers each describe: a brightness and a slope either way, (B, 1, 16, 16)."""
    level, across, down = torch.randn(3, count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    places = torch.linspace(-1.5, 1.5, 16)
    return (level + across * places + down * places[:, None]) / 2


def pixels_of(places: torch.Tensor) -> torch.Tensor:
    """The pixels of some patches of each image, true there, (B, n) -> (B, 1, S, S)."""
    where = torch.zeros(len(places), 1, SIDE, SIDE, dtype=torch.bool)
    for image, row in enumerate(places.tolist()):
        for place in row:
            y, x = PATCH * (place // GRID), PATCH * (place % GRID)
            where[image, 0, y : y + PATCH, x : x + PATCH] = True
    return where


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_that_of_a_slow_loop_over_hidden_patches(channels: int, normalize: bool) -> None:
    task = make(channels=channels, normalize_patches=normalize).eval()
    images = rough(3, channels)
    loss, metrics = task.loss(batch_of(images), "main")
    visible, hidden = task._split(batch_of(images))
    drawn = task._drawn(images, visible).detach().double().numpy()
    pictures = images.double().numpy()
    after, before = [], []
    for image, row in enumerate(hidden.tolist()):
        for place in row:
            y, x = PATCH * (place // GRID), PATCH * (place % GRID)
            target = pictures[image, :, y : y + PATCH, x : x + PATCH].ravel()
            if normalize:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            after.append(np.mean((drawn[image, place] - target) ** 2))
            before.append(np.mean(target**2))
    assert float(loss.detach()) == pytest.approx(np.mean(after), rel=1e-4)
    gain = 10 * math.log10(np.mean(before) / np.mean(after))
    assert float(metrics["psnr_gain"]) == pytest.approx(gain, abs=1e-3)


def test_three_quarters_are_hidden_others_in_each_image_and_the_same_for_the_same_batch() -> None:
    task, images = make(), rough(50)
    visible, hidden = task._split(batch_of(images))
    assert (visible.shape, hidden.shape) == ((50, 16), (50, 48))
    assert (torch.cat([visible, hidden], 1).sort(1).values == torch.arange(64)).all()
    assert len({tuple(sorted(row)) for row in hidden.tolist()}) == 50
    assert torch.equal(hidden, task._split(batch_of(images))[1])
    assert not torch.equal(hidden, task._split(batch_of(images, seed=1))[1])
    counts = torch.bincount(task._split(batch_of(torch.zeros(4000, 1, 1, 1)))[1].flatten(), minlength=64)
    assert (counts / 4000 - 0.75).abs().max() < 0.04
    for masked, count in ((0.05, 3), (0.5, 32), (0.95, 61)):
        assert make(masked=masked).hidden == count


def test_the_loss_ignores_visible_patches_of_the_target() -> None:
    task, images = make().eval(), rough(3)
    visible, hidden = task._split(batch_of(images))
    drawn = task._drawn(images, visible)
    task._drawn = lambda images, visible: drawn  # type: ignore[method-assign]
    loss, _ = task.loss(batch_of(images), "main")
    changed = torch.where(pixels_of(visible), rough(3, seed=5), images)
    assert torch.equal(task.loss(batch_of(changed), "main")[0], loss)
    changed = torch.where(pixels_of(hidden), rough(3, seed=5), images)
    assert not torch.equal(task.loss(batch_of(changed), "main")[0], loss)


def test_what_is_drawn_of_visible_patches_has_no_gradient() -> None:
    task, images = make().eval(), rough(3)
    visible, hidden = task._split(batch_of(images))
    drawn = torch.zeros(3, 64, 16, requires_grad=True)
    task._drawn = lambda images, visible: drawn  # type: ignore[method-assign]
    task.loss(batch_of(images), "main")[0].backward()
    assert drawn.grad is not None
    assert not take(drawn.grad, visible).any()
    assert take(drawn.grad, hidden).all()


def test_the_encoder_sees_visible_patches_only() -> None:
    task, images = make().eval(), rough(3)
    visible, hidden = task._split(batch_of(images))
    counts = []
    task.backbone.body.block1.register_forward_hook(lambda _, inputs, __: counts.append(inputs[0].shape[1]))
    drawn = task._drawn(images, visible)
    assert counts == [16]
    changed = torch.where(pixels_of(hidden), torch.tensor(99.0), images)
    assert torch.equal(task._drawn(changed, visible), drawn)
    changed = torch.where(pixels_of(visible[:, :1]), torch.tensor(99.0), images)
    assert not torch.allclose(task._drawn(changed, visible), drawn)


def test_the_order_of_patches_is_restored_after_masking() -> None:
    task, images = make().eval(), rough(3)
    visible, _ = task._split(batch_of(images))
    drawn = task._drawn(images, visible)
    shuffled = visible[:, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(task._drawn(images, shuffled), drawn)
    entered = []
    task.decoder.blocks.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    task._drawn(images, visible)
    tokens = entered[0] - task.decoder.positions
    encoded = task.decoder.enter(task.backbone.encode(take(task.backbone.embed(images), visible)))
    for image in range(3):
        for place in range(64):
            where = (visible[image] == place).nonzero().flatten().tolist()
            expected = encoded[image, where[0]] if where else task.decoder.hidden
            torch.testing.assert_close(tokens[image, place], expected, atol=1e-5, rtol=1e-5)


def test_patches_are_cut_in_rows_and_joined_again() -> None:
    images = rough(2, 3)
    patches = cut(images, PATCH)
    assert patches.shape == (2, 64, 48)
    assert torch.equal(patches[1, 2 * GRID + 5].view(3, PATCH, PATCH), images[1, :, 8:12, 20:24])
    assert torch.equal(joined(patches, PATCH, 3), images)


def test_gradients_reach_every_parameter_of_the_encoder() -> None:
    task = make(channels=3)
    task.loss(batch_of(rough(4, 3)), "main")[0].backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_normalized_patches_do_not_know_brightness_and_contrast() -> None:
    task, images = make(), rough(3)
    target, mean, deviation = task._target(images)
    torch.testing.assert_close(task._target(images * 0.5 + 2)[0], target, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(joined(target * deviation + mean, PATCH, 1), images)
    assert torch.equal(task._target(torch.full((1, 1, SIDE, SIDE), 5.0))[0], torch.zeros(1, 64, 16))


def test_each_patchs_own_mean_gains_nothing() -> None:
    task = make()
    task._drawn = lambda images, visible: torch.zeros(len(images), 64, 16)  # type: ignore[method-assign]
    assert task.loss(batch_of(rough(4)), "main")[1]["psnr_gain"] == MAE.chance


def test_a_network_without_tokens_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        MAE(build("small-resnet", 1, SIDE), MAE.Config(), TrainingSet(8, 10))
    assert error.value.sentence(lambda name: f"--{name}") == (
        "small-resnet has no tokens; expected a vision transformer; type --backbone vit-tiny"
    )


def test_pictures_show_the_image_what_was_seen_of_it_and_what_was_drawn() -> None:
    task, images = make(channels=3).eval(), rough(3, 3)
    visible, _ = task._split(batch_of(images))
    seen = pixels_of(visible)
    with torch.no_grad():
        shown = task.pictures(batch_of(images))["reconstructed"]
    assert shown.shape == (3, 3, 3, SIDE, SIDE)
    assert torch.equal(shown[:, 0], images)
    assert torch.equal(shown[:, 1], images * seen)
    assert torch.equal(shown[:, 2] * seen, images * seen)
    task._drawn = lambda images, visible: task._target(images)[0]  # type: ignore[method-assign]
    torch.testing.assert_close(task.pictures(batch_of(images))["reconstructed"][:, 2], images)


class Narrow(TokenNetwork):
    """A token network of one's own: one block, 32 wide, on 4 x 4 patches."""

    patch, grid = 4, 4

    def __init__(self) -> None:
        super().__init__(1, 16)
        self.patches = nn.Conv2d(1, 32, 4, 4)
        self.block = EncoderBlock(2, 32, 64, 0.0, 0.0)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return self.patches(images).flatten(2).transpose(1, 2) + sines_and_cosines(4, 32)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.block(tokens)


def test_it_draws_images_that_it_never_saw() -> None:
    torch.manual_seed(0)
    config = MAE.Config(masked=0.5, normalize_patches=False)
    task = MAE(Backbone("narrow", 1, 16, Narrow()), config, TrainingSet(8, 10))
    images = ramps(128)
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for step in range(60):
        loss, _ = task.loss(batch_of(images[step % 4 * 32 :][:32], seed=step), "main")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        _, metrics = task.loss(batch_of(ramps(64, seed=7)), "main")
    assert metrics["psnr_gain"] > 1.5


def test_it_learns_in_bf16_with_a_loss_in_float32() -> None:
    task = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = task.loss(batch_of(rough(4)), "main")
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in task.parameters() if p.grad is not None)


def test_it_draws_on_gradients_as_well() -> None:
    task = MAE(build("vit-tiny+sobel", 3, SIDE), MAE.Config(), TrainingSet(8, 10))
    loss, _ = task.loss(batch_of(rough(4, 3)), "main")
    assert loss.isfinite()
