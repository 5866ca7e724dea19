"""Receptive fields: the box of pixels that a unit of a layer can depend on, found by marking pixels as not a number.

A mark passes through every operation that reads it, whatever the weights: through a max pool that takes another pixel
and a ReLU that is off, where a gradient stops. The field is that of the architecture, cut off at the image's border.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.models.backbones import Backbone

TOGETHER = 16  # images marked at a time


@dataclass(frozen=True)
class Box:
    """A part of an image in pixels: rows top to bottom, columns left to right, the last ones not included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, eq=False)
class ReceptiveFields:
    """Of a layer's map (D, h, w): the pixels that its rows and its columns depend on, first and one past the last."""

    rows: NDArray[np.int64]  # (h, 2)
    columns: NDArray[np.int64]  # (w, 2)
    side: int  # of the image

    def box(self, place: int) -> Box:
        """The field of the unit at a place of the map, counted row by row from the top left."""
        (top, bottom), (left, right) = self.rows[place // len(self.columns)], self.columns[place % len(self.columns)]
        return Box(int(top), int(left), int(bottom), int(right))

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest field, in pixels."""
        return int(np.ptp(self.rows, 1).max()), int(np.ptp(self.columns, 1).max())

    @property
    def whole(self) -> bool:
        """Whether every unit depends on the whole image."""
        return bool(np.ptp(self.rows, 1).min() == np.ptp(self.columns, 1).min() == self.side)


def receptive_fields(backbone: Backbone, layers: Sequence[str]) -> list[ReceptiveFields]:
    """The fields of the units of each layer; features without a map are one unit.

    By twice as many images through the network as an image has rows, in f32 on the CPU.
    Raises SettingsError for a layer that is not there.
    """
    network = copy.deepcopy(backbone).float().cpu().eval()
    rows, columns = (_reached(network, layers, axis) for axis in (0, 1))
    pairs = zip(rows, columns, strict=True)
    return [ReceptiveFields(_ends(down), _ends(across), backbone.image_size) for down, across in pairs]


@torch.no_grad()
def _reached(network: Backbone, layers: Sequence[str], axis: int) -> list[NDArray[np.bool_]]:
    """Which rows (axis 0) or columns (1) of each layer's map a row or column of the image reaches. -> (S, h or w)."""

    def reached(features: Tensor) -> NDArray[np.bool_]:
        units = features if features.dim() == 4 else features[:, :, None, None]
        found: NDArray[np.bool_] = units.isnan().any(1).any(2 - axis).numpy()
        return found

    side, found = network.image_size, []
    for first in range(0, side, TOGETHER):
        marked = range(first, min(first + TOGETHER, side))
        images = torch.zeros(len(marked), network.channels, side, side)
        for image, line in zip(images, marked, strict=True):
            image.select(axis + 1, line).fill_(torch.nan)
        found.append(network.each_layer(images, layers, reached))
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def _ends(reached: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First line that reaches each unit, and one past the last; 0, 0 where none does. (S, h) -> (h, 2)."""
    known = reached.any(0)
    first, last = reached.argmax(0), len(reached) - reached[::-1].argmax(0)
    return np.stack([np.where(known, first, 0), np.where(known, last, 0)], 1).astype(np.int64)
