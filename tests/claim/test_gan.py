"""GAN: the claims of methods.md section 9, against slow references and a ring of Gaussians."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.data.loading import Loader
from ssl_app.errors import DataError
from ssl_app.models.backbones import build
from ssl_app.pretext import gan
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.gan import GAN, PENALIZED_EVERY, discriminator_loss, generator_loss, squared_gradient
from ssl_app.training.history import History
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from tests import toys

SIDE = 16


def task_of(channels: int = 1, images: int = 24, epochs: int = 4, **settings: object) -> GAN:
    torch.manual_seed(0)
    return GAN(build("small-resnet", channels, SIDE), GAN.Config(**settings), TrainingSet(images, epochs))


def batch_of(count: int = 8, channels: int = 1, seed: int = 5) -> Batch:
    images = torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Batch((images,), torch.arange(count), None, seed)


def loader_of(count: int = 24) -> Loader:
    return toys.loader_of(toys.rows(toys.images(count, SIDE), pixels=toys.symmetric()))


def logits_of(task: GAN, images: torch.Tensor) -> torch.Tensor:
    """What the discriminator says of images: above 0 for what it holds for real. (B, C, S, S) -> (B,)."""
    return task.head(task.backbone(images))[:, 0].float()


def generated_in(task: GAN, batch: Batch) -> torch.Tensor:
    """What the generator makes in the discriminator's turn."""
    outputs: list[torch.Tensor] = []
    hook = task.generator.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    task.loss(batch, "discriminator")
    hook.remove()
    return outputs[0]


def train(task: GAN, epochs: int = 2, loader: Loader | None = None, rate: float = 1e-3) -> History:
    plan = Plan({"all": rate}, epochs, 8, optimizer="adamw")
    return fit(task, loader or loader_of(), plan, toys.CPU)


@pytest.mark.parametrize("original", [False, True])
def test_a_discriminator_that_knows_nothing_loses_2_log_2(original: bool) -> None:
    task = task_of(original=original)
    loss, metrics = task.loss(batch_of(), "discriminator")
    assert loss.item() == pytest.approx(2 * math.log(2), abs=0.1)
    assert task.loss(batch_of(), "generator")[0].item() == pytest.approx(math.log(2), abs=0.1)
    assert all(0 <= value <= 1 for name, value in metrics.items() if name.startswith("accuracy"))


def test_losses_are_cross_entropies_and_the_generators_does_not_saturate() -> None:
    real, fake = torch.randn(7), torch.randn(7, requires_grad=True)
    entropy = functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        discriminator_loss(real, fake), entropy(real, torch.ones(7)) + entropy(fake, torch.zeros(7))
    )
    torch.testing.assert_close(generator_loss(fake), entropy(fake, torch.ones(7)))
    (gradient,) = torch.autograd.grad(generator_loss(fake - 20), fake)
    torch.testing.assert_close(gradient, torch.full((7,), -1 / 7))  # towards real, at full strength where it is lost


def test_generated_images_are_in_the_range_of_real_ones_and_vary() -> None:
    task = task_of(channels=3)
    batch = batch_of(channels=3)
    fake = generated_in(task, batch)
    assert fake.shape == batch.images.shape
    assert fake.abs().max() <= 1
    assert task.needs.value_range == "symmetric"
    _, metrics = task.loss(batch, "discriminator")
    assert metrics["variety"] > 0.01
    nn.init.zeros_(task.generator.first.weight)  # a generator that does not look at the noise
    assert task.loss(batch_of(channels=3), "discriminator")[1]["variety"] == 0


