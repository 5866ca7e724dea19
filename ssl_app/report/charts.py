"""Line charts as SVG, drawn twice: for wide windows and for phones, so that words are never shrunk.

Each mark says in words what it shows: as a title that a browser shows, which the page's script makes a tip of.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_app.report.markup import Markup, join, tag

SHAPES = {
    "o": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "s": "M-4,-4h8v8h-8z",
    "D": "M0,-5.5L5.5,0L0,5.5L-5.5,0z",
    "^": "M0,-5L5,4H-5z",
    "v": "M0,5L5,-4H-5z",
    "P": "M-1.8,-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "X": "M-4.5,-2.5L-2.5,-4.5L0,-2L2.5,-4.5L4.5,-2.5L2,0L4.5,2.5L2.5,4.5L0,2L-2.5,4.5L-4.5,2.5L-2,0z",
    "*": "M0,-6L1.6,-1.9L6,-1.9L2.5,0.8L3.8,5L0,2.4L-3.8,5L-2.5,0.8L-6,-1.9L-1.6,-1.9z",
}  # of markers, as paths around (0, 0)
DASHES = (None, "7 4", "2 3", "9 3 2 3")  # of the second, third, ... round through the palette


@dataclass(frozen=True)
class Mark:
    """One point of a curve."""

    x: float
    y: float
    low: float | None  # of its interval; None where there is none
    high: float | None
    words: str  # what it shows


@dataclass(frozen=True)
class Curve:
    """A curve with its band, and dots that belong to it."""

    name: str
    marks: Sequence[Mark]
    place: int  # in the palette
    marker: str = "o"  # one of SHAPES
    dots: Sequence[tuple[float, float]] = ()
    dashes: str | None = None
    line: bool = True
    points: bool = True
    whiskers: bool = False  # intervals as lines, not as a band
    band: bool = True


@dataclass(frozen=True)
class Axis:
    """One direction of a chart."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False  # base 2

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end, 1 at the high one; beyond both it stays in sight."""
        low, high, value = (math.log2(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return min(1.5, max(-0.5, share))


@dataclass(frozen=True)
class Size:
    """Pixels of a chart, and its margins."""

    width: int
    height: int
    left: int = 58
    right: int = 14
    top: int = 12
    bottom: int = 46

    def x(self, share: float) -> float:
        """The place of a share of the width."""
        return round(self.left + share * (self.width - self.left - self.right), 1)

    def y(self, share: float) -> float:
        """The place of a share of the height, from below."""
        return round(self.height - self.bottom - share * (self.height - self.top - self.bottom), 1)


WIDE, NARROW = Size(960, 430), Size(352, 300, left=50, right=10)


@dataclass(frozen=True)
class Chart:
    """Curves in a frame."""

    title: str  # for those who do not see it
    curves: Sequence[Curve]
    x: Axis
    y: Axis
    level: float | None = None  # a dashed line across: no difference, chance
    diagonal: bool = False

    def drawn(self, wide: Size = WIDE, narrow: Size | None = NARROW) -> Markup:
        """The figure: both sizes, of which the page's style shows one. Without a narrow one, the wide one alone."""
        if narrow is None:
            return self._svg(wide, "")
        return join([self._svg(wide, "wide"), self._svg(narrow, "narrow")])

    def _svg(self, size: Size, kind: str) -> Markup:
        return tag(
            "svg", self._frame(size), *(self._curve(curve, size) for curve in self.curves),
            class_=f"chart {kind}".strip(), viewBox=f"0 0 {size.width} {size.height}", width=size.width,
            height=size.height, role="group", aria_label=self.title,
        )  # fmt: skip

    def _frame(self, size: Size) -> Markup:
        left, right, bottom = size.x(0), size.x(1), size.y(0)
        parts = []
        for value, words in self.y.ticks:
            at = size.y(self.y.place(value))
            parts.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
            parts.append(tag("text", words, x=left - 8, y=at + 4, text_anchor="end"))
        for value, words in _fitting(self.x, size):
            at = size.x(self.x.place(value))
            parts.append(tag("line", class_="tick", x1=at, x2=at, y1=bottom, y2=bottom + 5))
            parts.append(tag("text", words, x=at, y=bottom + 19, text_anchor="middle"))
        parts.append(tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
        if self.level is not None:
            at = size.y(self.y.place(self.level))
            parts.append(tag("line", class_="level", x1=left, x2=right, y1=at, y2=at))
        if self.diagonal:
            parts.append(tag("line", class_="level", x1=left, x2=right, y1=bottom, y2=size.y(1)))
        middle = (left + right) / 2
        parts.append(tag("text", self.x.label, x=middle, y=size.height - 6, text_anchor="middle", class_="label"))
        if self.y.label:
            turned = f"translate(13 {(bottom + size.y(1)) / 2}) rotate(-90)"
            parts.append(tag("text", self.y.label, transform=turned, text_anchor="middle", class_="label"))
        return join(parts)

    def _curve(self, curve: Curve, size: Size) -> Markup:
        points = [(size.x(self.x.place(m.x)), size.y(self.y.place(m.y))) for m in curve.marks]
        parts: list[Markup] = []
        bands = [
            (m, at) for m, at in zip(curve.marks, points, strict=True) if m.low is not None and m.high is not None
        ]
        ends = [
            (x, self._inside(m.low, size), self._inside(m.high, size))
            for m, (x, _) in bands
            if m.low is not None and m.high is not None
        ]
        if curve.whiskers:
            parts += [tag("line", class_="whisker", x1=x, x2=x, y1=low, y2=high) for x, low, high in ends]
        elif curve.band and len(ends) > 1:
            outline = [f"{x},{low}" for x, low, _ in ends] + [f"{x},{high}" for x, _, high in reversed(ends)]
            parts.append(tag("path", class_="band", d=f"M{'L'.join(outline)}z"))
        if curve.line and len(points) > 1:
            path = "L".join(f"{x},{y}" for x, y in points)
            parts.append(tag("path", class_="line", d=f"M{path}", stroke_dasharray=curve.dashes))
        for x, y in curve.dots:
            parts.append(tag("circle", class_="dot", cx=size.x(self.x.place(x)), cy=size.y(self.y.place(y)), r=2.2))
        for mark, (x, y) in zip(curve.marks, points, strict=True) if curve.points else ():
            shape = tag("path", class_="mark", d=SHAPES[curve.marker], transform=f"translate({x} {y})")
            hit = tag("circle", class_="hit", cx=x, cy=y, r=11)
            parts.append(tag("g", tag("title", mark.words), shape, hit, class_="point", tabindex=-1))
        kind = f"series s{curve.place}"
        if not (curve.points and curve.marks):  # nothing to stop at
            return tag("g", *parts, class_=kind, data_curve=curve.name)
        return tag(
            "g", *parts, class_=kind, data_curve=curve.name, tabindex=0, role="group",
            aria_label=f"{curve.name}: arrow keys go from point to point",
        )  # fmt: skip

    def _inside(self, value: float, size: Size) -> float:
        """The height of an end of an interval, cut off where the frame ends."""
        return size.y(min(1.0, max(0.0, self.y.place(value))))


def legend(curves: Sequence[Curve]) -> Markup:
    """A check box a curve, which shows and hides it; without a script it is a legend alone."""
    keys = []
    for curve in curves:
        line = tag("line", class_="line", x1=0, x2=30, y1=8, y2=8, stroke_dasharray=curve.dashes)
        shape = tag("path", class_="mark", d=SHAPES[curve.marker], transform="translate(15 8)")
        sample = tag("svg", line, shape, class_="sample", width=30, height=16, aria_hidden="true")
        box = tag("input", type="checkbox", checked=True, data_shows=curve.name)
        keys.append(tag("label", box, sample, tag("span", curve.name), class_=f"key s{curve.place}"))
    return tag("div", *keys, class_="legend", role="group", aria_label="Curves to show")


def share_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis of percent that holds these shares, with round ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if high - low <= 6 * step or step == 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [(n * step, f"{100 * n * step:.0f}") for n in range(first, last + 1)]
    return Axis(label, first * step, last * step, ticks)


def number_axis(label: str, values: Sequence[float]) -> Axis:
    """An axis that holds these numbers, with round ends."""
    low, high = min(values), max(values)
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if span / (power * k) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [(n * step, f"{n * step:.4g}") for n in range(first, last + 1)]
    return Axis(label, first * step, last * step, ticks)


def budget_axis(label: str, budgets: Sequence[int]) -> Axis:
    """An axis of labels per class, an octave as wide as the next, with room at both ends."""
    first, last = (min(budgets), max(budgets)) if budgets else (1, 2)
    return Axis(label, first / 1.12, last * 1.12, [(budget, f"{budget:,}") for budget in budgets], log=True)


def _fitting(axis: Axis, size: Size) -> list[tuple[float, str]]:
    """The ticks whose words do not touch the one before."""
    found: list[tuple[float, str]] = []
    free = -1.0
    for value, words in axis.ticks:
        at, half = size.x(axis.place(value)), 3.8 * len(words)
        if at - half > free:
            found.append((value, words))
            free = at + half + 4
    return found
