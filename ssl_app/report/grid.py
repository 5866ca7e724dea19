"""A grid of pictures: rows and columns with captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssl_app.report.palette import COLORS
from ssl_app.report.sheet import (
    BODY,
    GAP,
    INK,
    LINE,
    MARGIN,
    SMALL,
    Sheet,
    fitted,
    heading_height,
    width_of,
    wrapped,
)

MOST_LABEL = 150  # pixels of the words left of a row
LEAST_WIDTH = 420
BOX, OUTLINE = COLORS[4], "#000000"  # on bright and on dark images


@dataclass(frozen=True)
class Tile:
    """A picture with a line below it, a frame in a color, and a box on it."""

    picture: NDArray[np.float64]  # (S, S, 1 or 3) in [0, 1]
    caption: str = ""
    frame: str | None = None
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom, in sides of the picture


@dataclass(frozen=True)
class Grid:
    """What stands around the pictures."""

    title: str
    about: str
    columns: Sequence[str] = field(default=())  # their headings
    rows: Sequence[str] = field(default=())  # what stands left of each

    def sheet(self, tiles: Sequence[Sequence[Tile | None]], tile: int) -> Sheet:
        """Rows of tiles, each `tile` pixels wide; None leaves a place empty."""
        across = max(map(len, tiles), default=0)
        label = self._label_width()
        captions = any(one.caption for row in tiles for one in row if one is not None)
        step = tile + GAP + (LINE if captions else 0)
        width = max(LEAST_WIDTH, 2 * MARGIN + label + across * (tile + GAP) - GAP)
        lines = wrapped(self.about, width - 2 * MARGIN)
        top = heading_height(len(lines)) + (LINE if self.columns else 0)
        sheet = Sheet(width, top + len(tiles) * step - GAP + MARGIN)
        sheet.heading(self.title, lines)
        for number, words in enumerate(self.columns):
            sheet.text(MARGIN + label + number * (tile + GAP), top - LINE, fitted(words, tile))
        for row, each in enumerate(tiles):
            if label:
                self._label(sheet, top + row * step, self.rows[row], label)
            for number, one in enumerate(each):
                if one is not None:
                    self._tile(sheet, one, (MARGIN + label + number * (tile + GAP), top + row * step), tile)
        return sheet

    def _label_width(self) -> int:
        """Of what stands left of the rows, the space before the pictures included; 0 where nothing does."""
        if not any(self.rows):
            return 0
        return (
            int(min(MOST_LABEL, max(width_of(line) for words in self.rows for line in words.splitlines()))) + 2 * GAP
        )

    def _label(self, sheet: Sheet, top: int, words: str, width: int) -> None:
        """Of several lines the first is larger."""
        for number, line in enumerate(words.splitlines()):
            size = SMALL if number else BODY
            sheet.text(MARGIN, top + number * LINE, fitted(line, width - 2 * GAP, size), size=size)

    def _tile(self, sheet: Sheet, one: Tile, place: tuple[int, int], tile: int) -> None:
        left, top = place
        sheet.image(one.picture, left, top, tile)
        if one.frame is not None:
            sheet.box(left, top, left + tile, top + tile, one.frame, 3)
        if one.box is not None:
            x0, y0, x1, y1 = (edge * tile for edge in one.box)
            sheet.box(left + x0, top + y0, left + x1, top + y1, OUTLINE, 3)
            sheet.box(left + x0, top + y0, left + x1, top + y1, BOX, 2)
        if one.caption:
            sheet.text(left, top + tile + 2, fitted(one.caption, tile, SMALL), size=SMALL, color=INK)
