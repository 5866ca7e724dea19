"""Batch norm: its statistics taken anew over all images, and ways of going by others for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssl_app.data.batch import Batch
from ssl_app.tasks import OverAll

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
RAGGED = 32  # images of a last batch too few to be normalised by their own statistics


def recalibrate(network: nn.Module, over_all: OverAll) -> None:
    """Set every batch norm to the mean and variance of what it is given over all images, in place.

    Each batch of over_all is normalised by its own statistics on the way, as when training. So up to 512 images of
    one process are exact at any depth: eval mode then computes what training mode does of all of them at once. Of
    more, the first layer is exact and those above it differ by what statistics of 512 images do.
    """
    norms = batch_norms(network)
    if not norms:
        return
    sums: dict[nn.Module, Tensor] = {}
    seen = 0

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].float().transpose(0, 1).flatten(1)  # (D, B * h * w)
        variance, mean = (values.double() for values in torch.var_mean(features, 1, correction=0))
        moments = torch.stack([torch.ones_like(mean), mean, variance + mean.square()])  # (3, D)
        sums[norm] = sums.get(norm, torch.zeros_like(moments)) + len(inputs[0]) * moments

    def ask(batch: Batch) -> Tensor:
        nonlocal seen
        enough = len(batch.images) > 1 if seen == 0 else len(batch.images) >= RAGGED
        for norm in norms:
            norm.train(enough)  # a few left over are normalised by what the others had
        network(batch.images)
        seen += len(batch.images)
        return torch.zeros(len(batch.images), device=batch.images.device)

    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average, for the few left over
        mine = len(over_all.share(ask))
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()
    for norm in norms:
        if norm in sums:  # one that is never called keeps its zeros and ones
            # a process without images was given one to look at, which does not count
            count, mean, square = over_all.total(sums[norm] if mine else torch.zeros_like(sums[norm]))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean / count)
            norm.running_var.copy_((square / count - (mean / count).square()).clamp_min(0))


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
    modes = [(module, module.training) for module in network.modules()]
    norms = batch_norms(network)
    try:
        network.eval()
        for norm in norms:
            norm.train()
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, training in modes:
            module.training = training


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Those that keep statistics."""
    found = (module for module in network.modules() if isinstance(module, BatchNorm))
    return [norm for norm in found if norm.track_running_stats]
