"""The cluster browser: one offline page beside sheets of thumbnails, to look at clusters and to name them.

The page holds the data of all images, the sheets their pictures. The members of a cluster come most confident
first, in each head by its own confidence. Sheets follow the first head shown: every image is on one, and a further
head has one sheet a cluster, of its first members, for the page to open quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.clustering import agreement
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.store import allocate
from ssl_app.report import page

PAGE, SHEETS = "clusters.html", "sheets"
DIGITS = 4  # of a confidence
CHUNK = 256  # images reduced at a time


@dataclass(frozen=True, eq=False)
class Labeling:
    """N images with their clusters in T heads, and what the page says of them."""

    run: str  # its name
    identity: str  # under which the browser keeps the names: they outlive a move of the run
    data: str  # as typed
    paths: Sequence[str]  # (N,)
    rows: NDArray[np.int64]  # (N,) place among the packed images
    confidence: NDArray[np.float64]  # (T, N) in [0, 1]
    heads: tuple[int, ...]  # (T,) their numbers, from 1
    sizes: tuple[int, ...]  # (T,) clusters that a head can give
    clusters: NDArray[np.int64]  # (T, N)
    classes: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,) place in classes, -1 where the data know none

    def most_confident_first(self) -> "Labeling":
        """The same in the order of the page, that of its first head; equals stay as they were."""
        order = np.argsort(-self.confidence[0], kind="stable")
        return Labeling(
            self.run,
            self.identity,
            self.data,
            [self.paths[i] for i in order],
            self.rows[order],
            self.confidence[:, order],
            self.heads,
            self.sizes,
            self.clusters[:, order],
            self.classes,
            self.labels[order],
        )


def write_page(
    folder: Path, labeling: Labeling, images: NDArray[Any], pixels: PixelScaling, *, side: int, per_sheet: int
) -> Path:
    """Write the page and its sheets into a folder, new or in place of the old one, and give the page's path.

    images are packed, (M, P, P, C); thumbnails have `side` pixels and lie `per_sheet` on a sheet. Memory is that
    of the data and of a few sheets; the thumbnails lie on the disk meanwhile. Raises OSError.
    """
    shown = labeling.most_confident_first()
    columns = int(np.ceil(np.sqrt(per_sheet)))
    with runs.draft(folder) as draft:
        draft.mkdir()
        thumbs = _thumbs(draft / "thumbs.npy", shown.rows, images, pixels, side)
        for head, clusters, confidence in zip(shown.heads, shown.clusters, shown.confidence, strict=True):
            (draft / SHEETS / str(head)).mkdir(parents=True)
            for cluster, members in enumerate(_members(clusters, confidence)):
                most = len(members) if head == shown.heads[0] else per_sheet
                for number, start in enumerate(range(0, min(len(members), most), per_sheet)):
                    sheet = _sheet(thumbs[members[start : start + per_sheet]], columns)
                    (draft / SHEETS / str(head) / f"{cluster}-{number}.jpg").write_bytes(sheet)
        del thumbs
        (draft / "thumbs.npy").unlink()
        layout = {"side": side, "perSheet": per_sheet, "columns": columns}
        (draft / PAGE).write_text(page.filled(PAGE, content(shown) | layout), encoding="utf-8")
    return folder / PAGE


def content(shown: Labeling) -> dict[str, Any]:
    """What the page knows, as plain JSON values; images in the order given."""
    return {
        "run": shown.run,
        "identity": shown.identity,
        "data": shown.data,
        "paths": list(shown.paths),
        "classes": list(shown.classes),
        "labels": shown.labels.tolist() if len(shown.classes) else None,
        "heads": [
            {
                "number": number,
                "size": size,
                "clusterOf": clusters.tolist(),
                "confidence": confidence.round(DIGITS).tolist(),
                "clusters": facts(shown, clusters, confidence),
                "agreement": agreed(shown, clusters),
            }
            for number, size, clusters, confidence in zip(
                shown.heads, shown.sizes, shown.clusters, shown.confidence, strict=True
            )
        ],
    }


def agreed(shown: Labeling, clusters: NDArray[np.int64]) -> str | None:
    """How far the clusters agree with the labels there, against chance; None where there are none."""
    known = shown.labels >= 0
    if not known.any():
        return None
    return f"{known.sum():,} labels: {agreement.agree(clusters[known], shown.labels[known]).sentence()}"


def facts(shown: Labeling, clusters: NDArray[np.int64], confidence: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Of every cluster of a head with images: number, size, mean confidence, and purity by the labels there are."""
    numbers, place, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    means = np.bincount(place, confidence) / sizes
    found: list[dict[str, Any]] = [
        {"number": int(number), "size": int(size), "confidence": round(float(mean), 4)}
        for number, size, mean in zip(numbers, sizes, means, strict=True)
    ]
    known = shown.labels >= 0
    if known.any():
        by_number = {one["number"]: one for one in found}
        pure = agreement.purity(clusters[known], shown.labels[known])
        for number, count, share, label in zip(pure.clusters, pure.sizes, pure.each, pure.commonest, strict=True):
            more = {"labeled": int(count), "purity": round(float(share), 4), "majority": int(label)}
            by_number[int(number)].update(more)
    return found


def _members(clusters: NDArray[np.int64], confidence: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Images of cluster 0, 1, ..., most confident first, as the page sorts them; the last is the last with any."""
    order = np.lexsort((-confidence.round(DIGITS), clusters))  # stable: equals are in the order of the page
    return np.split(order, np.cumsum(np.bincount(clusters))[:-1])


def _thumbs(
    path: Path, rows: NDArray[np.int64], images: NDArray[Any], pixels: PixelScaling, side: int
) -> NDArray[np.uint8]:
    """Thumbnails of rows of packed images, on the disk. (M, P, P, C) -> (N, side, side, 1 or 3).

    Of other numbers of channels the first is shown. They are read in the order in which they lie.
    """
    shown = 3 if images.shape[-1] == 3 else 1
    thumbs = allocate(path, np.uint8, (len(rows), side, side, shown))
    how = cv2.INTER_AREA if images.shape[1] > side else cv2.INTER_LINEAR
    for places in np.array_split(np.argsort(rows), -(-len(rows) // CHUNK)):
        # made small before it is scaled: most pixels of a large image then need no arithmetic
        small = [cv2.resize(images[row][..., :shown], (side, side), interpolation=how) for row in rows[places]]
        values = pixels.scale(np.stack(small).reshape(-1, side, side, shown))
        thumbs[places] = page.eight_bits(values)
    return thumbs


def _sheet(thumbs: NDArray[np.uint8], columns: int) -> bytes:
    """A JPEG of thumbnails row by row, the last row filled up with white. (n, s, s, 1 or 3)."""
    count, side, _, channels = thumbs.shape
    lines = -(-count // columns)
    cells = np.full((lines * columns, side, side, channels), 255, np.uint8)
    cells[:count] = thumbs
    sheet = cells.reshape(lines, columns, side, side, channels).swapaxes(1, 2)
    return page.jpeg(sheet.reshape(lines * side, columns * side, channels))
