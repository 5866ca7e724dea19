"""Context encoder: the claims of methods.md section 7, against slow references."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.context_encoder import (
    ContextEncoder,
    Discriminator,
    center_hole,
    middle,
    overlap,
    random_holes,
    region_loss,
)
from tests import toys

REGIONS = ["random", "center"]


def batch_of(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=seed)


def make(side: int = 16, channels: int = 1, **settings: object) -> ContextEncoder:
    torch.manual_seed(0)
    return ContextEncoder(
        build("small-resnet", channels, side), ContextEncoder.Config(**settings), TrainingSet(8, 10)
    )


def regions_of(task: ContextEncoder, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Where pixels of a batch are hidden, and the band that is seen and drawn with them. -> (B, 1, S, S) twice."""
    count, side = len(batch.images), batch.images.shape[-1]
    if task.config.region == "center":
        hole, band = (mask.expand(count, -1, -1, -1) for mask in center_hole(side))
        return hole, band
    hole = random_holes(count, side, torch.Generator().manual_seed(batch.seed))
    return hole, torch.zeros_like(hole)


def drawn_of(task: ContextEncoder, hidden: torch.Tensor) -> torch.Tensor:
    return torch.tanh(task.decoder(task.backbone(hidden, task.layer)))


def always_draws(task: ContextEncoder, drawn: torch.Tensor) -> None:
    """Have the generator draw this, whatever it is given: values within (-1, 1)."""
    task.decoder = toys.Returns(lambda features: torch.atanh(drawn))


def discriminated(task: ContextEncoder, images: torch.Tensor) -> torch.Tensor:
    """What the discriminator sees of images: the middle where that is hidden, else all."""
    start, stop = middle(images.shape[-1]) if task.config.region == "center" else (0, images.shape[-1])
    return images[..., start:stop, start:stop]


