"""Pictures of results: label efficiency, confusion, history, augmentations. No window, no global state."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from ssl_app import runs
from ssl_app.evaluation.comparison import Point
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.report.lettering import class_captions, families
from ssl_app.report.palette import COLORS, MARKERS, places

INK, FAINT = "#222222", "#DDDDDD"
DPI = 150


def label_efficiency(path: Path, series: Mapping[str, Mapping[int, Point]], title: str, y_label: str) -> None:
    """Score over labels per class: the mean as a line, every draw as a dot, its interval as a band."""
    figure, axes = new_figure(7.5, 4.8)
    budgets = sorted({budget for scores in series.values() for budget in scores})
    placed = places(series)
    for index, (name, scores) in enumerate(series.items()):
        color, marker = COLORS[placed[name]], MARKERS[placed[name]]
        x = np.array(sorted(scores), dtype=np.float64)
        intervals = [scores[budget].interval for budget in sorted(scores)]
        means = [interval.mean for interval in intervals]
        # dots of one budget stand a few hundredths of an octave apart, so that no series hides another
        aside = 2 ** (0.06 * (index - (len(series) - 1) / 2))
        for at, budget in zip(x, sorted(scores), strict=True):
            draws = scores[budget].scores
            axes.plot([at * aside] * len(draws), draws, marker, color=color, alpha=0.35, ms=3.5, mew=0)
        low = [mean if i.low is None else i.low for i, mean in zip(intervals, means, strict=True)]
        high = [mean if i.high is None else i.high for i, mean in zip(intervals, means, strict=True)]
        axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
        axes.plot(x, means, "-" + marker, color=color, lw=1.8, ms=6, mec="white", mew=0.8, label=name, zorder=3)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    # a band at few draws may be far wider than the scores; the scores decide what is shown
    every = [score for scores in series.values() for point in scores.values() for score in point.scores]
    if every:
        margin = 0.12 * (max(every) - min(every)) or 0.05
        axes.set_ylim(min(every) - margin, max(every) + margin)
    axes.set_xlabel("labels per class")
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, wrap=True)
    _legend(figure, axes)
    save_figure(figure, path)


def labels_saved(path: Path, found: Sequence[LabelsSaved], title: str) -> None:
    """How many times the labels scratch needs, over our labels per class: the factor, and its interval as a band.

    An end that is beyond scratch's budgets runs out of the figure; a factor that is a bound only is an arrow.
    """
    known = [one for one in found if one.factor is not None]
    figure, axes = new_figure(7.5, 3.6)
    every = [value for one in known for value in (one.factor, one.low, one.high, 1.0) if value]
    lowest, highest = min(every, default=1.0) / 1.5, max(every, default=1.0) * 1.5
    x = [one.per_class for one in known]
    low = [lowest if one.low is None else one.low for one in known]
    high = [highest if one.high is None else one.high for one in known]
    axes.fill_between(x, low, high, color=COLORS[0], alpha=0.13, lw=0)
    axes.vlines(x, low, high, color=COLORS[0], alpha=0.5, lw=1.2)
    axes.plot(x, [one.factor or 1.0 for one in known], "-", color=COLORS[0], lw=1.8)
    for one in known:
        assert one.factor is not None
        marker = {"at least": "^", "at most": "v", None: "o"}[one.bound]
        axes.plot([one.per_class], [one.factor], marker, color=COLORS[0], ms=7, mec="white", mew=0.8, zorder=3)
    axes.axhline(1, color=INK, lw=1, ls="--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_ylim(lowest, highest)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(x, [f"{budget:,}" for budget in x])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("labels per class of the pretrained network")
    axes.set_ylabel("scratch needs so many\ntimes the labels")
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, wrap=True)
    save_figure(figure, path)


def confusion(path: Path, matrix: ArrayLike, classes: Sequence[str]) -> None:
    """Confusion matrix, colored by share of the true class, with counts where they fit."""
    counts = np.asarray(matrix, dtype=np.int64)
    size = len(classes)
    names = [_short(name, 24) for name in class_captions(classes)]
    side = min(14.0, max(3.6, 0.46 * size + 1.0))
    longest = 0.075 * max(map(len, names), default=0)
    figure, axes = new_figure(side + longest + 1.2, side + longest + 0.4)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    fits = size <= 25
    for row, column in np.ndindex(size, size):
        if fits and counts[row, column]:
            color = "white" if shares[row, column] > 0.55 else INK
            text = _compact(int(counts[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    step = max(1, math.ceil(size / 60))  # above 60 classes, every second or third name
    ticks = range(0, size, step)
    axes.set_xticks(ticks, [names[k] for k in ticks], rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(ticks, [names[k] for k in ticks], fontsize=8)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontfamily=families(label.get_text()), parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"Confusion, n = {int(counts.sum()):,}", loc="left", fontsize=12, fontweight="bold", color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.03)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.outline.set_visible(False)
    save_figure(figure, path)


def history(path: Path, metrics: Sequence[Mapping[str, float]], chance: Mapping[str, float] | None = None) -> None:
    """One small panel a metric over epochs; metrics that share all but `train_` or `val_` share a panel.

    `chance` is the value of a metric where nothing has been learned, a dashed line.
    """
    guessed = chance or {}
    at = [float(row.get("epoch", index + 1)) for index, row in enumerate(metrics)]
    names = list(dict.fromkeys(name for row in metrics for name in row if name != "epoch"))
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(_stem(name), []).append(name)
    columns = min(3, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    width, height = 4.0 * columns, 2.7 * rows
    figure = Figure(figsize=(width, height))
    for place, (panel, members) in enumerate(panels.items()):
        across, down = place % columns, rows - 1 - place // columns
        # a place in inches: a layout that measures its words takes as long as a short training
        axes = figure.add_axes(((4.0 * across + 0.7) / width, (2.7 * down + 0.5) / height, 3.1 / width, 1.8 / height))
        _plain(axes)
        for index, name in enumerate(members):
            known = [(x, float(row[name])) for x, row in zip(at, metrics, strict=True) if name in row]
            marker = "o" if len(known) < len(at) or len(at) == 1 else ""  # what is measured now and then
            axes.plot(
                [x for x, _ in known],
                [y for _, y in known],
                marker=marker,
                color=COLORS[index % len(COLORS)],
                lw=1.6,
                label=name,
            )
        if panel in guessed:
            axes.axhline(guessed[panel], color=INK, lw=1, ls="--", label="chance")
        axes.set_title(panel.replace("_", " "), loc="left", fontsize=10, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y", color=FAINT, lw=0.8)
        if len(members) > 1 or panel in guessed:
            axes.legend(frameon=False, fontsize=8)
        if place >= len(panels) - columns:
            axes.set_xlabel("epoch", fontsize=9)
    save_figure(figure, path, measure=False)


def augmentations(path: Path, images: ArrayLike, columns: int | None = None) -> None:
    """Contact sheet, pixel by pixel. (N, S, S, C) in [0, 1]; one, three or, of others, the first channel."""
    tiles = np.clip(np.nan_to_num(np.asarray(images, dtype=np.float64)), 0, 1)
    assert tiles.ndim == 4, f"expected (N, S, S, C), found {tiles.shape}"
    count, height, width, channels = tiles.shape
    if channels != 3:
        tiles = np.repeat(tiles[..., :1], 3, axis=-1)
    enlarged = max(1, round(96 / max(height, width)))  # small images by whole factors, so that pixels stay pixels
    tiles = tiles.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    gap = 4  # pixels
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / max(1, columns))
    high, wide = tiles.shape[1:3]
    sheet = np.ones((rows * (high + gap) + gap, columns * (wide + gap) + gap, 3))
    for index, tile in enumerate(tiles):
        top, left = (
            position * (side + gap) + gap for position, side in zip(divmod(index, columns), (high, wide), strict=True)
        )
        sheet[top : top + high, left : left + wide] = tile
    _write_pixels(path, sheet)


def rows_of_pictures(path: Path, pictures: ArrayLike) -> None:
    """Rows of pictures, such as an image, what was hidden of it, and what came back. (n, m, S, S, C) in [0, 1]."""
    tiles = np.asarray(pictures, dtype=np.float64)
    assert tiles.ndim == 5, f"expected (n, m, S, S, C), found {tiles.shape}"
    augmentations(path, tiles.reshape(-1, *tiles.shape[2:]), columns=tiles.shape[1])


def _write_pixels(path: Path, sheet: NDArray[np.float64]) -> None:
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, sheet)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, with axes in our style."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        long = max(map(len, names)) > 28 or len(names) > 4
        columns = 1 if max(map(len, names)) > 48 else 2 if long else len(names)
        figure.legend(
            handles,
            [_short(name, 90) for name in names],
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=9,
        )


def _stem(name: str) -> str:
    for word in ("train", "val", "validation", "test"):
        for mark in "_/. ":
            if name.startswith(word + mark):
                return name.removeprefix(word + mark)
    return name


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _compact(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def save_figure(figure: Figure, path: Path, measure: bool = True) -> None:
    """Write a figure; `measure` fits the page to what is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with runs.draft(path) as draft:
        box, kind = "tight" if measure else None, path.suffix[1:] or "png"
        figure.savefig(draft, dpi=DPI, facecolor="white", bbox_inches=box, pad_inches=0.15, format=kind)
