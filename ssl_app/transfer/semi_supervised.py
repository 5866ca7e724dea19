"""Training on labeled and unlabeled images at once: batches that hold both, and weights averaged over the steps."""

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.loading import ImageRows, Loader
from ssl_app.data.transforms import Mixed
from ssl_app.pretext.parts.contrastive import ViewStrength, contrastive_views
from ssl_app.training.classifier import Classifier
from ssl_app.training.task import Metrics, Needs
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.draw_task import Averaged

# unlabeled images of a step for each labeled one: with seven, as in FixMatch, a step costs twelve times a labeled one
UNLABELED = 1.25
COST = 2.9  # time of a step, in steps on labeled images alone; measured by benchmarks/strategies.py
STRONG = ViewStrength(least_area=0.2, jitter=0.6, gamma=0.5, blur=0.3, noise=0.03)


class SemiSupervised(Averaged):
    """Cross-entropy of the labeled images in weak views, and a loss of the unlabeled ones in strong views.

    The rows of a loader are those of `both`.
    """

    needs = Needs(views=2)
    weight = 1.0  # of the loss of the unlabeled images

    def __init__(self, classifier: Classifier, draw: Draw) -> None:
        super().__init__(classifier)
        self.shares = shares_of_both(draw)

    def loader(self, draw: Draw, stage: int) -> Loader:
        """Labeled and unlabeled images, each in a weak view, as strategies train on, and a strong one."""
        rows = both(draw)
        weak = transforms.preset(draw.config.augment, rows.frame)
        views = Mixed(weak, contrastive_views(rows.frame, STRONG))
        return draw.loader(rows, 2, views, stage, batch_of_both(draw))

    def sampling_weights(self) -> Tensor:
        """So that a batch holds UNLABELED unlabeled images for each labeled one, and classes equally often. (N,)."""
        return self.shares

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Both losses, each a mean over its images; the accuracy on the labeled ones."""
        assert batch.labels is not None
        given = batch.labels >= 0  # (B,)
        weak, strong = batch.views
        labels, count = batch.labels[given], int(given.sum())
        logits = self.classifier(torch.cat([weak[given], strong[~given]])).float()  # (B, K), labeled first
        labeled = functional.cross_entropy(logits[:count], labels, reduction="sum") / max(1, count)
        accuracy = (logits[:count].detach().argmax(1) == labels).float().sum() / max(1, count)
        unlabeled = labeled.new_zeros(())
        metrics: Metrics = {}
        if count < len(given):
            unlabeled, metrics = self.unlabeled_loss(logits[count:], weak[~given], batch.index[~given])
        return labeled + self.weight * unlabeled, {"accuracy": accuracy, **metrics}

    @abstractmethod
    def unlabeled_loss(self, logits: Tensor, weak: Tensor, index: Tensor) -> tuple[Tensor, Metrics]:
        """A loss, (), and metrics.

        logits (U, K) are of the strong views; weak views (U, C, S, S), index (U,) the place among `both`.
        """

    def teach(self, weak: Tensor) -> Tensor:
        """Probabilities by the averaged weights, without gradients. (U, C, S, S) -> (U, K)."""
        self.teacher.eval()
        with torch.no_grad():
            return torch.softmax(self.teacher(weak).float(), 1)


def targets_of_both(draw: Draw, of_unlabeled: NDArray[np.float64]) -> NDArray[np.float64]:
    """The labels of the draw, and class probabilities of the other images, (U, K). -> (N, K) as in `both`."""
    assert draw.labeled.labels is not None
    return np.concatenate([np.eye(draw.classes)[draw.labeled.labels], of_unlabeled.reshape(-1, draw.classes)])


def both(draw: Draw) -> ImageRows:
    """Labeled images of a draw, and then the unlabeled ones with a label of -1."""
    labeled, unlabeled = draw.labeled, draw.unlabeled
    assert labeled.labels is not None
    indices = np.concatenate([labeled.indices, unlabeled.indices])
    labels = np.concatenate([labeled.labels, np.full(len(unlabeled.indices), -1)])
    return ImageRows(labeled.images, indices, labeled.scaling, labeled.image_size, labels, labeled.mirrors)


def shares_of_both(draw: Draw) -> Tensor:
    """How often each image of `both` is drawn: UNLABELED to a labeled one, every class as often. (N,)."""
    labels = draw.labeled.labels
    assert labels is not None
    unlabeled = len(draw.unlabeled.indices)
    shares = 1.0 / np.bincount(labels)[labels] / len(np.unique(labels))  # (n,)
    ratio = UNLABELED if unlabeled else 0.0
    return torch.from_numpy(np.concatenate([shares, np.full(unlabeled, ratio / max(1, unlabeled))]))


def batch_of_both(draw: Draw) -> int:
    """Images of a batch that holds as many labeled ones as one without unlabeled ones."""
    return round(draw.config.batch_size * (1 + UNLABELED * (len(draw.unlabeled.indices) > 0)))
