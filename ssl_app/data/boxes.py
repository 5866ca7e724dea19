"""Which box of a packed image a view shows, followed through crops, padding, flips and resizing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 of a view, in shares of the packed image's side
Numbers = float | NDArray[Any]  # of one image, or one for each image of a batch
CROPS = (A.RandomResizedCrop, A.RandomSizedCrop, A.RandomCrop, A.CenterCrop, A.Crop)
# after which a view is still a box of the image along its axes
BOXES = (*CROPS, A.Pad, A.PadIfNeeded, A.Resize, A.HorizontalFlip, A.VerticalFlip, A.ImageOnlyTransform, A.NoOp)


@dataclass(frozen=True)
class Axis:
    """Along one axis: where the first pixel of a view begins in the packed image, and how far it is to the next."""

    start: Numbers  # pixels of the packed image
    side: Numbers  # of the view, in its own pixels
    step: Numbers = 1.0  # pixels of the packed image for one of the view; below 0 where it is mirrored

    def ends(self, side: float) -> tuple[Numbers, Numbers]:
        """Where a view of so many pixels begins and ends in the packed image, in ascending order."""
        end = self.start + self.step * side
        return np.minimum(self.start, end), np.maximum(self.start, end)

    def cut(self, low: Numbers, high: Numbers, side: float | None = None) -> "Axis":
        """From pixel `low` to pixel `high` of the view, resized to `side`. Both may lie outside: it is padded."""
        pixels = high - low if side is None else side
        return Axis(self.start + self.step * low, pixels, self.step * (high - low) / pixels)

    def mirrored(self) -> "Axis":
        """Counted from the other end."""
        return Axis(self.start + self.step * self.side, self.side, -self.step)

    def where(self, chosen: NDArray[np.bool_], other: "Axis") -> "Axis":
        """This axis for the chosen images of a batch, the other one for the rest."""
        pairs = ((self.start, other.start), (self.side, other.side), (self.step, other.step))
        return Axis(*(np.where(chosen, mine, theirs) for mine, theirs in pairs))


def box(across: Axis, down: Axis, side: float) -> NDArray[np.float64]:
    """x0, y0, x1, y1 of a view of so many pixels, in pixels of the packed image. -> (4,), or (n, 4) of a batch."""
    (x0, x1), (y0, y1) = across.ends(side), down.ends(side)
    return np.stack([x0, y0, x1, y1], -1)


def followed(across: Axis, down: Axis, transform: A.BasicTransform, drawn: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """Both axes after one more transform of BOXES, by what it has drawn: for one image, or arrays for a batch."""
    if isinstance(transform, CROPS):
        pad = drawn.get("pad_params") or {}
        left, top = pad.get("pad_left", 0), pad.get("pad_top", 0)
        x0, y0, x1, y1 = np.transpose(drawn["crop_coords"])
        height, width = getattr(transform, "size", (y1 - y0, x1 - x0))
        return across.cut(x0 - left, x1 - left, width), down.cut(y0 - top, y1 - top, height)
    if isinstance(transform, A.Pad | A.PadIfNeeded):
        return (
            across.cut(-drawn["pad_left"], across.side + drawn["pad_right"]),
            down.cut(-drawn["pad_top"], down.side + drawn["pad_bottom"]),
        )
    if isinstance(transform, A.Resize):
        return across.cut(0, across.side, transform.width), down.cut(0, down.side, transform.height)
    if isinstance(transform, A.HorizontalFlip):
        return across.mirrored(), down
    if isinstance(transform, A.VerticalFlip):
        return across, down.mirrored()
    return across, down
