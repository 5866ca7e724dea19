"""GAN: discriminate real images from those of a generator (DCGAN: Radford et al., 2016, arXiv:1511.06434)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Change, DataError, Notice, Set, Unset
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import build_head
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.pretext.parts.diff_augment import diff_augment
from ssl_app.pretext.parts.generators import ImageGenerator, start_as_dcgan
from ssl_app.training.batch_norm import as_in_use
from ssl_app.training.ema import EMA
from ssl_app.training.task import DatasetMap, Metrics, Needs

PENALIZED_EVERY = 16  # steps (Karras et al., 2020, arXiv:1912.04958, appendix B)
DECAY = 0.999  # of the generator's moving average, once it has run for a while
MADE = 5  # generated pictures beside each real one
FEW = 10_000  # images below which a discriminator soon knows each by heart (Zhao et al., 2020)
LEAST_SPREAD = 1 / 255
LEAST_VARIETY = 0.1  # of generated images, in that of the real ones


@dataclass(frozen=True)
class GANConfig:
    """Settings of the GAN."""

    noise: int = option(100, "numbers that an image is generated from", at_least=1)
    r1: float = option(
        0.1, "gamma: penalty on how fast the judgement of a real image changes with its pixels; 0: none", at_least=0
    )
    diff_augment: float = option(
        1.0, "how much real and fake images alike are augmented before they are judged", at_least=0, at_most=1
    )
    original: bool = option(
        False,
        "DCGAN's generator: transposed convolutions, uniform noise, weights from N(0, .02); no r1, no diff-augment",
    )


class GAN(Pretext[GANConfig]):
    """The discriminator is the backbone and a linear layer; each step trains it first, and then a small generator.

    Real and fake images go through the discriminator in separate batches: batch norm would tell them apart in one.
    The loss does not saturate, and R1 on real images every 16th step keeps the discriminator from running away.
    Pictures come from a moving average of the generator. At the end the backbone's batch-norm statistics, a mixture
    of real and fake, are taken anew from the real images.

    No score: a discriminator that is always right and one that is never right both mean that the game is over.
    `variety` near 0 means mode collapse: the generator makes one image only.
    """

    Config = GANConfig
    players = ("discriminator", "generator")
    needs = Needs(value_range="symmetric")
    defaults = Defaults(
        epochs=60,
        batch_size=64,
        optimizer="adamw",
        # CIFAR-10, 781 steps: .366 by neighbors and .423 linear; .349 and .399 with the 2e-4 of DCGAN (one run each)
        lr=1e-3,
        momentum=0.5,  # DCGAN, section 4
    )
    recalibrates_batch_norm = True

    steps: Tensor

    def __init__(self, backbone: Backbone, config: GANConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.original = config.original
        self.r1 = 0.0 if config.original else config.r1
        self.strength = 0.0 if config.original else config.diff_augment
        self.head = build_head("linear", backbone.shape(), 1)
        self.generator = ImageGenerator(
            config.noise, backbone.channels, backbone.image_size, transposed=config.original
        )
        if config.original:  # not the backbone: its weights may be pretrained
            start_as_dcgan(self.generator)
            start_as_dcgan(self.head)
        self.average = EMA(self.generator)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # begun so far
        self.early = min(2, data.epochs)  # epochs before which mode collapse is no warning
        self.penalized = False  # whether this step is; before_step says so anew
        self.notes = _notes(config, data.images)

    @classmethod
    def check(cls, images: NDArray[np.float32], config: GANConfig) -> Sequence[Notice]:
        """Raise DataError where all images are alike: there is nothing to make but one."""
        spread = float(images.std(0).max())
        if spread < LEAST_SPREAD:
            raise DataError(
                f"the images are all alike (no pixel varies by more than {spread:.1g} of the range)",
                expected="images that differ",
                fix=(Change("data"), Set("intensity", "per-image where their contrast is low")),
            )
        return ()

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """Backbone and head, or the generator."""
        modules = (self.backbone, self.head) if player == "discriminator" else (self.generator,)
        return (parameter for module in modules for parameter in module.parameters())

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Move the average towards the generator of the step before, and say whether this step is penalized."""
        self.steps += 1
        step = int(self.steps)
        self.average.update(self.generator, min(DECAY, step / (step + 9)))  # the first weights are soon forgotten
        self.penalized = self.r1 > 0 and step % PENALIZED_EVERY == 0
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """The player's loss; the discriminator's accuracy, in [0, 1], and how much generated images vary."""
        if player == "generator":
            return generator_loss(self._discriminate(self._shown(self._make(self.generator, batch), batch))), {}
        with torch.no_grad():
            fake = self._make(self.generator, batch)
            real = self._shown(batch.images, batch)
            shown = self._shown(fake, batch)
        on_real, on_fake = self._discriminate(real), self._discriminate(shown)  # each (B,)
        loss = discriminator_loss(on_real, on_fake)
        if self.penalized and self.training:
            with torch.autocast(real.device.type, enabled=False), as_in_use(self.backbone):
                # once in 16 steps, so 16 times as much
                loss = loss + PENALIZED_EVERY * self.r1 / 2 * squared_gradient(self._discriminate, real.float())
        return loss, {
            "accuracy_real": (on_real.detach() > 0).float().mean(),
            "accuracy_fake": (on_fake.detach() < 0).float().mean(),
            "variety": _spread(fake) / _spread(batch.images).clamp_min(LEAST_SPREAD),
        }

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of a generator that has found one image which the discriminator takes for real, and makes no other."""
        if len(history) < self.early or history[-1]["variety"] >= LEAST_VARIETY:
            return None
        return Notice(
            f"the gan has collapsed to one image: after epoch {len(history)} its images vary "
            f"{history[-1]['variety']:.2f} times as much as the real ones",
            fixes=(Change("r1", "a larger"), Change("method")),
        )

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """In each row a real image, and five of the moving average of the generator."""
        fake = torch.stack([self._make(self.average, batch) for _ in range(MADE)], 1)
        return {"fake": torch.cat([batch.images[:, None], fake], 1)}

    def _make(self, generator: nn.Module, batch: Batch) -> Tensor:
        """As many images as there are real ones, (B, C, S, S) in [-1, 1]."""
        shape = (len(batch.images), self.generator.noise)
        if self.original:
            noise = torch.rand(shape, generator=batch.generator) * 2 - 1
        else:
            noise = torch.randn(shape, generator=batch.generator)
        fake: Tensor = generator(noise.to(batch.images.device, non_blocking=True))
        return fake

    def _shown(self, images: Tensor, batch: Batch) -> Tensor:
        return diff_augment(images, self.strength, batch.generator)

    def _discriminate(self, images: Tensor) -> Tensor:
        """Above 0 for what it holds for real. (B, C, S, S) -> (B,)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits[:, 0].float()


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)) of logits, (B,), (B,) -> (); 2 log 2 for a discriminator that knows nothing."""
    return functional.softplus(-on_real).mean() + functional.softplus(on_fake).mean()


def generator_loss(on_fake: Tensor) -> Tensor:
    """-log D(fake) of logits, (B,) -> (): it does not saturate (Goodfellow et al., 2014)."""
    return functional.softplus(-on_fake).mean()


def squared_gradient(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean squared length of a logit's gradient by its image: R1 without gamma / 2 (arXiv:1801.04406). -> ()."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def _spread(images: Tensor) -> Tensor:
    """Standard deviation over the images, mean over pixels and channels. (B, C, S, S) -> ()."""
    return images.detach().float().std(0, correction=0).mean()


def _notes(config: GANConfig, images: int) -> tuple[Notice, ...]:
    notes = []
    if images < FEW and (config.original or config.diff_augment == 0):
        fix = Unset("original") if config.original else Set("diff_augment", 1)
        notes.append(
            Notice(f"{images:,} images without augmentation: the discriminator soon knows each of them", fixes=(fix,))
        )
    if config.original:
        published = (("weight_decay", 0), ("schedule", "constant"), ("batch_size", 128))
        notes.append(
            Notice(
                "the discriminator is the backbone, not the article's; as the article trains it",
                fixes=(Set("lr", "2e-4", published),),
            )
        )
    return tuple(notes)
