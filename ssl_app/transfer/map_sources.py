"""Where class maps come from: a classifier of ours, or the files that others have published."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.class_maps import ClassMaps, Index, MapForm
from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import measure
from ssl_app.data.loading import ImageRows
from ssl_app.data.opened import Opened
from ssl_app.data.published_maps import frame_of, path_of, read_published
from ssl_app.data.sources.base import Source
from ssl_app.errors import Change, DataError, Set
from ssl_app.evaluation.crop_labels import MOST_IMAGES
from ssl_app.evaluation.map_orientation import orientation
from ssl_app.training.dense_classifier import DenseClassifier, cells_of
from ssl_app.training.hardware import Hardware
from ssl_app.training.label_pooling import PooledTargets
from ssl_app.transfer.trained import TrainedClassifier

logger = logging.getLogger(__name__)


class MapSource(ABC):
    """The maps of a set, in the order of their index; copies of an image share one."""

    form: MapForm
    index: Index
    rows: NDArray[np.int64]  # (N,) an image of the set for each entry of the index

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    @property
    def dataset(self) -> Dataset:
        """The set."""
        return self.opened.dataset

    @abstractmethod
    def cells(self, start: int) -> Iterator[NDArray[np.uint16]]:
        """Maps from the entry `start` of the index on, batch by batch. (B, 2 k + 1, h, w)."""

    @abstractmethod
    def pictures(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of the set for people to look at. (n,) -> (n, P, P, C) in [0, 1]."""


