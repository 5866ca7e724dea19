"""Blocks that reports are made of: sections, tables, lists of facts; and numbers as people read them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl_app.evaluation.intervals import Interval
from ssl_app.report.markup import Child, Markup, join, tag
from ssl_app.training.history import duration


@dataclass(frozen=True)
class Section:
    """A part of a report, which its list of contents names."""

    key: str  # in addresses
    title: str
    body: Markup


def section(key: str, title: str, *children: Child) -> Section | None:
    """A section; None where there is nothing in it."""
    body = join(children)
    return Section(key, title, body) if body else None


def paragraph(*children: Child, quiet: bool = False) -> Markup:
    """A paragraph."""
    return tag("p", *children, class_="quiet" if quiet else None)


def heading(words: str) -> Markup:
    """Of a part of a section."""
    return tag("h3", words)


@dataclass(frozen=True)
class Column:
    """A column of a table: its name with the unit, and whether it holds numbers."""

    name: str
    number: bool = True


def table(columns: Sequence[Column], rows: Iterable[Sequence[Child]], caption: str | None = None) -> Markup:
    """A table that scrolls within itself where it is too wide. The first cell of a row names it."""
    kinds = ["num" if column.number else None for column in columns]
    head = [
        tag("th", one.name.replace("[95 %]", "[95\u00a0%]"), scope="col", class_=kind)
        for one, kind in zip(columns, kinds, strict=True)
    ]
    body = []
    for row in rows:
        first, *rest = row
        cells = [tag("th", first, scope="row", class_=kinds[0])]
        cells += [tag("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(tag("tr", *cells))
    if not body:
        return Markup("")
    held = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return join([paragraph(caption, quiet=True) if caption else None, tag("div", held, class_="scroll", tabindex=0)])


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names with their values, side by side; without what has none."""
    known = [(name, value) for name, value in pairs if value not in (None, "")]
    return (
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in known)) if known else Markup("")
    )


def folded(summary: str, *children: Child) -> Markup:
    """What is shown on demand, and on paper."""
    return tag("details", tag("summary", summary), *children)


def bullets(lines: Iterable[Child]) -> Markup:
    """A list."""
    items = [tag("li", line) for line in lines]
    return tag("ul", *items) if items else Markup("")


def command(typed: str) -> Markup:
    """A command to type. A line ends between its words alone: `--` at an end and `out` below are no flag."""
    words = join((tag("span", word) for word in typed.split(" ")), " ")
    return tag("pre", tag("code", words), class_="command", tabindex=0)


def tiles(pairs: Iterable[tuple[str, str, str]]) -> Markup:
    """A few large numbers: what it is, the number, and what it holds for."""
    cells = [
        tag("div", tag("span", name, class_="name"), tag("strong", value), tag("span", note, class_="quiet"))
        for name, value, note in pairs
    ]
    return tag("div", *cells, class_="tiles") if cells else Markup("")


def percent(share: float | None) -> str:
    """`72.9`; a dash where it is not known."""
    return "–" if share is None else f"{100 * share:.1f}"


def percent_with(interval: Interval) -> str:
    """`72.9 [65.0, 80.1]`, in percent; what of the interval lies beyond 0 or 100 cannot be, and is cut off."""
    if interval.low is None or interval.high is None:
        return percent(interval.mean)
    return f"{percent(interval.mean)} [{percent(max(0.0, interval.low))}, {percent(min(1.0, interval.high))}]"


def points(share: float) -> str:
    """`+9.6`, in points."""
    shown = f"{100 * share:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def points_with(mean: float, low: float | None, high: float | None) -> str:
    """`+9.6 [+3.1, +16.0]`, in points; what of the interval lies beyond a hundred points is cut off."""
    if low is None or high is None:
        return points(mean)
    return f"{points(mean)} [{points(max(-1.0, low))}, {points(min(1.0, high))}]"


def direction(low: float | None, high: float | None) -> str | None:
    """The class of a difference whose whole interval lies on one side of zero."""
    if low is not None and low > 0:
        return "above"
    return "below" if high is not None and high < 0 else None


def when(seconds: float) -> str:
    """`2026-11-30 14:45`, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def count(number: int, noun: str, several: str | None = None) -> str:
    """`1 image`, `1,066 images`."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def plain(value: object) -> str:
    """A setting's value for people."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(one)}" for name, one in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def lasted(seconds: float | None) -> str:
    """`45 s`, `12 min`; a dash where it is not known."""
    return "–" if seconds is None else duration(seconds)
