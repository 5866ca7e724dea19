"""Feature map: all images as points in the plane, colored by class, by group and by cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.errors import SettingsError
from ssl_app.evaluation.projection import Projection, principal, tsne
from ssl_app.report import lettering
from ssl_app.report.palette import COLORS
from ssl_app.report.pictures.base import Picture, Subject
from ssl_app.report.sheet import DPI, FAINT, INK, fitted

FEWEST, MOST_TSNE = 5, 2000  # images
REST = "#C9C9C9"  # points without a color of their own
MARKS = "osD^vPX"  # beyond seven colors another mark takes over, so that colors need not be many
HUES = COLORS[:6] + COLORS[7:]  # without gray, which is for the rest
NAMED = 3 * len(HUES)
GROUPS = len(HUES)  # with a color of their own
PANEL, LEGEND, HEAD = 4.6, 1.9, 0.75  # inches


class FeatureMap(Picture):
    """One panel for each coloring, of the same points."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`feature-map.png`, `feature-map-tsne.png` where wanted. Raises SettingsError for few images."""
        count = len(subject.features)
        if count < FEWEST:
            raise SettingsError(f"{count} images are too few for a map", expected=f"at least {FEWEST}")
        colorings = _colorings(subject)
        title = f"Features of {count:,} images, {subject.name}"
        files = [_draw(folder / "feature-map.png", title, principal(subject.features), colorings)]
        if subject.tsne:
            some = np.arange(count)[:: -(-count // MOST_TSNE)]
            title = f"Features of {len(some):,} images, {subject.name}"
            chosen = [one.at(some) for one in colorings]
            projection = tsne(subject.features[some], subject.seed)
            files.append(_draw(folder / "feature-map-tsne.png", title, projection, chosen))
        return files


@dataclass(frozen=True, eq=False)
class _Coloring:
    """What the points of a panel are colored by."""

    title: str
    names: Sequence[str]  # of what has a color of its own
    member: NDArray[np.int64]  # (N,) place in names; -1 for the rest
    rest: str  # what the others are, "" where there are none

    def at(self, images: NDArray[np.int64]) -> "_Coloring":
        return _Coloring(self.title, self.names, self.member[images], self.rest)


def _colorings(subject: Subject) -> list[_Coloring]:
    found = []
    if (subject.labels >= 0).any():
        found.append(_largest("class", subject.labels, subject.captions, NAMED))
    if subject.groups is not None and any(subject.groups):
        names = sorted({group for group in subject.groups if group})
        place = {name: number for number, name in enumerate(names)}
        member = np.array([place[group] if group else -1 for group in subject.groups], dtype=np.int64)
        found.append(_largest(subject.group_word, member, names, GROUPS))
    if subject.clusters is not None:
        names = [f"cluster {number}" for number in range(int(subject.clusters.max()) + 1)]
        found.append(_largest("cluster", subject.clusters, names, NAMED))
    return found or [_Coloring("", (), np.full(len(subject.features), -1), "")]


def _largest(what: str, member: NDArray[np.int64], names: Sequence[str], most: int) -> _Coloring:
    """With a color for each name, or for so many of those with most images."""
    sizes = np.bincount(member[member >= 0], minlength=len(names))
    present = np.flatnonzero(sizes)
    kept = present if len(present) <= most else np.sort(np.argsort(-sizes, kind="stable")[:most])
    place = np.full(len(names) + 1, -1)
    place[kept] = np.arange(len(kept))
    others = len(present) - len(kept)
    unknown = int((member < 0).sum())
    rest = [f"any other {what} ({others:,})"] * bool(others) + [f"no {what}"] * bool(unknown)
    return _Coloring(f"by {what}", [names[k] for k in kept], place[member], ", ".join(rest))


def _draw(path: Path, title: str, projection: Projection, colorings: Sequence[_Coloring]) -> Path:
    width = len(colorings) * (PANEL + LEGEND)
    height = PANEL + HEAD + 0.45
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.15 / width, 1 - 0.12 / height, lettering.drawn(title), fontsize=12, fontweight="bold", color=INK,
                va="top", family=lettering.families(title), parse_math=False)  # fmt: skip
    about = f"{projection.how}; every point is an image" + (
        "; distances between groups mean little" * ("t-SNE" in projection.how)
    )
    figure.text(0.15 / width, 1 - 0.38 / height, about, fontsize=9, color=FAINT, va="top")
    for number, coloring in enumerate(colorings):
        left = number * (PANEL + LEGEND) + 0.4
        axes = figure.add_axes((left / width, 0.4 / height, (PANEL - 0.5) / width, (PANEL - 0.15) / height))
        _panel(axes, projection, coloring)
    with runs.draft(path) as draft:
        figure.savefig(draft, dpi=DPI, facecolor="white", format="png")
    return path


def _panel(axes: Axes, projection: Projection, coloring: _Coloring) -> None:
    points, size = projection.points, float(np.clip(6000 / len(projection.points), 5, 36))
    rest = coloring.member < 0
    if rest.any():
        axes.scatter(
            points[rest, 0], points[rest, 1], color=REST, label=coloring.rest or None, s=size, lw=0, alpha=0.75
        )
    if rest.mean() > 0.5:  # the few with a color are lost among the many without one
        size *= 4
    # in random order, so that no class covers another: one call for each mark
    order = np.random.default_rng(0).permutation(len(points))
    for turn in range(-(-len(coloring.names) // len(HUES))):
        mine = order[(coloring.member[order] >= 0) & (coloring.member[order] // len(HUES) == turn)]
        colors = [HUES[k % len(HUES)] for k in coloring.member[mine]]
        axes.scatter(points[mine, 0], points[mine, 1], c=colors, marker=MARKS[turn], s=size, lw=0, alpha=0.75)
    for k, name in enumerate(coloring.names):
        label = fitted(f"{name} ({int((coloring.member == k).sum()):,})", 100 * LEGEND - 40, 8)
        axes.scatter([], [], color=HUES[k % len(HUES)], marker=MARKS[k // len(HUES)], s=36, lw=0, label=label)
    axes.set_title(lettering.drawn(coloring.title), loc="left", fontsize=10, color=INK)
    axes.set_xlabel(projection.axes[0], fontsize=8, color=FAINT)
    axes.set_ylabel(projection.axes[1], fontsize=8, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#BBBBBB")
    if coloring.names:
        legend = axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8, handletextpad=0.2
        )
        for text in legend.get_texts():
            text.set_fontfamily(lettering.families(text.get_text()))
            text.set_parse_math(False)
