"""Batches from packed images: whole batches are built in workers, and their order is a function of (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ssl_app.data.batch import Batch
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.seeding import mix, mix_each
from ssl_app.data.transforms import (
    Augmentation,
    Frame,
    LocatedAugmentation,
    Pipeline,
    center,
    located_views_of_batch,
    views_of_batch,
)
from ssl_app.errors import Change, SettingsError
from ssl_app.processes import follow_parent, followers_start

ORDERED_BATCH, FEWEST, NUMBERS = (
    512,
    32,
    2**23,
)  # images at a time when nothing is learned, down to 32 MB of large ones


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Some of a set's packed images, and how their pixels become a network's input."""

    images: NDArray[Any]  # (M, P, P, C) memory-mapped
    indices: NDArray[np.int64]  # (N,) which of them
    scaling: PixelScaling
    image_size: int  # side that a network sees
    labels: NDArray[np.int64] | None = None  # (N,)
    mirrors: bool = True  # whether a mirror image is as good
    vertical_flip: bool = False  # whether it is as good flipped vertically

    def at(self, indices: NDArray[np.int64]) -> "ImageRows":
        """Other images of the same set, without labels."""
        return replace(self, indices=indices, labels=None)

    @property
    def frame(self) -> Frame:
        """What an augmentation needs to know of these images."""
        side, channels = int(self.images.shape[1]), int(self.images.shape[-1])
        return Frame(self.image_size, side, channels, self.mirrors, self.vertical_flip)


def every_row(images: NDArray[Any], scaling: PixelScaling, image_size: int, name: str, units: str = "") -> ImageRows:
    """All of some packed images (N, P, P, C), as a trained network reads them.

    Raises DataError where they are of another depth than those that it was trained on; `name` and `units` are theirs.
    """
    scaling.refuse_other_depth(images.dtype, name, units)
    return ImageRows(images, np.arange(len(images)), scaling, image_size)


@dataclass(frozen=True)
class Batching:
    """How images become batches, and which of them this process builds.

    `batch_size` counts images of one optimizer step over all processes; a step is cut into `micro` pieces, of which
    this process builds those numbered rank, rank + world, ...
    """

    batch_size: int
    seed: int
    views: int = 1  # augmentations of each image in a training batch
    micro: int = 1
    rank: int = 0
    world: int = 1
    workers: int = 0  # loader processes
    boxes: bool = False  # whether the first view of a training batch says which box of the image it shows

    def __post_init__(self) -> None:
        assert self.batch_size % self.micro == 0, f"{self.micro} micro-batches do not divide {self.batch_size}"


@dataclass(frozen=True)
class Request:
    """One micro-batch to build."""

    index: NDArray[np.int64]  # (B,)
    epoch: int
    seed: int  # of the task's own randomness
    first: int | None  # its place in the epoch; None asks for center crops, not augmented
    views: int = 1
    boxes: bool = False


class Builder(TorchDataset[Batch]):
    """Builds the micro-batch of a request; runs in a worker."""

    def __init__(self, rows: ImageRows, augmentation: Augmentation, seed: int) -> None:
        self.rows, self.augmentation, self.seed = rows, augmentation, seed
        self.mean = np.asarray(rows.scaling.mean, np.float32)
        self.std = np.asarray(rows.scaling.std, np.float32)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows
        scaled = rows.scaling.scale(rows.images[rows.indices[request.index]])  # (B, P, P, C) in [0, 1]
        labels = None if rows.labels is None else torch.from_numpy(rows.labels[request.index])
        index, boxes = torch.from_numpy(request.index), None
        if request.first is None:
            return Batch((self._input(center(scaled, rows.image_size)),), index, labels, request.seed)
        # by place, not by image: drawn with replacement, an image comes often in one epoch, each time anew
        places = np.arange(request.first, request.first + len(scaled), dtype=np.uint64)
        seeds, views = mix_each(self.seed, request.epoch, places), []
        for view in range(request.views):
            if request.boxes and view == 0:
                images, found = located_views_of_batch(
                    cast(LocatedAugmentation, self.augmentation), scaled, seeds, view
                )
                boxes = torch.from_numpy(found.astype(np.float32))
            else:
                images = views_of_batch(self.augmentation, scaled, seeds, view)
            views.append(self._input(images))
        return Batch(tuple(views), index, labels, request.seed, boxes)

    def _input(self, images: NDArray[np.float32]) -> Tensor:
        """Normalized, NCHW seen and NHWC stored; row by row, since numpy is slow along an axis of channels."""
        count, height, width = images.shape[:3]
        normalized = images.reshape(count, height, -1) - np.tile(self.mean, width)
        normalized /= np.tile(self.std, width)
        return torch.from_numpy(normalized.reshape(images.shape)).permute(0, 3, 1, 2)


