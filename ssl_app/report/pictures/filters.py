"""First-layer filters: the weights of the first convolution, and through a Sobel filter what they are on pixels."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app.models.filters import FirstFilters, first_filters
from ssl_app.report.pictures.base import Picture, Subject
from ssl_app.report.sheet import GAP, LINE, MARGIN, Sheet, heading_height, wrapped

MOST = 96  # filters
SIDE = 48  # pixels of a filter, at least
ACROSS = 8  # filters
LEAST_WIDTH = 620  # pixels, for the words
PANELS = 4  # channels shown of images that are neither gray nor RGB


class Filters(Picture):
    """Gray weights around mid-gray; on RGB images in the colors that a filter answers to."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`filters.png`."""
        found = first_filters(subject.backbone)
        weights = found.weights.double().numpy()  # (F, C, k, k)
        order = np.argsort(-np.linalg.norm(weights.reshape(len(weights), -1), axis=1), kind="stable")[:MOST]
        weights = weights[order]
        panels = _panels(weights, None if found.on_pixels is None else found.on_pixels.double().numpy()[order])
        return [
            _sheet(panels, f"First-layer filters of {subject.name}", _about(found, len(weights))).save(
                folder / "filters.png"
            )
        ]


def _about(found: FirstFilters, count: int) -> str:
    filters, channels, *side = found.weights.shape
    kind = {1: "gray images", 3: "RGB images"}.get(channels, f"images of {channels} channels")
    signs = "mid-gray is 0, white positive, black negative"
    if found.on_pixels is not None:
        kind = "the gradients of an image (Sobel)"
    elif channels == 3:
        signs = "mid-gray is 0, a color the one that the filter answers to"
    shown = f"{filters}" if count == filters else f"{count} of {filters}"
    return (
        f"{shown} filters of {side[0]} x {side[1]} on {kind}, the strongest first. Each is scaled by its own largest "
        f"weight: {signs}."
    )


def _panels(
    weights: NDArray[np.float64], on_pixels: NDArray[np.float64] | None
) -> list[tuple[str, list[NDArray[np.float64]]]]:
    """Words and pictures, each (k, k, 1 or 3) in [0, 1]."""
    if on_pixels is not None:
        parts = [weights[:, :1], weights[:, 1:2], on_pixels]
        words = ["on the horizontal gradient", "on the vertical gradient", "both, as a filter on gray pixels"]
        largest = np.abs(weights).max((1, 2, 3))
        scales = [largest, largest, np.abs(on_pixels).max((1, 2, 3))]
    elif weights.shape[1] in (1, 3):
        parts, words, scales = [weights], [""], [np.abs(weights).max((1, 2, 3))]
    else:
        shown = min(PANELS, weights.shape[1])
        parts = [weights[:, channel : channel + 1] for channel in range(shown)]
        words = [f"channel {channel + 1} of {weights.shape[1]}" for channel in range(shown)]
        scales = [np.abs(weights).max((1, 2, 3))] * shown
    return [
        (word, [_gray_at_zero(one, scale) for one, scale in zip(part, each, strict=True)])
        for word, part, each in zip(words, parts, scales, strict=True)
    ]


def _gray_at_zero(weights: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """(C, k, k) -> (k, k, C) in [0, 1]."""
    picture: NDArray[np.float64] = 0.5 + weights.transpose(1, 2, 0) / (2 * max(largest, 1e-12))
    return picture


def _sheet(panels: list[tuple[str, list[NDArray[np.float64]]]], title: str, about: str) -> Sheet:
    sides = [pictures[0].shape[0] * -(-SIDE // pictures[0].shape[0]) for _, pictures in panels]
    across = ACROSS if len(panels) > 1 else 2 * ACROSS
    widths = [across * (side + GAP) for side in sides]
    rows = math.ceil(len(panels[0][1]) / across)
    width = max(LEAST_WIDTH, sum(widths) + 3 * GAP * (len(panels) - 1) + 2 * MARGIN)
    lines = wrapped(about, width - 2 * MARGIN)
    top = heading_height(len(lines)) + (LINE if panels[0][0] else 0)
    sheet = Sheet(width, top + rows * (max(sides) + GAP) + MARGIN)
    sheet.heading(title, lines)
    left = MARGIN
    for (word, pictures), side, wide in zip(panels, sides, widths, strict=True):
        sheet.text(left, top - LINE, word)
        for number, picture in enumerate(pictures):
            down, right = divmod(number, across)
            sheet.image(picture, left + right * (side + GAP), top + down * (side + GAP), side)
        left += wide + 3 * GAP
    return sheet
