"""A pretraining watched by labeled images: neighbors on its features, every few epochs, for the eye only."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset, open_dataset
from ssl_app.data.intensity import Pixels
from ssl_app.data.sources.base import UNUSED, Columns, Source, open_source
from ssl_app.data.splits import split
from ssl_app.errors import DataError
from ssl_app.evaluation import knn, metrics
from ssl_app.pretext.base import Pretext
from ssl_app.pretraining import features
from ssl_app.settings import PretrainSettings
from ssl_app.training.hardware import Hardware

logger = logging.getLogger(__name__)

MOST = 5000  # images of either side


@dataclass(frozen=True)
class Probe:
    """A labeled set in two: those that vote, and those that are asked."""

    dataset: Dataset
    bank: NDArray[np.int64]
    asked: NDArray[np.int64]

    @classmethod
    def open(
        cls, settings: PretrainSettings, image_size: int, channels: int, pixels: Pixels, side: int
    ) -> "Probe | None":
        """What --probe-data names, or None. Raises DataError where it has no labels, or is of another depth."""
        if settings.probe_data is None:
            return None
        dataset = open_dataset(
            _source(settings, settings.probe_data),
            image_size=image_size,
            channels=channels,
            intensity=pixels.intensity,
            cache=settings.out / "cache",
            max_unreadable=settings.max_unreadable,
            progress=True,
            pack_side=side,
        )
        if not dataset.labeled.any():
            raise DataError(f"--probe-data {settings.probe_data} has no labels; take labeled images, or leave it out")
        if pixels.intensity == "range" and pixels.dtype not in ("", dataset.images.dtype.name):
            raise DataError(
                f"--probe-data {dataset.name} holds {dataset.images.dtype} images, --data {pixels.dtype}; expected "
                f"the same depth: type --intensity dtype, or leave it out"
            )
        parts = split(dataset)
        order = np.random.default_rng(0).permutation(len(dataset.keys))
        bank, asked = (
            np.sort(order[np.isin(order, rows[dataset.labeled[rows]])][:MOST]) for rows in (parts.train, parts.test)
        )
        if not len(bank) or not len(asked):
            raise DataError(
                f"--probe-data {settings.probe_data} has too few labels: {len(bank)} and {len(asked)} on either "
                f"side; leave it out"
            )
        how = f"neighbors of {len(asked)} labeled images among {len(bank)} others, {parts.how}"
        logger.info(f"watched by {dataset.name}, for the eye only: {how}")
        return cls(dataset, bank, asked)

    def score(self, task: Pretext, pixels: Pixels, hardware: Hardware) -> float:
        """Balanced accuracy of the nearest neighbors."""
        bank, asked = (
            features.pooled(task, rows, self.dataset.images, pixels, hardware) for rows in (self.bank, self.asked)
        )
        classes = self.dataset.classes
        k = min(knn.NEIGHBORS, max(1, len(bank) // (2 * len(classes))))  # half a class at most
        shares = knn.votes(bank, self.dataset.labels[self.bank], asked, len(classes), k=(k,))[k]
        found = metrics.classification(shares, self.dataset.labels[self.asked], classes)
        score = found["balanced_accuracy"]
        assert isinstance(score, float)
        return score


def _source(settings: PretrainSettings, data: str) -> Source:
    """Labeled images, by the columns of --data; where they have no such columns, by their own."""
    label = None if settings.label == UNUSED else settings.label  # what pretrains may have its labels unread
    asked = Columns(label, settings.group, settings.split)
    own = Columns(*(column if column == UNUSED else None for column in (label, settings.group, settings.split)))
    try:
        return open_source(data, asked)
    except DataError as error:
        if asked == own:
            raise
        found = open_source(data, own)
        logger.info(f"note: --probe-data by its own columns ({error})")
        return found
