"""What a pretraining works with, gathered and checked before its first step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import handover
from ssl_app.choosing import choose_rows
from ssl_app.data.dataset import Dataset
from ssl_app.data.pixels import Pixels, measure
from ssl_app.data.transforms import center
from ssl_app.errors import DataError, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.opening import Opened, default_image_size, open_data, source_of
from ssl_app.pretext.base import Pretext, Scope
from ssl_app.runs import Say
from ssl_app.settings import PretrainSettings
from ssl_app.training.distributed import OneProcess
from ssl_app.watching import Probe

SAMPLE = 512  # images that a method's applicability is judged by
FEW = 6  # images, fewer than which tell nothing of features or of a score


@dataclass(frozen=True)
class Material:
    """Images that suit the method, which rows of them are learnt from, and the network as it begins."""

    settings: PretrainSettings  # with the backbone and the augmentation that were left to us
    method: type[Pretext]
    dataset: Dataset
    learnt: NDArray[np.int64]  # rows that are trained on
    held_out: NDArray[np.int64]  # rows that the score is taken on
    pixels: Pixels
    image_size: int
    start: handover.Initialization
    backbone: Backbone
    probe: Probe | None  # labeled images to watch by
    notes: Sequence[str]

    @classmethod
    def gather(
        cls, settings: PretrainSettings, method: type[Pretext], own: object, group: OneProcess, say: Say
    ) -> "Material":
        """Open the data and the weights. Raises DataError or SettingsError where the method cannot use them."""
        network = method.default_backbone if settings.init in ("none", handover.SCRATCH) else None
        start = handover.load_initialization(settings.init, settings.out, settings.backbone or network)
        start.refuse_other_pixels(settings.channels, settings.intensity, settings.image_size)
        settings = replace(settings, backbone=start.backbone, augment=settings.augment or method.augment)
        opened, size = _open(settings, method, start, group, say)
        dataset = opened.dataset
        channels = int(dataset.images.shape[-1])
        learnt, held_out = choose_rows(settings, opened, not method.remembers, say)
        pixels = _pixels(settings, method, start, dataset, np.sort(np.concatenate([learnt, held_out])))
        sample = np.random.default_rng([settings.seed, 5]).permutation(learnt)[:SAMPLE]
        notes = method.check(center(pixels.scale(dataset.images[np.sort(sample)]), size), own)
        if method.needs.channels not in (None, channels):
            raise DataError(
                f"{settings.method} needs images of {method.needs.channels} channels, {dataset.name} has "
                f"{channels}; take another --method"
            )
        backbone, loaded = start.build(channels, size, settings.seed)
        say(f"backbone: {loaded}")
        pixels.refuse_other_depth(dataset.images.dtype, dataset.name)
        probe = Probe.open(settings, size, channels, pixels, int(dataset.images.shape[1]), say)
        return cls(settings, method, dataset, learnt, held_out, pixels, size, start, backbone, probe, notes)

    @property
    def watched(self) -> NDArray[np.int64]:
        """Rows that are not trained on; where those are few, the ones that are."""
        return self.held_out if len(self.held_out) >= FEW else self.learnt

    def scope(self, epochs: int) -> Scope:
        """What the method is told."""
        known = self.dataset.labeled[self.learnt]
        labels = torch.from_numpy(np.where(known, self.dataset.labels[self.learnt], -1)) if known.any() else None
        return Scope(len(self.learnt), epochs, [self.dataset.keys[row] for row in self.learnt], labels)


def _open(
    settings: PretrainSettings, method: type[Pretext], start: handover.Initialization, group: OneProcess, say: Say
) -> tuple[Opened, int]:
    """The images, and the size that the network sees them in."""
    if method.needs.true_colors and settings.augment == "strong":
        raise SettingsError(
            f"{settings.method} learns colors, and --augment strong changes them; type --augment standard"
        )
    source = source_of(settings, settings.data or "digits")
    size = settings.image_size or start.image_size or default_image_size(source, start.backbone, say)
    if size < method.needs.smallest_image:
        raise SettingsError(
            f"{settings.method} needs images of at least {method.needs.smallest_image} px, --image-size is {size}"
        )
    with _first_alone(group):
        opened = open_data(
            settings,
            source,
            settings.out,
            image_size=size,
            channels=settings.channels or start.channels,
            intensity=start.intensity or settings.intensity or "range",
            pack_side=start.pack_side if size == start.image_size else None,
            say=say,
        )
    return opened, size


def _pixels(
    settings: PretrainSettings,
    method: type[Pretext],
    start: handover.Initialization,
    dataset: Dataset,
    rows: NDArray[np.int64],
) -> Pixels:
    """The scaling of what is started from, else measured: on the same rows for every method, learnt and held out."""
    pixels = start.pixels or measure(dataset.images, rows, settings.intensity or "range", settings.seed)
    if method.needs.value_range == "symmetric":
        half = (0.5,) * dataset.images.shape[-1]
        pixels = replace(pixels, mean=half, std=half)
    return pixels


class _first_alone:  # reads as a statement
    """Process 0 packs while the others wait; then they find it packed."""

    def __init__(self, group: OneProcess) -> None:
        self.group = group

    def __enter__(self) -> None:
        if self.group.rank:
            self.group.wait()

    def __exit__(self, *error: object) -> None:
        if not self.group.rank:
            self.group.wait()
