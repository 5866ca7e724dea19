"""Training on labeled and unlabeled images at once: batches that hold both, and weights averaged over the steps."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.loading import ImageRows, Loader
from ssl_app.data.transforms import Mixed
from ssl_app.pretext.parts.contrastive import ViewStrength, contrastive_views
from ssl_app.training.classifier import Classifier
from ssl_app.training.ema import EMA
from ssl_app.training.task import DatasetMap, Metrics, Needs, Task
from ssl_app.transfer.draw import Draw

# unlabeled images of a step for each labeled one: with seven, as in FixMatch, a step costs twelve times a labeled one
UNLABELED = 1.25
COST = 2.9  # time of a step, in steps on labeled images alone; measured by benchmarks/strategies.py
DECAY = 0.99  # of the averaged weights, which begin as the mean of all: trainings here are 300 to 1000 steps
STRONG = ViewStrength(least_area=0.2, jitter=0.6, gamma=0.5, blur=0.3, noise=0.03)


class SemiSupervised(Task):
    """Cross-entropy of the labeled images in weak views, and a loss of the unlabeled ones in strong views.

    The rows of a loader are those of `both`. Averaged weights (Tarvainen & Valpola, 2017, arXiv:1703.01780) are the
    result: `averaged`.
    """

    needs = Needs(views=2)
    weight = 1.0  # of the loss of the unlabeled images

    steps: Tensor
    behind: Tensor

    def __init__(self, classifier: Classifier, draw: Draw) -> None:
        super().__init__()
        labels = draw.labeled.labels
        assert labels is not None
        unlabeled = len(draw.unlabeled.indices)
        self.classifier = classifier
        self.teacher = EMA(classifier)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # taken
        self.register_buffer("behind", torch.zeros((), dtype=torch.bool))  # whether the average lacks the last step
        shares = 1.0 / np.bincount(labels)[labels] / len(np.unique(labels))  # (n,) every class as often
        ratio = UNLABELED if unlabeled else 0.0
        self.shares = torch.from_numpy(np.concatenate([shares, np.full(unlabeled, ratio / max(1, unlabeled))]))

    @property
    def averaged(self) -> Classifier:
        """The classifier with averaged weights."""
        found = self.teacher.module
        assert isinstance(found, Classifier)
        return found

    def parts(self) -> Mapping[str, nn.Module]:
        """Those of the classifier."""
        return self.classifier.parts()

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """All but the averaged ones."""
        return self.classifier.parameters()

    def sampling_weights(self) -> Tensor:
        """So that a batch holds UNLABELED unlabeled images for each labeled one, and classes equally often. (N,)."""
        return self.shares

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Average in the weights that the step before has left."""
        self._catch_up()
        self.behind.fill_(True)
        return {}

    def finish(self, map_dataset: DatasetMap) -> None:
        """Average in the last weights."""
        self._catch_up()

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

    def _catch_up(self) -> None:
        if self.behind:
            self.steps += 1
            self.teacher.update(self.classifier, min(1 - 1 / (float(self.steps) + 1), DECAY))
            self.behind.fill_(False)


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


def loader_of_both(draw: Draw, stage: int) -> Loader:
    """Batches of labeled and unlabeled images, each in a weak view, as strategies train on, and a strong one."""
    rows = both(draw)
    weak = transforms.preset(draw.config.augment, rows.frame)
    size = round(draw.config.batch_size * (1 + UNLABELED * (len(draw.unlabeled.indices) > 0)))
    return draw.loader(rows, 2, Mixed(weak, contrastive_views(rows.frame, STRONG)), stage, size)