def test_r1_is_the_squared_weight_of_a_linear_discriminator_and_its_gradient_too() -> None:
    weight = torch.randn(3 * 4 * 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4)
    found = squared_gradient(lambda images: images.flatten(1) @ weight, images)
    torch.testing.assert_close(found, weight.square().sum())
    (gradient,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(gradient, 2 * weight)


def test_r1_equals_one_image_at_a_time() -> None:
    task = task_of().eval()
    images = batch_of(4).images
    slow = []
    for image in images:
        leaf = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(logits_of(task, leaf).squeeze(), leaf)
        slow.append(gradient.square().sum())
    found = squared_gradient(lambda images: logits_of(task, images), images)
    torch.testing.assert_close(found.detach(), torch.stack(slow).mean())


def test_every_16th_step_of_the_discriminator_is_penalized_16_times_in_eval_statistics() -> None:
    task = task_of(r1=1000.0)
    due = []
    for _ in range(2 * PENALIZED_EVERY):
        task.before_step(0.0, None)
        due.append(task.penalized)
    assert [step for step, penalized in enumerate(due, 1) if penalized] == [16, 32]
    without = task_of(r1=1000.0).train()
    without.steps.fill_(32)
    plain, _ = without.loss(batch_of(), "discriminator")
    losses: list[torch.Tensor] = []
    shown, *_ = toys.inputs_of(task.backbone, lambda: losses.append(task.loss(batch_of(), "discriminator")[0]))
    assert all(module.training for module in task.modules())
    expected = squared_gradient(lambda images: logits_of(task.eval(), images), shown)
    torch.testing.assert_close(losses[0] - plain, 16 * 500 * expected)
    assert expected > 0


def test_validation_images_are_scored_in_eval_mode_a_single_one_too() -> None:
    task = task_of().eval()
    task.penalized = True
    with torch.no_grad():
        for count in (8, 1):
            loss, metrics = task.loss(batch_of(count), "discriminator")
            assert torch.isfinite(torch.stack([loss, *metrics.values()])).all()
        assert torch.equal(task.loss(batch_of(), "discriminator")[0], task.loss(batch_of(), "discriminator")[0])


def test_neither_player_moves_or_reaches_the_other() -> None:
    class Watched(GAN):
        """Keeps what it saw of gradients when a player's turn came."""

        def loss(self, batch: Batch, player: str):
            turns.append((player, *({n: p.grad for n, p in part} for part in parts(self))))
            return super().loss(batch, player)

    def parts(task: GAN) -> Iterator[list[tuple[str, nn.Parameter]]]:
        for player in ("discriminator", "generator"):
            mine = {id(parameter) for parameter in task.parameters_of(player)}
            yield [(name, p) for name, p in task.named_parameters() if id(p) in mine]

    turns: list[tuple] = []
    torch.manual_seed(0)
    task = Watched(build("small-resnet", 1, SIDE), GAN.Config(), TrainingSet(8, 1))
    discriminator, generator = (dict(part) for part in parts(task))
    assert {name.split(".")[0] for name in discriminator} == {"backbone", "head"}
    assert {name.split(".")[0] for name in generator} == {"generator"}
    train(task, epochs=1, loader=loader_of(8))
    (first, _, of_generator), (second, of_discriminator, _) = turns
    assert (first, second) == ("discriminator", "generator")
    assert all(gradient is None for gradient in of_generator.values())
    assert all(gradient is not None for gradient in of_discriminator.values())
    # the generator's turn went through the discriminator and left its gradients alone
    assert all(discriminator[name].grad is of_discriminator[name] for name in discriminator)
    assert all(parameter.grad is not None for parameter in generator.values())
    assert all(p.grad is None for p in task.average.parameters())


def test_real_and_generated_images_are_never_in_one_batch() -> None:
    task = task_of()
    for player, counts in (("discriminator", [8, 8]), ("generator", [8])):
        seen = toys.inputs_of(task.backbone, lambda player=player: task.loss(batch_of(8), player))
        assert [len(images) for images in seen] == counts


def test_the_average_follows_the_generator_and_soon_forgets_its_start() -> None:
    task = task_of()
    first = task.average.module.first.weight.detach().clone()
    expected = first
    for step, value in enumerate((1.0, 2.0, 3.0), start=1):
        nn.init.constant_(task.generator.first.weight, value)
        task.before_step(0.0, None)
        decay = step / (step + 9)
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(task.average.module.first.weight.detach(), expected)
    task.steps.fill_(10**6)
    nn.init.constant_(task.generator.first.weight, 0.0)
    task.before_step(0.0, None)
    torch.testing.assert_close(task.average.module.first.weight.detach(), 0.999 * expected)


def test_the_original_is_dcgan() -> None:
    task = task_of(original=True, r1=3.0, diff_augment=1.0)
    assert (task.r1, task.strength) == (0.0, 0.0)
    assert any(isinstance(module, nn.ConvTranspose2d) for module in task.generator.modules())
    assert task.generator.first.weight.std().item() == pytest.approx(0.02, rel=0.1)
    (noise,) = toys.inputs_of(task.generator, lambda: task.loss(batch_of(200), "discriminator"))
    assert -1 <= noise.min() < -0.9
    assert 0.9 < noise.max() <= 1
    few, other = map(str, task.notes)
    assert few.startswith("24 images without augmentation: the discriminator soon knows each of them; ")
    assert "original" in few
    assert "not the article's" in other
    assert "type lr 2e-4 weight_decay 0 schedule constant batch_size 128" in other
    assert task_of().notes == ()
    assert str(task_of(diff_augment=0.0).notes[0]).endswith("type diff_augment 1")
    assert task_of(diff_augment=0.0, images=10_000).notes == ()


def test_images_that_are_all_alike_are_refused() -> None:
    with pytest.raises(DataError) as error:
        GAN.check(np.full((4, SIDE, SIDE, 1), 0.25, np.float32), GAN.Config())
    assert str(error.value).startswith(
        "the images are all alike (no pixel varies by more than 0 of the range); expected images that differ; "
        "type another data, or intensity per-image"
    )
    GAN.check(np.random.default_rng(0).random((4, SIDE, SIDE, 1), np.float32), GAN.Config())


def test_pictures_are_a_real_one_and_five_of_the_average() -> None:
    task, batch = task_of().eval(), batch_of(3)
    with torch.no_grad():
        pictures = task.pictures(batch)["fake"]
    assert pictures.shape == (3, 6, 1, SIDE, SIDE)
    assert torch.equal(pictures[:, 0], batch.images)
    assert pictures.abs().max() <= 1
    assert len(pictures[:, 1:].flatten(0, 1).flatten(1).unique(dim=0)) == 15


def test_all_of_a_ring_of_eight_gaussians_is_found() -> None:
    """The method's losses and R1, with small networks in the plane."""

    def network(width_in: int, width_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(width_in, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, width_out)
        )

    torch.manual_seed(0)
    angles = torch.arange(8) * math.pi / 4
    centers = torch.stack([angles.cos(), angles.sin()], 1)
    discriminator, generator = network(2, 1), network(8, 2)
    optimizers = [
        torch.optim.AdamW(player.parameters(), 3e-3, betas=(0.0, 0.99)) for player in (discriminator, generator)
    ]
    for step in range(600):
        real = centers[torch.randint(8, (128,))] + 0.03 * torch.randn(128, 2)
        fake = generator(torch.randn(128, 8))
        loss = discriminator_loss(discriminator(real)[:, 0], discriminator(fake.detach())[:, 0])
        if step % PENALIZED_EVERY == 0:
            loss = loss + PENALIZED_EVERY * 0.1 / 2 * squared_gradient(lambda x: discriminator(x)[:, 0], real)
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        generator_loss(discriminator(fake)[:, 0]).backward()
        optimizers[1].step()
    with torch.no_grad():
        nearness, nearest = torch.cdist(generator(torch.randn(2000, 8)), centers).min(1)
    found = torch.bincount(nearest[nearness < 0.3], minlength=8) / 2000
    assert (found > 0.02).all(), found
    assert found.sum() > 0.6


def test_a_generator_of_one_image_gives_a_warning() -> None:
    task = task_of()
    assert task.warning([{"variety": 0.01}]) is None
    assert task_of(epochs=1).warning([{"variety": 0.01}]) is not None
    assert task.warning([{"variety": 0.01}, {"variety": 0.4}]) is None
    assert "the gan has collapsed to one image: after epoch 2" in str(
        task.warning([{"variety": 0.4}, {"variety": 0.02}])
    )


def test_whatever_the_discriminator_sees_is_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan, "diff_augment", lambda images, strength, generator: torch.full_like(images, 0.25))
    task = task_of()
    seen = toys.inputs_of(task.backbone, lambda: [task.loss(batch_of(), player) for player in task.players])
    assert len(seen) == 3  # real, fake, and fake again
    assert all((images == 0.25).all() for images in seen)


