"""Batch norm: its statistics taken anew over whole images, and ways of going by others for a while."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssl_app.data.batch import Batch
from ssl_app.training.task import DatasetMap

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
MOST, MOST_NUMBERS = 2048, 2**26  # images of a sample, and their pixels (256 MB)
TOGETHER = 512  # images that go through at once


def sample(images: int, map_dataset: DatasetMap) -> Tensor:
    """Every k-th of all images, 2048 of them at most. -> (n, C, S, S), the same in all processes."""
    kept: list[Tensor] = []

    def keep(batch: Batch) -> Tensor:
        most = max(2, min(MOST, MOST_NUMBERS // batch.images[0].numel()))
        kept.append(batch.images[batch.index % math.ceil(images / most) == 0])
        return batch.index[:, None]  # an answer that costs nothing: the images would be too many

    mine = len(map_dataset.local(keep))
    some = torch.cat(kept)
    return map_dataset.all_gather(
        some if mine else some[:0]
    )  # a process without images is shown one, which does not count


def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Set every batch norm to the mean and variance of what it is given over these images. (n, C, S, S), n over 1.

    512 or fewer go through at once, normalized by their own statistics as in training: exact at any depth. More go
    in pieces drawn at random, so that each holds every class however the data are sorted; statistics are averaged.
    """
    norms = batch_norms(network)
    if not norms:
        return
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(images.device)
    momenta = [norm.momentum for norm in norms]
    with _norms_train(network, norms), torch.no_grad():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average
            for piece in images[order].chunk(math.ceil(len(images) / TOGETHER)):
                network(piece)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@contextmanager
def as_in_use(network: nn.Module) -> Iterator[None]:
    """Within, batch norm goes by its running statistics: what is computed of an image depends on it alone."""
    norms = [norm for norm in batch_norms(network) if norm.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


@contextmanager
def of_the_batch(network: nn.Module) -> Iterator[None]:
    """Within, batch norm goes by the batch alone and keeps nothing of it; all else is in eval mode."""
    norms = batch_norms(network)
    with _norms_train(network, norms):
        try:
            for norm in norms:
                norm.track_running_stats = False
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True


@contextmanager
def _norms_train(network: nn.Module, norms: list[BatchNorm]) -> Iterator[None]:
    """Batch norms in training mode, all else in eval mode; then all as it was."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        for norm in norms:
            norm.train()
        yield
    finally:
        for module, training in modes:
            module.training = training


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Those that keep statistics."""
    found = (module for module in network.modules() if isinstance(module, BatchNorm))
    return [norm for norm in found if norm.track_running_stats]
