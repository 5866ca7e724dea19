"""The cluster browser: one offline page beside pictures of its images, to look at clusters and to name them.

The page holds the data of all images, sheets their thumbnails, and a file each the pictures that a click shows.
The members of a cluster come most confident first, in each head by its own confidence. Sheets follow the first head
shown: every image is on one, and a further head has one sheet a cluster, of its first members, for the page to open
quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.clustering import agreement
from ssl_app.data.images import Unreadable
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.reduction import squared
from ssl_app.data.sources.base import Source
from ssl_app.data.store import allocate
from ssl_app.report import originals, page

PAGE, SHEETS, PICTURES = "clusters.html", "sheets", "pictures"
DIGITS = 4  # of a confidence
MOST_PICTURES = 10_000  # files; of larger sets the surest and the least sure of each cluster have one
IN_A_FOLDER = 1000  # pictures
TRIED = 8  # images whose sides tell how large thumbnails can be


@dataclass(frozen=True, eq=False)
class Labeling:
    """N images with their clusters in T heads, and what the page says of them."""

    run: str  # its name
    identity: str  # under which the browser keeps the names: they outlive a move of the run
    data: str  # as typed
    paths: Sequence[str]  # (N,)
    rows: NDArray[np.int64]  # (N,) place in the source
    confidence: NDArray[np.float64]  # (T, N) in [0, 1]
    heads: tuple[int, ...]  # (T,) their numbers, from 1
    sizes: tuple[int, ...]  # (T,) clusters that a head can give
    clusters: NDArray[np.int64]  # (T, N)
    classes: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,) place in classes, -1 where the data know none
    channels: int = 1  # that the network sees

    def most_confident_first(self) -> "Labeling":
        """The same in the order of the page, that of its first head; equals stay as they were."""
        order = np.argsort(-self.confidence[0], kind="stable")
        return replace(
            self,
            paths=[self.paths[i] for i in order],
            rows=self.rows[order],
            confidence=self.confidence[:, order],
            clusters=self.clusters[:, order],
            labels=self.labels[order],
        )


@dataclass(frozen=True)
class Sizes:
    """How large the pictures of a page are, and how many of a cluster are seen first."""

    thumb: int  # side in pixels, at most
    enlarged: int  # longest side in pixels of what a click shows; 0: the thumbnail
    per_sheet: int


@dataclass(frozen=True)
class Written:
    """A page, and what lies beside it."""

    page: Path
    thumb: int  # side in pixels
    pictures: int  # files of what a click shows
    left_out: int  # images without one, since the set is large
    unreadable: int  # images whose files cannot be read any more: they are black
    bytes: int


def write_page(folder: Path, labeling: Labeling, source: Source, pixels: PixelScaling, sizes: Sizes) -> Written:
    """Write the page and its pictures into a folder, new or in place of the old one.

    Each image is read once from its file. Memory is that of the data and of a few sheets; the thumbnails lie on the
    disk meanwhile. Raises OSError.
    """
    shown = labeling.most_confident_first()
    columns = int(np.ceil(np.sqrt(sizes.per_sheet)))
    with runs.draft(folder) as draft:
        draft.mkdir()
        thumbs, enlarged, unreadable = _pictures(draft, shown, source, pixels, sizes)
        for head, clusters, confidence in zip(shown.heads, shown.clusters, shown.confidence, strict=True):
            (draft / SHEETS / str(head)).mkdir(parents=True)
            for cluster, members in enumerate(_members(clusters, confidence)):
                most = len(members) if head == shown.heads[0] else sizes.per_sheet
                for number, start in enumerate(range(0, min(len(members), most), sizes.per_sheet)):
                    sheet = _sheet(thumbs[members[start : start + sizes.per_sheet]], columns)
                    (draft / SHEETS / str(head) / f"{cluster}-{number}.jpg").write_bytes(sheet)
        side = thumbs.shape[1]
        del thumbs
        (draft / "thumbs.npy").unlink()
        layout = {"side": side, "perSheet": sizes.per_sheet, "columns": columns, "perFolder": IN_A_FOLDER}
        flags = {"enlarged": "".join("1" if one else "0" for one in enlarged)}
        (draft / PAGE).write_text(page.filled(PAGE, content(shown) | layout | flags), encoding="utf-8")
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    left_out = int((~_chosen(shown, sizes)).sum()) if sizes.enlarged else 0
    return Written(folder / PAGE, side, int(enlarged.sum()), left_out, unreadable, size)


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


def _pictures(
    draft: Path, shown: Labeling, source: Source, pixels: PixelScaling, sizes: Sizes
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """Thumbnails on the disk, (N, s, s, 1 or 3), s at most their size; which images have a picture; the unreadable.

    A square image that is no larger than its thumbnail needs no picture of its own.
    """
    wanted = _chosen(shown, sizes)
    channels = 3 if shown.channels == 3 else 1
    side = _thumb_side(shown, source, pixels, sizes.thumb)
    longest = max(sizes.enlarged, 2 * side)
    thumbs = allocate(draft / "thumbs.npy", np.uint8, (len(shown.rows), side, side, channels))

    def work(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes | None]:
        image = originals.in_channels(image, channels)
        more = image.shape[:2] != (side, side)
        return squared(image, side), page.jpeg(image) if more else None

    enlarged, unreadable = np.zeros(len(shown.rows), dtype=np.bool_), 0
    for place, found in enumerate(originals.each(source, shown.rows.tolist(), pixels, longest, work)):
        if isinstance(found, Unreadable):
            unreadable += 1
            continue
        thumbs[place], picture = found
        if picture is not None and wanted[place]:
            path = draft / PICTURES / str(place // IN_A_FOLDER) / f"{place}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            enlarged[place] = True
    return thumbs, enlarged, unreadable


def _chosen(shown: Labeling, sizes: Sizes) -> NDArray[np.bool_]:
    """Which images get a picture: all, or of a large set the first and the last of each cluster. -> (N,)."""
    count = len(shown.rows)
    if not sizes.enlarged or count <= MOST_PICTURES:
        return np.full(count, bool(sizes.enlarged))
    groups = [members for members in _members(shown.clusters[0], shown.confidence[0]) if len(members)]
    each = max(1, min(sizes.per_sheet, MOST_PICTURES // (2 * len(groups))))
    chosen = np.zeros(count, dtype=np.bool_)
    for members in groups:
        chosen[members[:each]] = chosen[members[-each:]] = True
    return chosen


def _thumb_side(shown: Labeling, source: Source, pixels: PixelScaling, most: int) -> int:
    """Side of the thumbnails: no larger than the images, by a few of them."""
    some = shown.rows[:: max(1, len(shown.rows) // TRIED)].tolist()
    sides = [
        min(image.shape[:2])
        for image in originals.each(source, some, pixels, 2**16, lambda image: image)
        if not isinstance(image, Unreadable)
    ]
    return min(most, max(sides, default=most))


def _sheet(thumbs: NDArray[np.uint8], columns: int) -> bytes:
    """A JPEG of thumbnails row by row, the last row filled up with white. (n, s, s, 1 or 3)."""
    count, side, _, channels = thumbs.shape
    lines = -(-count // columns)
    cells = np.full((lines * columns, side, side, channels), 255, np.uint8)
    cells[:count] = thumbs
    sheet = cells.reshape(lines, columns, side, side, channels).swapaxes(1, 2)
    return page.jpeg(sheet.reshape(lines * side, columns * side, channels))