def rings(count: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    """Waves around the middle, some higher than others: what is hidden cannot be carried in from its border."""
    across = (torch.arange(side) - (side - 1) / 2) / side
    waves = torch.cos(5 * torch.pi * (across[:, None] ** 2 + across[None] ** 2).sqrt())
    height = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    return height * waves


def test_the_middle_quarter_is_drawn_and_hidden_but_for_a_band() -> None:
    hole, band = center_hole(32)
    assert overlap(32) == 1
    assert overlap(128) == 4
    assert middle(32) == (8, 24)
    assert torch.equal(hole[0, 0].nonzero().unique(), torch.arange(9, 23))
    assert hole.sum() == 14 * 14
    assert (hole | band).sum() == 16 * 16
    assert not (hole & band).any()
    for side in (16, 17, 30, 33, 96):
        hole, band = center_hole(side)
        assert 0 < hole.sum() < (hole | band).sum() == (side // 2) ** 2 <= side**2 / 4


def test_random_holes_are_a_quarter_each_and_differ() -> None:
    for side in (16, 32, 45):
        hole = random_holes(30, side, torch.Generator().manual_seed(0))
        assert hole.shape == (30, 1, side, side)
        assert (hole.sum((1, 2, 3)) == side**2 // 4).all()
        assert len({image.numpy().tobytes() for image in hole}) == 30
        assert torch.equal(hole, random_holes(30, side, torch.Generator().manual_seed(0)))
        edges = (hole[..., 1:] != hole[..., :-1]).float().mean()
        assert edges < 2 / side  # blots, not dust: a row crosses a border or two


def test_random_holes_alone_are_drawn() -> None:
    task, images = make(region="random", adversarial=0.0).eval(), rings(4)
    hole, _ = regions_of(task, batch_of(images))
    assert hole.any()
    always_draws(task, torch.where(hole, images, 0.95))
    loss, _ = task.loss(batch_of(images), "generator")
    assert float(loss) == pytest.approx(0, abs=1e-6), "what is seen may be drawn anyhow"


@pytest.mark.parametrize("region", REGIONS)
def test_holes_are_0_after_normalization_and_other_pixels_as_they_were(region: str) -> None:
    task = make(region=region).eval()
    images = rings(4) + 0.01
    (hidden,) = toys.inputs_of(task.backbone, lambda: task.loss(batch_of(images), "generator"))
    hole, _ = regions_of(task, batch_of(images))
    assert (hidden[hole] == 0).all()
    assert torch.equal(hidden[~hole], images[~hole])


def test_the_loss_counts_the_hole_and_tenfold_the_band_and_nothing_else() -> None:
    torch.manual_seed(0)
    made, images = torch.randn(3, 2, 16, 16, requires_grad=True), torch.randn(3, 2, 16, 16)
    hole, band = (mask.expand(3, -1, -1, -1) for mask in center_hole(16))
    loss = region_loss(made, images, hole, band)
    total, count = 0.0, 0
    for i, y, x in np.ndindex(3, 16, 16):
        if hole[i, 0, y, x] or band[i, 0, y, x]:
            weight = 1 if hole[i, 0, y, x] else 10
            total += weight * float((made.detach()[i, :, y, x] - images[i, :, y, x]).square().sum())
            count += 2
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-4)
    loss.backward()
    drawn = (hole | band).expand_as(made)
    assert not made.grad[~drawn].any()
    assert made.grad[drawn].all()


@pytest.mark.parametrize("region", REGIONS)
def test_without_a_discriminator_the_loss_is_plain_l2(region: str) -> None:
    task = make(region=region, adversarial=0.0)
    images = rings(4)
    loss, metrics = task.eval().loss(batch_of(images), "generator")
    hole, band = regions_of(task, batch_of(images))
    made = drawn_of(task, images.masked_fill(hole, 0))
    torch.testing.assert_close(loss, region_loss(made, images, hole, band))
    assert set(metrics) == {"psnr_gain"}
    task.train()
    nothing, metrics = task.loss(batch_of(images), "discriminator")
    nothing.backward()
    assert nothing == 0
    assert not metrics
    assert all(not p.grad.any() for p in task.discriminator.parameters())
    assert all(p.grad is None for p in task.backbone.parameters())


@pytest.mark.parametrize("region", REGIONS)
def test_the_generators_loss_is_both_in_their_shares(region: str) -> None:
    task = make(region=region, adversarial=0.25).eval()
    images = rings(4)
    loss, _ = task.loss(batch_of(images), "generator")
    hole, band = regions_of(task, batch_of(images))
    made = drawn_of(task, images.masked_fill(hole, 0))
    shown = torch.where(hole | band, made, images)
    if region == "center":
        shown = made[..., 4:12, 4:12]
    real = torch.ones(4)
    fooled = functional.binary_cross_entropy_with_logits(task.discriminator(shown), real)
    torch.testing.assert_close(loss, 0.75 * region_loss(made, images, hole, band) + 0.25 * fooled)


@pytest.mark.parametrize("region", REGIONS)
def test_the_trunk_runs_once_a_step_and_the_discriminator_sees_what_was_drawn(region: str) -> None:
    task, batch = make(region=region), batch_of(rings(4))
    calls = []
    task.backbone.register_forward_hook(lambda *_: calls.append(1))
    task.loss(batch, "generator")
    shown = task.drawn[batch.seed].clone()
    assert not shown.requires_grad
    loss, _ = task.loss(batch, "discriminator")
    assert len(calls) == 1
    assert not task.drawn
    task.eval()
    real = discriminated(task, batch.images)
    expected = (
        functional.softplus(-task.discriminator(real)).mean() + functional.softplus(task.discriminator(shown)).mean()
    )
    torch.testing.assert_close(loss, expected, atol=0.05, rtol=0.05)  # a power iteration of the norm lies between
    task.loss(batch, "generator")
    assert not task.drawn  # scoring keeps nothing
    alone, metrics = task.loss(batch, "discriminator")
    assert alone.isfinite()
    assert 0 <= metrics["discriminator_accuracy"] <= 1


def test_a_discriminator_of_perfect_drawings_is_right_half_the_time() -> None:
    task, batch = make(), batch_of(rings(6))
    task.drawn[batch.seed] = discriminated(task, batch.images)
    loss, metrics = task.loss(batch, "discriminator")
    assert metrics["discriminator_accuracy"] == 0.5
    assert loss >= 2 * np.log(2) - 1e-6


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (5, 33), (3, 112)])
def test_the_discriminator_takes_any_image_changes_little_with_it_and_learns(channels: int, side: int) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(channels, side)
    for _ in range(20):
        discriminator(torch.zeros(1, channels, side, side))  # power iterations
    discriminator.eval()
    images = torch.randn(4, channels, side, side)
    step = 0.01 * torch.randn_like(images)
    moved = (discriminator(images + step) - discriminator(images)).abs()
    # each layer stretches by 1 at most; a pixel is in 4 windows of a convolution, so 2 a convolution for lengths
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in discriminator.layers)
    assert (moved <= 2**convolutions * step.flatten(1).norm(dim=1)).all()
    assert discriminator(images).shape == (4,)