def test_the_average_follows_batch_norm_statistics_too() -> None:
    task = task_of()
    task.generator.layers[0].running_mean.fill_(1.0)
    task.before_step(0.0, None)
    followed = task.average.module.layers[0].running_mean
    torch.testing.assert_close(followed, torch.full_like(followed, 0.9))


def test_pictures_are_of_the_average_whatever_the_generator_does() -> None:
    task = task_of().eval()
    nn.init.zeros_(task.generator.first.weight)  # the average has not followed yet
    with torch.no_grad():
        fake = task.pictures(batch_of(3))["fake"][:, 1:]
    assert len(fake.flatten(0, 1).flatten(1).unique(dim=0)) == 15


def test_a_discriminator_that_takes_all_for_real_is_right_of_the_real() -> None:
    task = task_of()
    task.head = toys.Returns(lambda features: torch.full((len(features), 1), 2.0))
    _, metrics = task.loss(batch_of(), "discriminator")
    assert (metrics["accuracy_real"], metrics["accuracy_fake"]) == (1, 0)


def test_copies_of_one_image_are_refused_be_they_ever_so_textured() -> None:
    one = np.random.default_rng(0).random((1, SIDE, SIDE, 1), np.float32)
    with pytest.raises(DataError):
        GAN.check(np.repeat(one, 4, 0), GAN.Config())


def test_the_generators_noise_is_normal() -> None:
    task = task_of()
    (noise,) = toys.inputs_of(task.generator, lambda: task.loss(batch_of(200), "discriminator"))
    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
