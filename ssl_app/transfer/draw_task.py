"""Tasks on a draw: what a strategy gives to `train` where the classifier learns from more than plain labels."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ssl_app.data.loading import Loader
from ssl_app.training.classifier import Classifier
from ssl_app.training.ema import EMA
from ssl_app.training.task import DatasetMap, Metrics, Task
from ssl_app.transfer.draw import Draw

DECAY = 0.99  # of the averaged weights, which begin as the mean of all: trainings here are 300 to 1000 steps


class DrawTask(Task):
    """Trains a classifier on images of a draw that it chooses itself."""

    weights = "the last weights"  # those that are the result, in words

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    @abstractmethod
    def loader(self, draw: Draw, stage: int) -> Loader:
        """Batches of the images that the loss wants; `stage` seeds them."""

    @property
    def result(self) -> Classifier:
        """What has been trained: the classifier with these weights, or with others."""
        return self.classifier

    def parts(self) -> Mapping[str, nn.Module]:
        """Those of the classifier."""
        return self.classifier.parts()

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """Those of the classifier."""
        return self.classifier.parameters()


class Averaged(DrawTask):
    """A task whose result are weights averaged over its steps (Tarvainen & Valpola, 2017, arXiv:1703.01780)."""

    weights = "averaged weights"

    steps: Tensor
    behind: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.teacher = EMA(classifier)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # taken
        self.register_buffer("behind", torch.zeros((), dtype=torch.bool))  # whether the average lacks the last step

    @property
    def result(self) -> Classifier:
        """The classifier with averaged weights."""
        found = self.teacher.module
        assert isinstance(found, Classifier)
        return found

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Average in the weights that the step before has left."""
        self._catch_up()
        self.behind.fill_(True)
        return {}

    def finish(self, map_dataset: DatasetMap) -> None:
        """Average in the last weights."""
        self._catch_up()

    def _catch_up(self) -> None:
        if self.behind:
            self.steps += 1
            self.teacher.update(self.classifier, min(1 - 1 / (float(self.steps) + 1), DECAY))
            self.behind.fill_(False)
