"""How a labeling compares with the one before, and with known classes: DeepCluster's curves, for the log alone."""

import torch
from torch import Tensor

from ssl_app.clustering import agreement
from ssl_app.training.task import Metrics


def compared(labels: Tensor, before: Tensor | None, known: Tensor | None) -> Metrics:
    """NMI and AMI with the labeling before, and with the images whose class is known (-1: not). (N,), (N,), (N,).

    Section 4.1 of DeepCluster (Caron et al., 2018): the first curve says whether labels settle, the second whether
    they come nearer to classes that the training has never used. None leaves a curve out.
    """
    found: Metrics = {}
    if before is not None:
        found |= _scores("before", before, labels)
    if known is not None:
        there = known >= 0
        if bool(there.any()):
            found |= _scores("labels", known[there], labels.cpu()[there])
    return found


def _scores(name: str, one: Tensor, other: Tensor) -> Metrics:
    first, second = one.cpu().numpy(), other.cpu().numpy()
    return {
        f"nmi_{name}": torch.tensor(agreement.nmi(first, second)),
        f"ami_{name}": torch.tensor(agreement.ami(first, second)),
    }