class TeacherMaps(MapSource):
    """Maps by a classifier, of the whole packed images."""

    def __init__(self, trained: TrainedClassifier, opened: Opened, hardware: Hardware, k: int) -> None:
        """Raises SettingsError where the classifier gives no maps, DataError where labels are of other classes."""
        super().__init__(opened)
        self.trained, self.hardware = trained, hardware
        self.network = DenseClassifier(trained.predictor)
        side, classes = int(opened.dataset.images.shape[1]), tuple(trained.meta["classes"])
        dataset = opened.dataset
        trained.scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
        if opened.dataset.classes and set(opened.dataset.classes) != set(classes):
            raise DataError(
                f"the teacher knows the classes {_listed(classes)}, the labels of {opened.dataset.name} are "
                f"{_listed(opened.dataset.classes)}",
                expected="the same classes",
                fix=(Change("teacher"), Set("label", "COLUMN"), Set("labels", "FILE")),
            )
        about = {"teacher": trained.digest, "image_size": side}
        self.form = MapForm(classes, min(k, len(classes)), self.network.grid(side), about)
        content, self.rows = np.unique(opened.dataset.content, return_index=True)
        self.index = Index(content, labeled=trained.labeled)

    def cells(self, start: int) -> Iterator[NDArray[np.uint16]]:
        """By the teacher."""
        side, scaling = int(self.dataset.images.shape[1]), self.trained.scaling
        rows = ImageRows(self.dataset.images, self.rows[start:], scaling, side)
        return cells_of(self.network, rows, self.form.k, self.hardware)

    def pictures(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As the teacher's pixels are scaled."""
        return self.trained.scaling.scale(self.dataset.images[rows])


class PublishedMaps(MapSource):
    """Maps that others have made of the whole images, squashed; a file an image."""

    def __init__(self, opened: Opened, source: Source, folder: Path, transposed: bool) -> None:
        """`source` has the images in full, for their shapes. Images without a map are left out, with a count.

        Raises DataError where there is no map, or a file holds something else.
        """
        super().__init__(opened)
        dataset, self.transposed = opened.dataset, transposed
        if not dataset.classes:
            raise DataError(f"{dataset.name} has no labels, and the ids of published maps follow their order")
        files = {row: path for row, key in enumerate(dataset.keys) if (path := path_of(folder, key)) is not None}
        lost = [key for row, key in enumerate(dataset.keys) if row not in files]
        if lost:
            found = f"{len(lost)} of {len(dataset.keys)} images have no map in {folder}, first {lost[0]}"
            if not files:
                raise DataError(found, expected="files named as the images, ending in .pt")
            logger.info(f"note: {found}")
        having = np.array(sorted(files))
        content, first_copies = np.unique(dataset.content[having], return_index=True)
        self.files, self.rows = files, having[first_copies]
        place = {key: number for number, key in enumerate(source.keys)}
        frames = [frame_of(source.read(place[dataset.keys[row]]).shape) for row in self.rows]
        first = self._read(int(self.rows[0]))
        about = {"published": folder.name, "transposed": transposed}
        self.form = MapForm(dataset.classes, (len(first) - 1) // 2, (first.shape[1], first.shape[2]), about)
        self.index = Index(content, np.array(frames, np.float32))

    def cells(self, start: int) -> Iterator[NDArray[np.uint16]]:
        """From the files, one by one. Raises DataError where a map has another form than the first."""
        for row in self.rows[start:].tolist():
            found = self._read(row)
            if found.shape != (2 * self.form.k + 1, *self.form.grid):
                height, width = found.shape[1:]
                raise DataError(
                    f"{self.files[row]} has {(len(found) - 1) // 2} classes at {height}x{width} places",
                    expected=f"{self.form.k} at {self.form.grid[0]}x{self.form.grid[1]}, as the first map has",
                )
            yield found[None]

    def pictures(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """By the range of their values."""
        return measure(self.dataset.images, rows, "range", 0).scale(self.dataset.images[rows])

    def targets(self, some: NDArray[np.int64]) -> PooledTargets:
        """Targets of crops of some of the images, by their entries of the index."""
        frames, numbers = self.index.frames, np.arange(len(some))
        assert frames is not None
        cells = np.stack([self._read(row) for row in self.rows[some].tolist()])
        return PooledTargets(ClassMaps(self.form, Index(numbers, frames[some]), cells), numbers)

    def turned(self) -> "PublishedMaps":
        """The same maps, transposed the other way."""
        other = copy.copy(self)
        other.transposed = not self.transposed
        height, width = self.form.grid
        about = dict(self.form.about) | {"transposed": other.transposed}
        other.form = replace(self.form, grid=(width, height), about=about)
        return other

    def _read(self, row: int) -> NDArray[np.uint16]:
        """The map of an image, (2 k + 1, h, w)."""
        found = read_published(self.files[row], len(self.dataset.classes))
        return np.ascontiguousarray(found.swapaxes(1, 2)) if self.transposed else found


def as_the_images_lie(as_stored: PublishedMaps, seed: int) -> PublishedMaps:
    """The maps as stored, or transposed where that goes better with the images, up to MOST_IMAGES of them.

    The authors' loader hands boxes on with x and y exchanged, which is right for transposed maps only; nothing that
    they publish says which it is. Raises DataError where no image has a label.
    """
    dataset, rows = as_stored.dataset, as_stored.rows
    known = np.flatnonzero(dataset.labeled[rows])
    if not len(known):
        raise DataError("no label says whether the maps are transposed", fix=Set("transposed", "yes or no"))
    some = np.sort(np.random.default_rng(seed).permutation(known)[:MOST_IMAGES])
    turned = as_stored.turned()
    pictures, labels = as_stored.pictures(rows[some]), dataset.labels[rows[some]]
    found = orientation(as_stored.targets(some), turned.targets(some), pictures, labels)
    logger.info(found.sentence())
    return turned if found.is_transposed else as_stored


def open_published(opened: Opened, source: Source, folder: Path, transposed: bool | None, seed: int) -> PublishedMaps:
    """Published maps; None: transposed or not by the images. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", expected="published maps, a .pt for each image")
    if transposed is not None:
        return PublishedMaps(opened, source, folder, transposed)
    return as_the_images_lie(PublishedMaps(opened, source, folder, transposed=False), seed)


def _listed(classes: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
