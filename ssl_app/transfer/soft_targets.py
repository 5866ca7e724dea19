"""Training on soft targets: smoothed labels, or labels of crops pooled from class maps, and mixtures of them."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.data.class_maps import ClassMaps, Index, MapForm
from ssl_app.data.loading import ImageRows, Loader
from ssl_app.training.classifier import Classifier
from ssl_app.training.dense_classifier import DenseClassifier, cells_of
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.label_pooling import PooledTargets
from ssl_app.training.mixing import cutmix
from ssl_app.training.task import Metrics
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.draw_task import Averaged, DrawTask
from ssl_app.transfer.semi_supervised import batch_of_both, both, shares_of_both

# time of a step on labeled and unlabeled images, in steps on labeled ones alone: estimated, by 2.25 times the images
COST = 2.4
KEPT = 5  # classes at each place of maps that a strategy makes itself


@dataclass(frozen=True)
class MixingConfig:
    """What strategies of soft targets have in common."""

    cutmix: float = option(
        0.0, "share of the batches that CutMix mixes, targets by the area that is seen", at_least=0, at_most=1
    )


class SoftTargets(DrawTask):
    """Cross-entropy with a distribution over the classes for each labeled image of a draw."""

    def __init__(self, classifier: Classifier, mixed: float = 0.0) -> None:
        """`mixed` is the share of batches that CutMix mixes."""
        super().__init__(classifier)
        self.mixed = mixed

    def loader(self, draw: Draw, stage: int) -> Loader:
        """The labeled images, in the crops that plain labels would be trained on."""
        return draw.loader(draw.labeled, stage=stage)

    def sampling_weights(self) -> Tensor:
        """The same weight for every class. (N,)."""
        return self.classifier.sampling_weights()

    @abstractmethod
    def targets(self, batch: Batch) -> Tensor:
        """Probabilities of each class, (B, K)."""

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy, and the share of images whose highest class is the target's."""
        return soft_loss(self.classifier, batch, self.targets(batch), self.mixed)


class SmoothedLabels(SoftTargets):
    """Labels that leave a share to all classes alike (Szegedy et al., 2016, arXiv:1512.00567, section 7)."""

    def __init__(self, classifier: Classifier, smoothing: float, mixed: float = 0.0) -> None:
        super().__init__(classifier, mixed)
        self.smoothing = smoothing

    def targets(self, batch: Batch) -> Tensor:
        """1 - smoothing at the label, and the rest for all. (B, K)."""
        assert batch.labels is not None
        classes = self.classifier.head.last.out_features
        return (1 - self.smoothing) * functional.one_hot(batch.labels, classes).float() + self.smoothing / classes


class PooledLabels(SoftTargets):
    """The labeled images' crops, with labels pooled from class maps."""

    def __init__(self, classifier: Classifier, pooled: PooledTargets, mixed: float = 0.0) -> None:
        """`pooled` are those of the labeled images."""
        super().__init__(classifier, mixed)
        self.pooled = pooled

    def loader(self, draw: Draw, stage: int) -> Loader:
        """The same crops, and their boxes."""
        return draw.loader(draw.labeled, stage=stage, boxes=True)

    def targets(self, batch: Batch) -> Tensor:
        """By the boxes. (B, K)."""
        assert batch.boxes is not None
        return self.pooled(batch.index, batch.boxes)


class PooledEverywhere(Averaged):
    """Crops of all training images, with labels pooled from class maps; the result is averaged weights."""

    def __init__(self, classifier: Classifier, draw: Draw, pooled: PooledTargets, mixed: float = 0.0) -> None:
        """`pooled` are those of the images of `both`."""
        super().__init__(classifier)
        self.pooled, self.mixed, self.shares = pooled, mixed, shares_of_both(draw)

    def loader(self, draw: Draw, stage: int) -> Loader:
        """Labeled and unlabeled images in the same kind of crops, and their boxes."""
        return draw.loader(both(draw), stage=stage, batch_size=batch_of_both(draw), boxes=True)

    def sampling_weights(self) -> Tensor:
        """As in `shares_of_both`. (N,)."""
        return self.shares

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy, and the share of images whose highest class is the target's."""
        assert batch.boxes is not None
        return soft_loss(self.classifier, batch, self.pooled(batch.index, batch.boxes), self.mixed)


def soft_loss(classifier: Classifier, batch: Batch, targets: Tensor, mixed: float) -> tuple[Tensor, Metrics]:
    """Cross-entropy with targets (B, K), a share of the batches mixed; how often the highest class agrees."""
    images = batch.images
    if mixed and float(torch.rand((), generator=batch.generator)) < mixed:
        images, targets = cutmix(images, targets, batch.generator)
    logits = classifier(images).float()
    agree = (logits.detach().argmax(1) == targets.argmax(1)).float().mean()
    return functional.cross_entropy(logits, targets), {"accuracy": agree}


def pooled_targets(draw: Draw, rows: ImageRows, teacher: Classifier) -> PooledTargets:
    """Targets of crops of some images: by the maps that the user gave, else by maps that the teacher makes now."""
    given = draw.maps
    if given is not None:
        return PooledTargets(given.maps, given.content[rows.indices])
    indices = np.unique(rows.indices)
    return PooledTargets(made(Ensemble([teacher], mirrored=rows.mirrors), draw, rows.at(indices)), rows.indices)


def made(teacher: Ensemble, draw: Draw, rows: ImageRows) -> ClassMaps:
    """Maps of some images, in memory; an image is found by its number in the set."""
    network = DenseClassifier(teacher)
    k, side = min(KEPT, draw.classes), int(rows.images.shape[1])
    teacher.to(draw.hardware.device)
    form = MapForm(tuple(map(str, range(draw.classes))), k, network.grid(side), {})
    pieces: Iterable[NDArray[np.uint16]] = cells_of(network, rows, k, draw.hardware)
    return ClassMaps(form, Index(rows.indices), np.concatenate(list(pieces)))
