"""kNN monitor: nearest neighbors, and clusters against classes, in training; it trains and chooses nothing."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.clustering.agreement import ami, nmi
from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import ImageRows
from ssl_app.data.opened import open_images
from ssl_app.data.sources.base import UNUSED, Source, open_source
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import split
from ssl_app.errors import DataError, Fix, Set
from ssl_app.evaluation import knn, metrics
from ssl_app.pretext.base import Pretext, SelfLabeling
from ssl_app.pretraining import features
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.hardware import Hardware

logger = logging.getLogger(__name__)

MOST = 5000  # images of bank and queries each


@dataclass(frozen=True)
class KnnMonitor:
    """A labeled set in two: the kNN bank, and the queries."""

    dataset: Dataset
    bank: NDArray[np.int64]
    queries: NDArray[np.int64]

    @classmethod
    def open(cls, spec: DataSpec, pixels: PixelSpec, scaling: PixelScaling) -> "KnnMonitor":
        """The monitor of a labeled set. Raises DataError where it has too few labels, or is of another bit depth."""
        dataset = open_images(spec, pixels, _source(spec))
        if not dataset.labeled.any():
            raise DataError(f"the probe data {spec.data} have no labels", fix=(Fix("take labeled images"), LEFT_OUT))
        if not scaling.fits(dataset.images.dtype, dataset.value_units):
            raise DataError(
                f"the probe data {dataset.name} hold {dataset.images.dtype} images, the data {scaling.dtype}",
                expected="the same depth",
                fix=(Set("intensity", "dtype"), LEFT_OUT),
            )
        parts = split(dataset)
        order = np.random.default_rng(0).permutation(len(dataset.keys))
        bank, queries = (
            np.sort(order[np.isin(order, part[dataset.labeled[part]])][:MOST]) for part in (parts.train, parts.test)
        )
        if not len(bank) or not len(queries):
            raise DataError(
                f"the probe data {spec.data} have too few labels: a bank of {len(bank)}, {len(queries)} queries",
                fix=LEFT_OUT,
            )
        how = f"{len(queries)} labeled queries, a bank of {len(bank)}, {parts.how}"
        logger.info(f"kNN monitor on {dataset.name}, it chooses nothing: {how}")
        return cls(dataset, bank, queries)

    def scores(
        self, task: Pretext[object], scaling: PixelScaling, hardware: Hardware, group: SingleProcess | None = None
    ) -> dict[str, float]:
        """`knn`, balanced accuracy of nearest neighbors; of a method with clusters `nmi` and `ami` of the queries.

        Each process of a group computes its share of the features. Clusters are those of the first head. NMI rises
        with their number by itself, AMI does not.
        """
        size = task.backbone.image_size
        rows = [ImageRows(self.dataset.images, indices, scaling, size) for indices in (self.bank, self.queries)]
        found = {"knn": self._neighbors(*(features.pooled(task, part, hardware, group) for part in rows))}
        if isinstance(task, SelfLabeling):
            first = lambda images: task.log_clusters(images)[:, 0].argmax(1)  # noqa: E731
            clusters = features.mapped(task, first, rows[1], hardware, group)
            labels = self.dataset.labels[self.queries]
            found |= {"nmi": nmi(clusters.numpy(), labels), "ami": ami(clusters.numpy(), labels)}
        return found

    def _neighbors(self, bank: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
        classes = self.dataset.classes
        k = min(knn.NEIGHBORS, max(1, len(bank) // (2 * len(classes))))  # half a class at most
        shares = knn.votes(bank, self.dataset.labels[self.bank], queries, len(classes), k=(k,))[k]
        score = metrics.classification(shares, self.dataset.labels[self.queries], classes)["balanced_accuracy"]
        assert isinstance(score, float)
        return score


LEFT_OUT = Fix("leave the probe data out")


def _source(spec: DataSpec) -> Source:
    """Labeled images, by the columns of the data; where they have no such columns, by their own."""
    requested = replace(spec.columns, label=None if spec.columns.label == UNUSED else spec.columns.label)
    free: dict[str, Any] = {n: None for n in ("label", "group", "split") if getattr(requested, n) != UNUSED}
    own = replace(requested, **free)
    try:
        return open_source(spec.data, requested, spec.max_image_mb)
    except DataError as error:
        if requested == own:
            raise
        found = open_source(spec.data, own, spec.max_image_mb)
        logger.info(f"note: the probe data are read by their own columns ({error.notice.found})")
        return found