def test_a_discriminator_learns_what_is_drawn_badly() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(1, 16)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=3e-3)
    for step in range(40):
        real, drawn = discriminator(rings(32, seed=step)), discriminator(rings(32, seed=step) * 0.2)
        loss = functional.softplus(-real).mean() + functional.softplus(drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1.2


def test_each_parameter_has_one_player() -> None:
    task = make()
    generator, discriminator = (
        {id(p) for p in task.parameters_of(player)} for player in ("generator", "discriminator")
    )
    assert not generator & discriminator
    assert generator | discriminator == {id(p) for p in task.parameters()}
    assert {id(p) for p in task.backbone.parameters()} < generator


def border_inpainted(images: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Each hidden pixel the mean of its four neighbors, until nothing changes."""
    filled = images.masked_fill(hole, 0)
    for _ in range(400):
        padded = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        filled = torch.where(hole, around / 4, images)
    return filled


@pytest.mark.parametrize("region", REGIONS)
def test_it_learns_more_than_a_mean_and_than_what_the_border_says(region: str) -> None:
    task = make(region=region)
    players = {player: torch.optim.AdamW(task.parameters_of(player), lr=3e-3) for player in task.players}
    images = rings(64)
    for step in range(50):
        batch = batch_of(images[step % 2 * 32 :][:32], seed=step)
        for player, optimizer in players.items():
            loss, _ = task.loss(batch, player)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    task.eval()
    unseen = rings(32, seed=9)
    with torch.no_grad():
        _, metrics = task.loss(batch_of(unseen), "generator")
        inpainted = task.pictures(batch_of(unseen))["inpainted"]
    hole, _ = regions_of(task, batch_of(unseen))
    assert torch.equal(inpainted[:, 1], unseen.masked_fill(hole, 0))
    assert torch.equal(inpainted[:, 2][~hole], unseen[~hole])
    errors = [(tried - unseen)[hole].square().mean() for tried in (inpainted[:, 2], border_inpainted(unseen, hole))]
    assert errors[0] < errors[1]
    assert metrics["psnr_gain"] > 3


@pytest.mark.parametrize("region", REGIONS)
def test_the_gain_is_over_the_mean_of_what_can_be_seen_in_the_hole_alone(region: str) -> None:
    task = make(channels=3, region=region, adversarial=0.0).eval()
    heights, levels = torch.tensor([[1.0, 0.5, -0.3], [0.0, 0.2, 0.4]]).view(2, 3, 1, 1)
    images = rings(4) * heights + levels
    hole, _ = regions_of(task, batch_of(images))
    made = torch.where(hole, 0.0, 0.99).repeat(1, 3, 1, 1)  # nothing but the hole counts
    for image, here, drawn in zip(images, hole, made, strict=True):
        for channel in range(3):
            drawn[channel][here[0]] = image[channel][~here[0]].mean()
    always_draws(task, made)
    assert float(task.loss(batch_of(images), "generator")[1]["psnr_gain"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("region", REGIONS)
def test_pictures_show_image_hole_and_what_fills_it(region: str) -> None:
    task = make(32, 3, region=region).eval()
    with torch.no_grad():
        shown = task.pictures(batch_of(rings(3, 32).expand(-1, 3, -1, -1)))["inpainted"]
    assert shown.shape == (3, 3, 3, 32, 32)
    assert shown.abs().max() <= 1


def test_it_learns_in_bf16_with_a_loss_in_float32() -> None:
    task = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [task.loss(batch_of(rings(4)), player)[0] for player in task.players]
    for loss in losses:
        assert loss.dtype == torch.float32
        loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in task.parameters() if p.grad is not None)


def test_a_discriminator_that_is_always_right_gives_a_warning() -> None:
    task = make()
    assert task.warning([{"discriminator_accuracy": 0.99}]) is None
    assert task.warning([{"discriminator_accuracy": 0.99}, {"discriminator_accuracy": 0.6}]) is None
    assert "in 98% of cases" in str(
        task.warning([{"discriminator_accuracy": 0.99}, {"discriminator_accuracy": 0.98}])
    )
    assert task.warning([{}, {}]) is None  # no discriminator


def test_one_epoch_of_a_discriminator_that_is_always_right_gives_none() -> None:
    assert make().warning([{"discriminator_accuracy": 0.6}, {"discriminator_accuracy": 0.99}]) is None


@pytest.mark.parametrize("region", REGIONS)
def test_a_discriminator_scored_alone_is_given_the_same(region: str) -> None:
    task, images = make(region=region).eval(), rings(4)
    made = rings(4, seed=3) / 2
    always_draws(task, made)
    (given,) = toys.inputs_of(task.discriminator, lambda: task.loss(batch_of(images), "discriminator"))
    hole, band = regions_of(task, batch_of(images))
    drawn = torch.where(hole | band, made, images)
    torch.testing.assert_close(given, torch.cat([discriminated(task, images), discriminated(task, drawn)]))


def test_the_discriminator_learns_at_a_tenth_of_the_generators_rate() -> None:
    scale = ContextEncoder.defaults.lr_scale
    assert scale.keys() == make().parts().keys()
    assert scale["discriminator"] == scale["backbone"] / 10 == scale["decoder"] / 10
