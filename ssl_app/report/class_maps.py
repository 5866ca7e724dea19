"""Pictures of class maps: what a teacher sees where in an image, and how often a crop's label is not the image's."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ssl_app.evaluation.crop_labels import EDGES, CropLabels
from ssl_app.report.plots import COLORS, FAINT, INK, MARKERS, new_figure, save_figure

COLUMNS = 6  # pairs of an image and its map
OTHERS = "#9A9A9A"  # of classes beyond those that have a color


@dataclass(frozen=True)
class Overlay:
    """An image (P, P, C) in [0, 1], its highest class (h, w) and its probability (h, w) at each place."""

    image: NDArray[np.float32]
    top: NDArray[np.int64]
    probability: NDArray[np.float32]
    label: str | None  # of the image


def overlays(path: Path, rows: Sequence[tuple[str, Sequence[Overlay]]], classes: Sequence[str]) -> None:
    """Images beside their maps, a heading for each group: the color is the highest class, the denser the surer."""
    every = [one for _, group in rows for one in group]
    shown = np.bincount(np.concatenate([one.top.ravel() for one in every]), minlength=len(classes))
    ranked = [int(number) for number in np.argsort(-shown, kind="stable") if shown[number]]
    colors = {number: COLORS[place] for place, number in enumerate(ranked[: len(COLORS)])}
    heights = [-(-len(group) // COLUMNS) for _, group in rows]
    figure = Figure(figsize=(2 * 1.05 * COLUMNS, 1.2 * sum(heights) + 0.35 * len(rows) + 0.5), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, height, (title, group) in zip(parts, heights, rows, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold", color=INK)
        grid = part.subplots(height, 2 * COLUMNS, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for place, one in enumerate(group):
            line, column = divmod(place, COLUMNS)
            _draw(grid[line, 2 * column], grid[line, 2 * column + 1], one, colors)
    patches = [Patch(color=color, label=classes[number]) for number, color in colors.items()]
    if len(ranked) > len(colors):
        patches.append(Patch(color=OTHERS, label=f"{len(ranked) - len(colors)} other classes"))
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6), frameon=False, fontsize=8)
    save_figure(figure, path)


def _draw(left: Axes, right: Axes, one: Overlay, colors: Mapping[int, str]) -> None:
    """The image, and its map over it."""
    picture = one.image if one.image.shape[-1] == 3 else one.image[..., :1].repeat(3, -1)
    height, width = picture.shape[:2]
    left.imshow(picture, vmin=0, vmax=1)
    right.imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=1)
    tint = np.array([[to_rgb(colors.get(int(number), OTHERS)) for number in row] for row in one.top])
    veil = np.concatenate([tint, 0.75 * one.probability[..., None]], axis=-1)
    right.imshow(veil, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    if one.label is not None:
        right.set_title(one.label, fontsize=7, color=INK, pad=2)


def crop_labels(path: Path, found: CropLabels, name: str) -> None:
    """Shares of crops with another label than their image's, and than the whole image's map, over the crop's area."""
    figure, axes = new_figure(7.0, 3.8)
    centers = [100 * (low + high) / 2 for low, high in itertools.pairwise(EDGES)]
    axes.axvspan(50, 100, color=FAINT, alpha=0.5, lw=0, label="crops that are trained on")
    axes.axhline(100 * found.whole, color=INK, lw=1, ls="--", label="whole images, not the image's label")
    highest = 100 * found.whole
    series = (
        ("crops, not the image's label", found.by_area),
        ("crops, not what the whole shows", found.moved_by_area),
    )
    for place, (label, shares) in enumerate(series):
        known = [(x, 100 * y) for x, y in zip(centers, shares, strict=True) if y is not None]
        x, y = [at for at, _ in known], [share for _, share in known]
        axes.plot(x, y, color=COLORS[place], marker=MARKERS[place], lw=1.8, mec="white", label=label)
        highest = max([highest, *y])
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.1 * max(highest, 1))
    axes.set_xlabel("area of the crop, % of the image")
    axes.set_ylabel("pooled labels of crops, %")
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_title(f"{name}: labels of random crops", loc="left", fontsize=12, fontweight="bold", color=INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)
