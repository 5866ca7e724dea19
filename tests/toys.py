"""Toy tasks, images and loaders: small enough to check by hand, built on the real contracts."""

import itertools
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.dataset import Dataset, alone, in_class_order
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.data.sources.base import Columns, Source
from ssl_app.models.backbones import Backbone
from ssl_app.training.hardware import Hardware
from ssl_app.training.task import BatchFunction, DatasetMap, Metrics, Needs, Task

NARROW = (8, 16, 32, 64)  # widths of a small-resnet of a quarter
CPU = Hardware(torch.device("cpu"), False, "a test", 1)


def scaling(channels: int = 1) -> PixelScaling:
    return PixelScaling("range", 0.0, 255.0, (0.5,) * channels, (0.25,) * channels)


def symmetric(channels: int = 1) -> PixelScaling:
    """To [-1, 1], as a generator makes images."""
    return PixelScaling("range", 0.0, 255.0, (0.5,) * channels, (0.5,) * channels)


def images(count: int = 24, side: int = 12, channels: int = 1, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


class InMemory(Source):
    """A source of arrays, (H, W, C) each, of any sizes."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.name, self.arrays = "made", arrays
        self.keys = tuple(f"{i}.png" for i in range(len(arrays)))

    @classmethod
    def accepts(cls, data: str) -> bool:
        return False

    def read(self, i: int) -> np.ndarray:
        return self.arrays[i]

    def stamps(self) -> list[str]:
        return list(self.keys)


def rows(packed: np.ndarray, size: int | None = None, pixels: PixelScaling | None = None) -> ImageRows:
    """All of some packed images, (N, P, P, C), at a size: by default their own."""
    pixels = pixels or scaling(packed.shape[-1])
    return ImageRows(packed, np.arange(len(packed)), pixels, size or packed.shape[1])


def loader_of(rows: ImageRows, batch_size: int = 8, preset: str = "light", **batching: int) -> Loader:
    """Batches of some images."""
    return Loader(rows, transforms.preset(preset, rows.frame), Batching(batch_size, **({"seed": 3} | batching)))


def loader(
    count: int = 24, batch_size: int = 8, channels: int = 1, side: int = 12, preset: str = "light", **batching: int
) -> Loader:
    """Batches of images of noise."""
    return loader_of(rows(images(count, side, channels)), batch_size, preset, **batching)


def dataset(
    labels: Sequence[str | None],
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    content: Sequence[int] | None = None,
) -> Dataset:
    """A set of which only what is known of its images counts: their pixels are 0."""
    number = len(labels)
    hashes = np.array(content or np.random.default_rng(1).integers(-(2**63), 2**63 - 1, number), np.int64)
    classes = in_class_order({label for label in labels if label is not None})
    return Dataset(
        name="m.csv",
        images=np.zeros((number, 2, 2, 1), np.uint8),
        keys=tuple(f"{i}.png" for i in range(number)),
        content=hashes,
        classes=classes,
        labels=np.array([classes.index(one) if one is not None else 0 for one in labels], np.int64),
        labeled=np.array([label is not None for label in labels]),
        groups=None if groups is None else tuple(one or alone(int(c)) for one, c in zip(groups, hashes, strict=True)),
        splits=None if splits is None else tuple(splits),
        columns=Columns("label", None if groups is None else "patient", None if splits is None else "split"),
        notes=(),
        unreadable=(),
        mirrors=True,
        image_size=2,
        key="k",
    )


def tiny(channels: int = 1, out: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8, out),
    )


class Mean(Task):
    """Predicts an image's mean: one player, no hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny(out=1)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        target = batch.images.mean((1, 2, 3))
        error = (self.net(batch.images)[:, 0] - target).square().mean()
        return error, {"error": error.detach()}


class SelfLabels(Task):
    """Relabels like SeLa: all images, at fractions of an epoch, into a buffer."""

    def __init__(self, count: int, at: tuple[float, ...] = (0.0, 0.4, 1.0, 1.5)) -> None:
        super().__init__()
        self.net = tiny(out=3)
        self.at = at
        self.register_buffer("labels", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        if int(self.done) < len(self.at) and progress >= self.at[int(self.done)] - 1e-9:
            scores = map_dataset(lambda batch: self.net(batch.images).float())
            assert scores.shape == (len(self.labels), 3)
            order = scores[:, 0].argsort()  # balanced: a third each
            self.labels[order] = torch.arange(len(order)) * 3 // len(order)
            self.done += 1
            return {"relabeled": self.done.double()}
        return {}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        return nn.functional.cross_entropy(self.net(batch.images).float(), self.labels[batch.index]), {}


class NewHead(SelfLabels):
    """Reinitializes its head each epoch and samples unevenly, like DeepCluster."""

    def __init__(self, count: int) -> None:
        super().__init__(count, at=())
        self.fresh: list[nn.Parameter] = []

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        scores = map_dataset(lambda batch: self.net(batch.images).float())
        self.labels.copy_(scores.argmax(1))
        self.net[-1].reset_parameters()
        self.fresh = [self.net[-1].weight, self.net[-1].bias]
        return {"clusters": torch.tensor(float(len(self.labels.unique())))}

    def reinitialized(self) -> Iterable[nn.Parameter]:
        fresh, self.fresh = self.fresh, []
        return fresh

    def sampling_weights(self) -> Tensor:
        return 1.0 / torch.bincount(self.labels, minlength=3)[self.labels].double()


class Duel(Task):
    """Two players like a GAN: a generator of images, and a discriminator of them from real ones."""

    players = ("discriminator", "generator")
    needs = Needs(value_range="symmetric")

    def __init__(self, side: int = 12) -> None:
        super().__init__()
        self.side = side
        self.generator = nn.Sequential(nn.Linear(4, side * side), nn.Tanh())
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(side * side, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)
        )

    def parts(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        return self.parts()[player].parameters()

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        noise = torch.randn(len(batch.images), 4, generator=batch.generator)
        made = self.generator(noise).view(-1, 1, self.side, self.side)
        if player == "generator":
            return nn.functional.softplus(-self.discriminator(made)).mean(), {}
        real = nn.functional.softplus(-self.discriminator(batch.images)).mean()
        return real + nn.functional.softplus(self.discriminator(made.detach())).mean(), {}


class MapInMemory:
    """map_dataset of one process, over images in memory; keeps which calls were `as_trained`."""

    def __init__(self, task: Task, images: Tensor) -> None:
        self.task, self.images = task, images
        self.as_trained: list[bool] = []

    def __call__(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        return self.local(fn, as_trained=as_trained)

    def local(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        self.as_trained.append(as_trained)
        self.task.eval()
        with torch.no_grad():
            return fn(Batch((self.images,), torch.arange(len(self.images)), None, 0))

    def all_gather(self, rows: Tensor) -> Tensor:
        return rows

    def all_reduce(self, values: Tensor) -> Tensor:
        return values


def bits(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def inputs_of(module: nn.Module, compute: Callable[[], object]) -> list[Tensor]:
    """What a module is given, call by call, while something is computed."""
    given: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
    try:
        compute()
    finally:
        hook.remove()
    return given


class Returns(nn.Module):
    """Takes the place of a part of a task: gives what a function makes of its input."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fn(inputs)


def stop_in_step(task: Task, number: int) -> None:
    """Have this process get SIGTERM within that step of a training, counted from 1: the loop ends after the step."""
    original, steps = task.before_step, itertools.count(1)

    def before_step(progress: float, map_dataset: DatasetMap) -> Metrics:
        if next(steps) == number:
            signal.raise_signal(signal.SIGTERM)
        return original(progress, map_dataset)

    task.before_step = before_step  # type: ignore[method-assign]


def of_four_kinds(count: int, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright quarter, another one for each kind, and their kinds. -> (N, S, S, 1), (N,)."""
    kinds, found = np.arange(count) % 4, images(count, side) // 8
    half = side // 2
    for image, kind in zip(found, kinds, strict=True):
        image[half * (kind // 2) :][:half, half * (kind % 2) :][:, :half] += 200
    return found, kinds


def one_distinct_tile() -> np.ndarray:
    """Images that are flat but for one of 3x3 tiles, (20, 48, 48, 1) in [0, 1]."""
    images = np.full((20, 48, 48, 1), 0.5, np.float32)
    images[:, :16, :16] = np.random.default_rng(0).random((20, 16, 16, 1), np.float32)
    return images


def structured(images: np.ndarray) -> np.ndarray:
    """A copy of the images with a stripe or a bar, another in each quarter."""
    images = images.copy()
    half = images.shape[1] // 2
    down, right = np.indices((half, half))
    quarters = [down % 4 < 2, right % 4 < 2, down % 6 < 3, (down + right) % 4 < 2]
    for number, pattern in enumerate(quarters):
        top, left = divmod(number, 2)
        part = images[:, top * half :, left * half :][:, :half, :half]
        part //= 4
        part += 120 * pattern[None, :, :, None].astype(np.uint8)
    return images


def through_a_lens(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Gray texture without any layout, in which red and blue are a tenth larger than green. (B, 3, S, S)."""
    rough = torch.randn(count, 1, side + 2, side + 2, generator=generator)
    green = functional.avg_pool2d(rough, 3, stride=1)  # (B, 1, S, S)
    zoom = torch.eye(2, 3).mul(0.9).expand(count, -1, -1)
    grid = functional.affine_grid(zoom, [count, 1, side, side], align_corners=False)
    larger = functional.grid_sample(green, grid, align_corners=False)
    return torch.cat([larger, green, larger], 1)


def accuracy_through_a_lens(make: Callable[[Backbone], Task]) -> float:
    """Of a task that tells where tiles are from: held-out, after a short training of two convolutions on 48 px."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU()
    )
    task = make(Backbone("two", 3, 48, body))
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)

    def ask(count: int, seed: int) -> tuple[Tensor, Metrics]:
        images = through_a_lens(count, 48, generator)
        return task.loss(Batch((images,), torch.arange(count), None, seed=seed), "main")

    for step in range(60):
        loss, _ = ask(32, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        return float(ask(128, 0)[1]["accuracy"])
