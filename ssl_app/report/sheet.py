"""A sheet of pictures: images pixel by pixel, boxes and captions at places in pixels, written as a PNG."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.report import lettering

DPI = 100  # a point is 100 / 72 pixels
INK, FAINT, HALO = "#222222", "#767676", "#FFFFFF"
BODY, SMALL, TITLE = 9.0, 7.5, 12.0  # points
LINE = 16  # pixels from one line of text to the next
MARGIN, GAP = 14, 6  # pixels
Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class _Text:
    left: float
    top: float
    words: str
    size: float
    color: str
    align: str
    bold: bool


@dataclass
class Sheet:
    """White, `width` by `height` pixels; the origin is at the top left."""

    width: int
    height: int
    texts: list[_Text] = field(default_factory=list)
    canvas: Pixels = field(init=False)

    def __post_init__(self) -> None:
        self.canvas = np.ones((self.height, self.width, 3))

    def image(self, picture: NDArray[np.floating], left: int, top: int, side: int) -> None:
        """A square image (S, S, 1 or 3) in [0, 1], scaled to a side by its nearest pixels."""
        pixels = np.clip(np.nan_to_num(np.asarray(picture, dtype=np.float64)), 0, 1)
        at = (np.arange(side) * pixels.shape[0] // side, np.arange(side) * pixels.shape[1] // side)
        self.canvas[top : top + side, left : left + side] = pixels[at[0]][:, at[1]]

    def box(self, left: float, top: float, right: float, bottom: float, color: str, width: int = 2) -> None:
        """The outline of a box, inside its edges."""
        x0, y0, x1, y1 = (round(edge) for edge in (left, top, right, bottom))
        part = self.canvas[y0:y1, x0:x1]
        for lines in (part[:width], part[-width:], part[:, :width], part[:, -width:]):
            lines[:] = to_rgb(color)

    def text(self, left: float, top: float, words: str, *, size: float = BODY, color: str = INK, align: str = "left",
             bold: bool = False) -> None:  # fmt: skip
        """One line of text whose letters begin below `top`; `align` says what of it is at `left`."""
        self.texts.append(_Text(left, top, lettering.drawn(words), size, color, align, bold))

    def heading(self, title: str, lines: list[str]) -> int:
        """A title and lines of explanation at the top left. -> the first free row of pixels below."""
        self.text(MARGIN, MARGIN, title, size=TITLE, bold=True)
        for number, line in enumerate(lines):
            self.text(MARGIN, MARGIN + 24 + number * LINE, line, color=FAINT)
        return MARGIN + 24 + len(lines) * LINE + GAP

    def save(self, path: Path) -> Path:
        """Write the PNG in one step. Raises OSError."""
        figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        figure.figimage(np.rint(self.canvas * 255).astype(np.uint8), 0, 0, origin="upper")
        for one in self.texts:
            figure.text(
                one.left / self.width,
                1 - one.top / self.height,
                one.words,
                fontsize=one.size,
                color=one.color,
                ha=one.align,
                va="top",
                fontweight="bold" if one.bold else "normal",
                family=lettering.families(one.words),
                parse_math=False,
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with runs.draft(path) as draft:
            figure.savefig(draft, dpi=DPI, facecolor="white", format="png")
        return path


def heading_height(lines: int) -> int:
    """Rows of pixels that a heading takes."""
    return MARGIN + 24 + lines * LINE + GAP


def fitted(words: str, width: float, size: float = BODY) -> str:
    """A text, cut short with an ellipsis in the middle where it is wider than so many pixels."""
    words = lettering.drawn(words)
    if width_of(words, size) <= width:
        return words
    for kept in range(len(words) - 1, 1, -1):
        head, tail = words[: (kept + 1) // 2], words[len(words) - kept // 2 :]
        if width_of(f"{head}…{tail}", size) <= width:
            return f"{head}…{tail}"
    return "…"


def wrapped(words: str, width: float, size: float = BODY) -> list[str]:
    """A text in lines of at most so many pixels."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@cache
def width_of(words: str, size: float = BODY) -> float:
    """Width of a line, in pixels."""
    font = FontProperties(family=lettering.families(words), size=size)
    width: float = _renderer().get_text_width_height_descent(words, font, ismath=False)[0]
    return width


@cache
def _renderer() -> RendererAgg:
    """Letters are as wide as the one that draws them makes them: it rounds each to whole pixels."""
    return RendererAgg(1, 1, DPI)