class Loader:
    """The images of one part of a set, as micro-batches."""

    def __init__(self, rows: ImageRows, augmentation: Augmentation, batching: Batching) -> None:
        self.builder = Builder(rows, augmentation, batching.seed)
        self.rows, self.batching = rows, batching
        self.count = len(rows.indices)
        if batching.boxes:
            refuse_unlocated(augmentation)
        self.batch_size, self.seed = batching.batch_size, batching.seed

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
        one = self.batching
        mine = range(one.rank, one.micro, one.world)
        size = self.batch_size // one.micro
        requests = [
            Request(
                row[piece * size :][:size],
                epoch,
                mix(self.seed, epoch, step, piece),
                self.batch_size * step + size * piece,
                one.views,
                one.boxes,
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
        rank, world = self.batching.rank, self.batching.world
        return (rank + 1) * self.count // world - rank * self.count // world

    @property
    def first(self) -> int:
        """The first image of this process's share."""
        return self.batching.rank * self.count // self.batching.world

    @property
    def together(self) -> int:
        """Images of a batch of `ordered`: each worker holds some, and nothing is gained by large ones."""
        numbers = self.rows.image_size**2 * self.rows.images.shape[-1]
        return int(max(FEWEST, min(ORDERED_BATCH, NUMBERS // numbers)))

    def ordered(self, as_in: int | None = None, views: int | None = None) -> Iterator[Batch]:
        """Every image of this process's share once, the share being a contiguous piece.

        Center crops in order, one view each; with `views`, so many augmented views of each, the same at every call,
        in batches as large as in training. As in an epoch, `as_in`, augmented and shuffled: sets are often
        sorted by class, and a network in training mode would see one class at a time.
        """
        first = self.first
        index = np.arange(first, first + max(min(1, self.count), self.share))
        if as_in is not None:
            index = np.random.default_rng([self.seed, as_in, 4]).permutation(index)
        together = self.together if views is None else self.batch_size // self.batching.micro
        pieces = [index[i : i + together] for i in range(0, len(index), together)]
        augmented = as_in is not None or views is not None
        requests = [
            Request(
                piece,
                as_in or 0,
                mix(self.seed, number),
                first + number * together if augmented else None,
                (views or self.batching.views) if augmented else 1,
            )
            for number, piece in enumerate(pieces)
        ]
        yield from self._build(requests)

    def _build(self, requests: list[Request]) -> Iterator[Batch]:
        loader: DataLoader[Batch] = DataLoader(
            self.builder,
            batch_size=None,
            sampler=requests,
            num_workers=min(self.batching.workers, len(requests)),
            collate_fn=_same,  # type: ignore[arg-type]  # with batch_size None it is given one item
            worker_init_fn=_enter_worker,
            prefetch_factor=4 if self.batching.workers and requests else None,
            generator=torch.Generator(),  # else the loader draws its base seed from the global one
        )
        with followers_start():
            return iter(loader)


def refuse_unlocated(augmentation: Augmentation) -> None:
    """Raise SettingsError where views are no boxes of the image, or do not say which."""
    if isinstance(augmentation, Pipeline):
        augmentation.refuse_unlocated()
    elif not hasattr(augmentation, "located"):
        raise SettingsError(
            f"targets are pooled from the box of a crop, and {type(augmentation).__name__} does not say it",
            expected="an augmentation with `located`",
            fix=Change("augment"),
        )


def _same(batch: Batch) -> Batch:
    return batch


def _enter_worker(_: int) -> None:
    torch.set_num_threads(1)
    follow_parent()
