"""Batches from packed images: whole batches are built in workers, and their order is a function of (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ssl_app.data.batch import Batch
from ssl_app.data.intensity import Pixels
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Augment, center

ORDERED_BATCH, FEWEST, NUMBERS = (
    512,
    32,
    2**23,
)  # images at a time when nothing is learnt, down to 32 MB of large ones


@dataclass(frozen=True)
class Request:
    """One micro-batch to build. `first` is its place in the epoch; None asks for the centers, unaugmented."""

    index: NDArray[np.int64]  # (B,)
    epoch: int
    seed: int  # of the task's own randomness
    first: int | None


class Builder(TorchDataset[Batch]):
    """Builds the micro-batch of a request; runs in a worker."""

    def __init__(
        self,
        images: NDArray[Any],  # (M, P, P, C) memory-mapped
        rows: NDArray[np.int64],  # (N,) which of them
        pixels: Pixels,
        augment: Augment,
        labels: NDArray[np.int64] | None,  # (N,)
        views: int,
        seed: int,
    ) -> None:
        self.images, self.rows, self.labels = images, rows, labels
        self.pixels, self.augment, self.views, self.seed = pixels, augment, views, seed
        self.mean = np.asarray(pixels.mean, np.float32)
        self.std = np.asarray(pixels.std, np.float32)

    def __getitem__(self, request: Request) -> Batch:
        scaled = self.pixels.scale(self.images[self.rows[request.index]])  # (B, P, P, C) in [0, 1]
        views = tuple(self._view(scaled, request, view) for view in range(1 if request.first is None else self.views))
        labels = None if self.labels is None else torch.from_numpy(self.labels[request.index])
        return Batch(views, torch.from_numpy(request.index), labels, request.seed)

    def _view(self, scaled: NDArray[np.float32], request: Request, view: int) -> Tensor:
        if request.first is not None and self.augment.pipeline is not None:
            # by place, not by image: drawn with replacement, an image comes often in one epoch, each time anew
            seeds = (mix(self.seed, request.epoch, request.first + place, view) for place in range(len(scaled)))
            images = np.stack([self.augment(image, seed) for image, seed in zip(scaled, seeds, strict=True)])
        else:
            images = center(scaled, self.augment.image_size)
        normalized = (images - self.mean) / self.std
        return torch.from_numpy(np.ascontiguousarray(normalized)).permute(0, 3, 1, 2)  # NCHW seen, NHWC stored


class Loader:
    """The images of one part of a set, as micro-batches.

    `batch_size` counts images of one optimizer step over all processes; a step is cut into
    `micro` pieces, of which this process builds those numbered rank, rank + world, ...
    """

    def __init__(
        self,
        images: NDArray[Any],
        rows: NDArray[np.int64],
        pixels: Pixels,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        labels: NDArray[np.int64] | None = None,
        views: int = 1,
        micro: int = 1,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size % micro:
            raise AssertionError(f"{micro} micro-batches do not divide a batch of {batch_size}")
        self.builder = Builder(images, rows, pixels, augment, labels, views, seed)
        self.count = len(rows)
        self.batch_size, self.micro, self.rank, self.world = batch_size, micro, rank, world
        self.seed, self.workers = seed, workers

    @property
    def steps(self) -> int:
        """Optimizer steps of one pass; a ragged rest is left to another epoch's order."""
        return max(1, self.count // self.batch_size)

    def order(self, epoch: int, steps: int, weights: Tensor | None) -> NDArray[np.int64]:
        """Which image stands where in an epoch. -> (steps, batch_size).

        Without weights each pass is a new permutation, as many passes as the epoch is long; with
        weights (N,) images are drawn with replacement in proportion to them.
        """
        wanted = steps * self.batch_size
        generator = np.random.default_rng([self.seed, epoch, 1])
        if weights is not None:
            share = weights.detach().double().cpu().numpy()
            drawn = generator.choice(self.count, wanted, p=share / share.sum())
            return drawn.reshape(steps, self.batch_size)
        passes = -(-wanted // self.count)
        drawn = np.concatenate([generator.permutation(self.count) for _ in range(passes)])[:wanted]
        return drawn.reshape(steps, self.batch_size)

    def epoch(self, epoch: int, steps: int, start: int = 0, weights: Tensor | None = None) -> Iterator[list[Batch]]:
        """The micro-batches of each step from `start` on, for this process."""
        mine = range(self.rank, self.micro, self.world)
        size = self.batch_size // self.micro
        requests = [
            Request(
                row[piece * size :][:size],
                epoch,
                mix(self.seed, epoch, step, piece),
                self.batch_size * step + size * piece,
            )
            for step, row in enumerate(self.order(epoch, steps, weights))
            if step >= start
            for piece in mine
        ]
        batches = self._build(requests)
        for _ in range(start, steps):
            yield [next(batches) for _ in mine]

    @property
    def share(self) -> int:
        """How many images `ordered` has for this process; where none, it gives one that is to be left out."""
        return (self.rank + 1) * self.count // self.world - self.rank * self.count // self.world

    @property
    def together(self) -> int:
        """Images of a batch of `ordered`: each worker holds some, and nothing is gained by large ones."""
        numbers = self.builder.augment.image_size**2 * self.builder.images.shape[-1]
        return int(max(FEWEST, min(ORDERED_BATCH, NUMBERS // numbers)))

    def ordered(self, as_in: int | None = None) -> Iterator[Batch]:
        """Every image of this process's share once, the share being a contiguous piece.

        Unaugmented and in order; or in views such as those of an epoch, and shuffled: sets are often sorted by
        class, and a network in training mode would see one class at a time.
        """
        first = self.rank * self.count // self.world
        index = np.arange(first, first + max(min(1, self.count), self.share))
        if as_in is not None:
            index = np.random.default_rng([self.seed, as_in, 4]).permutation(index)
        together = self.together
        pieces = [index[i : i + together] for i in range(0, len(index), together)]
        place = [None if as_in is None else first + i * together for i in range(len(pieces))]
        requests = [Request(piece, as_in or 0, mix(self.seed, i), place[i]) for i, piece in enumerate(pieces)]
        yield from self._build(requests)

    def _build(self, requests: list[Request]) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            self.builder,
            batch_size=None,
            sampler=requests,
            num_workers=min(self.workers, len(requests)),
            collate_fn=_same,  # type: ignore[arg-type]  # with batch_size None it is given one item
            worker_init_fn=_quiet_worker,
            prefetch_factor=4 if self.workers and requests else None,
            generator=torch.Generator(),  # else the loader draws its base seed from the global one
        )
        return iter(loader)


def _same(batch: Batch) -> Batch:
    return batch


def _quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
