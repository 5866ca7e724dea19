"""Picture: one kind of picture of what a network has learned. Subject: the network, and the images that show it.

A kind is one file here, and a class spelled like it (`top_activations.py`, `TopActivations`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.data.loading import ImageRows
from ssl_app.data.transforms import center
from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.report.contrast import Contrast, tile_side
from ssl_app.report.grid import Tile
from ssl_app.report.lettering import class_captions
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import map_images

HEAT = 0.65  # of a map over an image, where it is strongest


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, and N images to show it by."""

    name: str  # of the run
    backbone: Backbone
    layers: tuple[str, ...]  # to look at, from the images upwards
    rows: ImageRows
    hardware: Hardware
    features: NDArray[np.float32]  # (N, d) of the pooled last layer
    keys: Sequence[str]  # (N,) names of the images
    units: Sequence[str]  # (N,) what belongs together: group, or content
    classes: Sequence[str]
    labels: NDArray[np.int64]  # (N,) place in classes, -1 where there is none
    groups: Sequence[str | None] | None = None  # (N,) None where the data name none
    clusters: NDArray[np.int64] | None = None  # (N,)
    predictor: Ensemble | None = None  # of a finished classifier of these classes
    group_word: str = "group"
    tsne: bool = False  # beside the principal components
    seed: int = 0

    @cached_property
    def captions(self) -> list[str]:
        """Names of the classes as they are drawn."""
        return class_captions(self.classes)

    def caption(self, image: int) -> str:
        """The class of an image, nothing where it has no label; where there are no classes, its file."""
        if not self.classes:
            return PurePath(self.keys[image]).name
        return self.captions[self.labels[image]] if self.labels[image] >= 0 else ""

    @property
    def tile(self) -> int:
        """Side that an image is shown at, in pixels."""
        return tile_side(self.rows.image_size)

    def pictures(self, images: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """Images as they are shown, in [0, 1]: RGB as it is; gray stretched alike in all; else the first channel.

        -> each (S, S, 1 or 3), or smaller where they are large.
        """
        at = self.rows.indices[np.asarray(images, dtype=np.int64)]
        seen = center(self.rows.scaling.scale(self.rows.images[at]), self.rows.image_size)
        return Contrast.of(seen).shown(seen)

    def map(self, fn: Callable[[Tensor], Tensor], images: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """What a function makes of the network's input of some images, in the backbone's device and precision."""
        rows = self.rows.at(self.rows.indices[np.asarray(images, dtype=np.int64)])
        return map_images(self.backbone, fn, rows, self.hardware)

    def map_layers(self, smallest: int) -> list[str]:
        """The layers whose maps have so many places along a side or more. Raises SettingsError where none has."""
        shapes = {layer: self.backbone.shape(layer) for layer in self.layers}
        found = [layer for layer, shape in shapes.items() if len(shape) == 3 and min(shape[1:]) >= smallest]
        if not found:
            least = "a map" if smallest == 1 else f"a map of {smallest} x {smallest} places"
            raise SettingsError(f"none of the layers {', '.join(self.layers)} of {self.name} has {least}")
        return found

    def examples(self, count: int) -> list[int]:
        """So many images, drawn by the seed: each class in turn, and another unit each time as long as there is one.

        Images without a label only where none has one. They come class by class.
        """
        order = np.random.default_rng([self.seed, 8]).permutation(len(self.keys))
        known = (self.labels >= 0).any()
        queues = [
            [int(i) for i in order if self.labels[i] == k] for k in np.unique(self.labels) if k >= 0 or not known
        ]
        found: list[int] = []
        units: set[str] = set()
        for new_units_only in (True, False):
            left = [iter([i for i in queue if i not in found]) for queue in queues]
            while left and len(found) < count:
                for queue in list(left):
                    image = next((i for i in queue if not new_units_only or self.units[i] not in units), None)
                    if image is None:
                        left.remove(queue)
                    elif len(found) < count:
                        found.append(image)
                        units.add(self.units[image])
        return sorted(found, key=lambda image: int(self.labels[image]))


class Picture(ABC):
    """One kind of picture."""

    @abstractmethod
    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """Draw it into a folder. -> the files. Raises SettingsError where the network has nothing of this kind."""


def heated(picture: NDArray[np.float64], heat: NDArray[np.floating], colors: str = "inferno") -> NDArray[np.float64]:
    """A map in [0, 1] in colors over a grayed image: what is strong covers it. (S, S, c), (h, w) -> (S, S, 3)."""
    gray = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    side = (picture.shape[1], picture.shape[0])
    smooth = np.clip(cv2.resize(np.asarray(heat, dtype=np.float64), side, interpolation=cv2.INTER_LINEAR), 0, 1)
    over = 0.25 + (HEAT - 0.25) * smooth[..., None]
    mixed: NDArray[np.float64] = (1 - over) * gray + over * colormaps[colors](smooth)[..., :3]
    return mixed


def heated_rows(
    pictures: Sequence[NDArray[np.float64]], maps: Sequence[Sequence[NDArray[np.float64]]]
) -> list[list[Tile | None]]:
    """Each image, and its map of each layer over it: rows of a grid. (n,), (layers, n) -> (n, 1 + layers)."""
    return [
        [Tile(picture), *(Tile(heated(picture, each[row])) for each in maps)] for row, picture in enumerate(pictures)
    ]


def two_sided(
    picture: NDArray[np.float64], evidence: NDArray[np.float64], positive: str, negative: str
) -> NDArray[np.float64]:
    """A map in [-1, 1] in two colors over a grayed image; 0 leaves the image. (S, S, c), (h, w) -> (S, S, 3)."""
    gray = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    smooth = np.clip(cv2.resize(evidence, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), -1, 1)[..., None]
    color = np.where(smooth > 0, to_rgb(positive), to_rgb(negative))
    over = 0.75 * np.abs(smooth)
    mixed: NDArray[np.float64] = (1 - over) * gray + over * color
    return mixed


def to_unit(heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """A map stretched to [0, 1]; 0 where it is the same everywhere."""
    values = np.asarray(heat, dtype=np.float64)
    found: NDArray[np.float64] = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    return found


def as_array(tensor: Tensor) -> NDArray[np.float64]:
    """A tensor's numbers in f64."""
    found: NDArray[np.float64] = tensor.to(torch.float64).numpy()
    return found
