"""Nearest neighbors: the images whose features are most like those of a query, its own group left out."""

from pathlib import Path

import numpy as np

from ssl_app.errors import SettingsError
from ssl_app.evaluation.nearest import nearest
from ssl_app.report.grid import Grid, Tile
from ssl_app.report.palette import COLORS
from ssl_app.report.pictures.base import Picture, Subject

QUERIES, NEIGHBORS = 6, 7
SAME, OTHER = COLORS[0], COLORS[1]  # class; blue and orange are told apart by every kind of color vision


class NearestNeighbors(Picture):
    """Queries down; each query, and its neighbors, nearest first, across."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`nearest-neighbors.png`. Raises SettingsError where all images are of one group."""
        queries = subject.examples(QUERIES)
        found = nearest(subject.features, queries, subject.units, NEIGHBORS)
        if not any(len(rows) for rows, _ in found):
            raise SettingsError(f"all images of {subject.name} are of one {subject.group_word}")
        shown = [[query, *map(int, rows)] for query, (rows, _) in zip(queries, found, strict=True)]
        pictures = iter(subject.pictures(np.concatenate(shown)))
        tiles = []
        for row, (_, cosines) in zip(shown, found, strict=True):
            query = row[0]
            each = [Tile(next(pictures), subject.caption(query))]
            for image, cosine in zip(row[1:], cosines, strict=True):
                each.append(
                    Tile(next(pictures), f"{cosine:.3f} {subject.caption(image)}", _frame(subject, query, image))
                )
            tiles.append(each)
        heads = ["query", "nearest", *[""] * (NEIGHBORS - 1)]
        grid = Grid(f"Nearest neighbors, {subject.name}", _about(subject, shown), heads)
        return [grid.sheet(tiles, subject.tile).save(folder / "nearest-neighbors.png")]


def _frame(subject: Subject, query: int, image: int) -> str | None:
    """The color of a neighbor's frame; none where a class is not known."""
    one, other = subject.labels[query], subject.labels[image]
    return None if min(one, other) < 0 else SAME if one == other else OTHER


def _about(subject: Subject, shown: list[list[int]]) -> str:
    apart = "Exact copies are left out." if subject.groups is None else (
        f"Images of the query's own {subject.group_word}, and exact copies, are left out."
    )  # fmt: skip
    pairs = [(subject.labels[row[0]], subject.labels[image]) for row in shown for image in row[1:]]
    known = [one == other for one, other in pairs if min(one, other) >= 0]
    frames = ""
    if known:
        frames = f" Frame: blue, the query's class ({sum(known)} of these {len(known)}); orange, another."
    return f"By cosine of the pooled features, among {len(subject.keys):,} images. {apart}{frames}"
