"""The inputs of a pretraining: images, method and initial network, gathered and checked before the first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling, measure
from ssl_app.data.loading import ImageRows
from ssl_app.data.opened import Opened, open_data
from ssl_app.data.reduction import CROP, PAD, STRETCH
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import one_sided
from ssl_app.data.transforms import center
from ssl_app.errors import Change, DataError, Notice, Set, SettingsError, Unset
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Pretext, TrainingSet
from ssl_app.pretraining.knn_monitor import KnnMonitor
from ssl_app.pretraining.schedule import Schedule
from ssl_app.pretraining.selection import open_excluded, with_limit, with_validation, without_test
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.initialization import Initialization

logger = logging.getLogger(__name__)

SAMPLE = 512  # images that a method's applicability is judged by
FEW = 6  # images, fewer than which tell nothing of features or of a score


@dataclass(frozen=True)
class PretrainSpec:
    """All that decides a pretraining, before anything is opened."""

    name: str  # of the method, for messages
    method: type[Pretext[object]]
    config: object  # the method's Config
    initialization: Initialization
    data: DataSpec
    pixels: PixelSpec
    schedule: Schedule = field(default_factory=Schedule)
    budget: float | None = None  # seconds of training, in place of a number of epochs
    limit: int | None = None  # images to train on, of all that there are
    exclude: DataSpec | None = None  # images and groups that must not be seen
    probe: DataSpec | None = None  # labeled images for the kNN monitor
    probe_every: int | None = None  # epochs
    augment: str | None = None  # name of a preset; None: the method's own augmentation
    mirror: bool | None = None  # None: as the data say
    vertical_flip: bool = False
    workers: int | None = None  # loader processes
    seed: int = 0


@dataclass(frozen=True)
class Inputs:
    """Images that suit the method, which of them are trained on, and the network as it begins."""

    spec: PretrainSpec
    dataset: Dataset
    train: NDArray[np.int64]  # indices of the images to train on
    validation: NDArray[np.int64]  # of those that the score is taken on
    scaling: PixelScaling
    backbone: Backbone
    monitor: KnnMonitor | None
    notes: Sequence[Notice]
    lacking: Notice | None = None  # what a finetune on this split of these labels would refuse

    @classmethod
    def gather(cls, spec: PretrainSpec, group: SingleProcess) -> "Inputs":
        """Open the data and the weights. Raises DataError or SettingsError where the method cannot use them."""
        opened = _open(spec, group)
        dataset, size, method = opened.dataset, spec.pixels.size, spec.method
        lacking = _lacking(opened, spec)
        channels = int(dataset.images.shape[-1])
        excluded = None if spec.exclude is None else open_excluded(spec.exclude, spec.pixels, opened)
        seen = without_test(opened, excluded)
        train, validation = (
            (seen, seen[:0]) if method.per_image_targets else with_validation(dataset, seen, spec.seed)
        )
        train = with_limit(dataset, train, spec.limit, spec.seed)  # after validation, which is that of any limit
        scaling = _scaling(spec, dataset, np.union1d(train, validation))
        sample = np.random.default_rng([spec.seed, 5]).permutation(train)[:SAMPLE]
        notes = method.check(center(scaling.scale(dataset.images[np.sort(sample)]), size), spec.config)
        if method.needs.channels not in (None, channels):
            raise DataError(
                f"{spec.name} needs images of {method.needs.channels} channels, {dataset.name} has {channels}",
                fix=Change("method"),
            )
        backbone = spec.initialization.build(channels, size, spec.seed)
        scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
        packed = replace(spec.pixels, channels=channels, pack_side=int(dataset.images.shape[1]))
        monitor = None if spec.probe is None else KnnMonitor.open(spec.probe, packed, scaling)
        return cls(spec, dataset, train, validation, scaling, backbone, monitor, notes, lacking)

    @property
    def monitored(self) -> NDArray[np.int64]:
        """Images that are not trained on; where those are few, the ones that are."""
        return self.validation if len(self.validation) >= FEW else self.train

    def rows(self, indices: NDArray[np.int64]) -> ImageRows:
        """Some of the images, for a loader."""
        mirrors = self.dataset.mirrors if self.spec.mirror is None else self.spec.mirror
        flip = self.spec.vertical_flip
        return ImageRows(self.dataset.images, indices, self.scaling, self.spec.pixels.size, None, mirrors, flip)

    def training_set(self, epochs: int) -> TrainingSet:
        """What the method may know of the images."""
        known = self.dataset.labeled[self.train]
        labels = torch.from_numpy(np.where(known, self.dataset.labels[self.train], -1)) if known.any() else None
        return TrainingSet(len(self.train), epochs, [self.dataset.keys[index] for index in self.train], labels)


def _open(spec: PretrainSpec, group: SingleProcess) -> Opened:
    """The images, packed by process 0 while the others wait. Raises SettingsError, DataError."""
    needs = spec.method.needs
    if needs.keeps_colors and spec.augment == "strong":
        raise SettingsError(
            f"{spec.name} learns colors, and the augmentation strong changes them", fix=Set("augment", "standard")
        )
    if needs.keeps_orientation and spec.vertical_flip:
        raise SettingsError(
            f"{spec.name} learns where up is, which a vertical flip changes", fix=Unset("vertical_flip")
        )
    if needs.keeps_orientation and spec.pixels.fit == PAD:
        raise SettingsError(
            f"{spec.name} learns where up is, which the bars beside images that are not square give away",
            fix=(Set("fit", CROP), Set("fit", STRETCH)),
        )
    if spec.pixels.size < needs.smallest_image:
        raise SettingsError(
            f"{spec.name} needs images of at least {needs.smallest_image} px, the image size is {spec.pixels.size}",
            fix=Set("image_size", needs.smallest_image),
        )
    return group.leader_first(lambda: open_data(spec.data, spec.pixels))


def _lacking(opened: Opened, spec: PretrainSpec) -> Notice | None:
    """What a finetune with these labels and this split would refuse after the pretraining, which is said now."""
    if len(opened.dataset.classes) < 2:
        return None
    notice = one_sided(opened.dataset, opened.parts, spec.data.columns.unlabeled)
    if notice is not None:
        logger.warning(notice.prefixed("warning: "))
    return notice


def _scaling(spec: PretrainSpec, dataset: Dataset, seen: NDArray[np.int64]) -> PixelScaling:
    """The scaling of what is started from, else measured: on the same images for every method."""
    scaling = spec.initialization.scaling or measure(
        dataset.images,
        np.sort(seen),
        spec.pixels.intensity,
        spec.seed,
        spec.pixels.nodata,
        dataset.value_units,
        spec.pixels.fit,
    )
    if spec.method.needs.value_range == "symmetric":
        half = (0.5,) * int(dataset.images.shape[-1])
        scaling = replace(scaling, mean=half, std=half)
    return scaling
