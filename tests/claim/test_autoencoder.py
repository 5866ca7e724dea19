"""Autoencoder: the claims of methods.md section 8, against slow references."""

import copy
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, build
from ssl_app.pretext.autoencoder import Autoencoder, blocks
from ssl_app.pretext.base import TrainingSet
from tests import toys


def batch_of(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=seed)


def make(side: int = 16, channels: int = 1, backbone: str = "small-resnet", **settings: object) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(build(backbone, channels, side), Autoencoder.Config(**settings), TrainingSet(8, 10))


def damaged_of(task: Autoencoder, images: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The images as the network is given them, and what of them is to be drawn. -> (B, C, S, S), (B, 1, S, S)."""
    (damaged,) = toys.inputs_of(task.backbone, lambda: task.loss(batch_of(images, seed), "main"))
    if task.config.corruption != "mask":
        return damaged, torch.ones_like(images[:, :1], dtype=torch.bool)
    return damaged, blocks(len(images), images.shape[-1], task.config.share, batch_of(images, seed).generator)


def drawn_of(task: Autoencoder, damaged: torch.Tensor) -> torch.Tensor:
    return task.decoder(task.code(task.backbone(damaged, task.layer)))


def always_draws(task: Autoencoder, drawn: torch.Tensor) -> None:
    """Have a task draw this, whatever it is given."""
    task.decoder = toys.Returns(lambda code: drawn)


def target_of(task: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    """What is to be drawn of undamaged images: read off the pictures, which undo the change of contrast."""
    watched = copy.deepcopy(task).eval()

    def shown(level: float) -> torch.Tensor:
        always_draws(watched, torch.full_like(images, level))
        return watched.pictures(batch_of(images))["restored"][:, 2]

    mean, deviation = shown(0.0), shown(1.0) - shown(0.0)
    return (images - mean) / deviation


def smooth(count: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    """Images of mean 0 and deviation 1 that a few numbers each describe, (B, 1, S, S)."""
    coarse = torch.randn(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    images = functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    return (images - images.mean()) / images.std()


def test_masks_hide_just_their_share_in_whole_blocks_others_in_each_image() -> None:
    for share in (0.25, 0.5, 0.75):
        hidden = blocks(50, 32, share, torch.Generator().manual_seed(0))
        assert hidden.shape == (50, 1, 32, 32)
        assert (hidden.float().mean((1, 2, 3)) == share).all()
        cells = hidden.view(50, 8, 4, 8, 4).float().mean((2, 4))
        assert set(cells.unique().tolist()) == {0.0, 1.0}
        assert len({image.numpy().tobytes() for image in hidden}) == 50
    everywhere = blocks(2000, 8, 0.5, torch.Generator().manual_seed(1)).float().mean(0)
    assert (everywhere - 0.5).abs().max() < 0.06


def test_what_is_hidden_is_the_mean_and_the_rest_is_as_it_was() -> None:
    images = smooth(5) + 3
    damaged, where = damaged_of(make(), images)
    assert (damaged[where] == 0).all()
    assert torch.equal(damaged[~where], images[~where])
    again, _ = damaged_of(make(), images)
    assert torch.equal(damaged, again)
    other, _ = damaged_of(make(), images, seed=1)
    assert not torch.equal(damaged, other)


def test_noise_has_its_deviation() -> None:
    images = torch.zeros(40, 3, 32, 32)
    damaged, _ = damaged_of(make(32, 3, corruption="noise", sigma=0.3), images)
    assert float(damaged.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(damaged.mean())) < 0.005


@pytest.mark.parametrize("corruption", ["mask", "noise", "none"])
@pytest.mark.parametrize("own_contrast", [False, True])
def test_loss_and_gain_are_those_of_the_equations(corruption: str, own_contrast: bool) -> None:
    task = make(corruption=corruption, own_contrast=own_contrast).eval()
    images = smooth(4) * 0.5 + 0.7
    loss, metrics = task.loss(batch_of(images), "main")
    damaged, where = damaged_of(task, images)
    with torch.no_grad():
        drawn = drawn_of(task, damaged).double().numpy()
    after, before = [], []
    for i, y, x in np.ndindex(4, 16, 16):  # a pixel at a time
        image = images[i].double().numpy()
        mean, deviation = (image.mean(), image.std()) if own_contrast else (0.0, 1.0)
        if corruption == "mask" and not where[i, 0, y, x]:
            continue
        clean = (image[0, y, x] - mean) / deviation
        left = (float(damaged[i, 0, y, x]) - mean) / deviation if corruption == "noise" else 0.0
        after.append((drawn[i, 0, y, x] - clean) ** 2)
        before.append((left - clean) ** 2)
    assert float(loss.detach()) == pytest.approx(np.mean(after), rel=1e-4)
    gain = 10 * math.log10(np.mean(before) / np.mean(after))
    assert float(metrics["psnr_gain"]) == pytest.approx(gain, abs=1e-3)


def test_visible_pixels_give_no_gradient() -> None:
    task = make().eval()
    drawn = torch.zeros(4, 1, 16, 16, requires_grad=True)
    always_draws(task, drawn)
    loss, _ = task.loss(batch_of(smooth(4)), "main")
    loss.backward()
    _, where = damaged_of(task, smooth(4))
    assert not drawn.grad[~where].any()
    assert drawn.grad[where].all()


def test_the_mean_gains_nothing() -> None:
    task = make()
    always_draws(task, torch.zeros(4, 1, 16, 16))
    for settings in ({}, {"corruption": "none"}):
        task.config = Autoencoder.Config(**settings)
        assert task.loss(batch_of(smooth(4)), "main")[1]["psnr_gain"] == Autoencoder.chance


def test_with_its_own_contrast_brightness_changes_nothing() -> None:
    task = make(corruption="none", own_contrast=True)
    images = smooth(4)
    torch.testing.assert_close(target_of(task, images * 0.5 + 2), target_of(task, images), atol=1e-4, rtol=1e-4)
    flat = torch.full((1, 1, 16, 16), 5.0)
    assert torch.equal(target_of(task, flat), torch.zeros(1, 1, 16, 16))


def test_a_code_that_could_hold_the_image_is_refused_unless_it_is_damaged() -> None:
    with pytest.raises(SettingsError) as error:
        make(16, code=64, corruption="none")  # a map of 2 x 2
    assert str(error.value) == (
        "a code of 64 x 4 numbers can copy an image of 256; expected fewer; type code 8, or corruption mask"
    )
    assert make(16, code=63, corruption="none").code.out_channels == 63
    for corruption in ("mask", "noise"):
        assert isinstance(make(16, corruption=corruption).code, nn.Identity)
        assert make(16, code=64, corruption=corruption).code.out_channels == 64


def test_a_network_that_keeps_every_pixel_has_no_code_small_enough() -> None:
    backbone = Backbone("flat", 1, 8, nn.Sequential(OrderedDict(map=nn.Conv2d(1, 4, 1))), {"map": "map"})
    with pytest.raises(SettingsError) as error:
        Autoencoder(backbone, Autoencoder.Config(corruption="none"), TrainingSet(8, 10))
    assert str(error.value) == (
        "a code of 1 x 64 numbers can copy an image of 64; expected fewer; type corruption mask"
    )


@pytest.mark.parametrize(("side", "channels", "width"), [(32, 3, 24), (32, 1, 8), (64, 3, 96)])
def test_the_plain_code_is_an_eighth_of_the_image(side: int, channels: int, width: int) -> None:
    assert make(side, channels, corruption="none").code.out_channels == width


def test_a_linear_autoencoder_finds_the_principal_subspace() -> None:
    torch.manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(36, 36))
    images = (torch.randn(300, 36) * torch.logspace(0.5, -1, 36)) @ axes.T
    images = (images - images.mean(0)).view(300, 1, 6, 6)
    body = nn.Sequential(OrderedDict(map=nn.Conv2d(1, 3, 6, bias=False)))
    backbone = Backbone("linear", 1, 6, body, {"map": "map"})
    task = Autoencoder(backbone, Autoencoder.Config(corruption="none", code=3), TrainingSet(300, 10))
    task.decoder = nn.ConvTranspose2d(3, 1, 6, bias=False)
    optimizer = torch.optim.LBFGS(task.parameters(), max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss, _ = task.loss(batch_of(images), "main")
        loss.backward()
        return loss

    optimizer.step(closure)
    found, _ = torch.linalg.qr(task.decoder.weight.detach().view(3, 36).T)
    principal = torch.linalg.svd(images.view(300, 36), full_matrices=False)[2][:3].T
    cosines = torch.linalg.svdvals(found.T @ principal).clamp_max(1)
    assert cosines.acos().max() < 1e-2


@pytest.mark.parametrize(("settings", "gain"), [
    ({"corruption": "mask"}, 2.0),
    ({"corruption": "noise"}, 1.0),
    ({"corruption": "none"}, 2.0),
])  # fmt: skip
def test_smooth_images_that_it_never_saw_come_back_better(settings: dict[str, object], gain: float) -> None:
    task = make(**settings)
    images = smooth(96)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(45):
        loss, _ = task.loss(batch_of(images[step % 3 * 32 :][:32], seed=step), "main")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        _, metrics = task.loss(batch_of(smooth(64, seed=7)), "main")
    assert metrics["psnr_gain"] > gain


@pytest.mark.parametrize("corruption", ["mask", "noise", "none"])
def test_pictures_show_clean_damaged_and_restored(corruption: str) -> None:
    task = make(corruption=corruption).eval()
    images = smooth(3)
    with torch.no_grad():
        shown = task.pictures(batch_of(images))["restored"]
    assert shown.shape == (3, 3, 1, 16, 16)
    assert torch.equal(shown[:, 0], images)
    damaged, where = damaged_of(task, images)
    assert torch.equal(shown[:, 1], damaged)
    assert torch.equal(shown[:, 2][~where], images[~where])  # what could be seen is not drawn again


def test_it_learns_in_bf16_with_a_loss_in_float32() -> None:
    task = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [task.loss(batch_of(smooth(4)), player)[0] for player in task.players]
    for loss in losses:
        assert loss.dtype == torch.float32
        loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in task.parameters() if p.grad is not None)


def test_no_noise_at_all_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        make(corruption="noise", sigma=0.0)
    assert "sigma 0 damages nothing" in str(error.value)
    assert str(error.value).endswith(", or corruption none")


def test_own_contrast_is_of_all_channels_at_once() -> None:
    images = smooth(2) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1) + torch.arange(3.0).view(3, 1, 1)
    found = target_of(make(channels=3, corruption="none", own_contrast=True), images)
    for image, target in zip(images.double().numpy(), found, strict=True):
        torch.testing.assert_close(target, torch.from_numpy((image - image.mean()) / image.std()).float())


def test_what_is_nearly_flat_is_not_blown_up() -> None:
    images = torch.tensor([-0.01, 0.01]).repeat(128).view(1, 1, 16, 16) + 5
    target = target_of(make(corruption="none", own_contrast=True), images)
    torch.testing.assert_close(target, 10 * (images - 5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("corruption", ["mask", "noise", "none"])
def test_pictures_of_a_perfect_network_are_the_image(corruption: str) -> None:
    task, images = make(corruption=corruption, own_contrast=True).eval(), smooth(3) * 0.5 + 2
    deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True, correction=0)
    always_draws(task, (images - mean) / deviation)
    torch.testing.assert_close(task.pictures(batch_of(images))["restored"][:, 2], images)


def test_noise_is_another_one_in_each_image_and_channel() -> None:
    damaged, _ = damaged_of(make(32, 3, corruption="noise"), torch.zeros(40, 3, 32, 32))
    assert len(damaged.flatten(0, 1).flatten(1).unique(dim=0)) == 120


def test_the_share_is_the_users() -> None:
    damaged, _ = damaged_of(make(share=0.25), smooth(4) + 9)
    assert ((damaged == 0).float().mean((1, 2, 3)) == 0.25).all()
