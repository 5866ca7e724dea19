"""Make an offline page of a run's clusters, to look at them, name them, and take the names away as a table.

It shows what `ssl-app label` wrote. The page opens in any browser without a server and asks no network. Clusters are
named there, and images that do not belong to theirs are moved out of it. The browser keeps this until it is
downloaded, as CSV of path, cluster and label, one row an image, for --labels of the other verbs.
"""

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, locks, runs, tables
from ssl_app.commands.base import cache_of, names_of
from ssl_app.commands.label import ABOUT, LABELS
from ssl_app.config import option
from ssl_app.errors import DataError, RunError, SettingsError
from ssl_app.runs import Result
from ssl_app.settings import MAX_IMAGE_MB

if TYPE_CHECKING:
    from ssl_app.data.dataset import Dataset
    from ssl_app.data.intensity import PixelScaling
    from ssl_app.data.sources.base import Source

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app clusters pretrain-20261121-101500
ssl-app clusters my-sela --head 2 --enlarge 1024
ssl-app clusters my-sela --data /mnt/elsewhere/scans/
"""
FOLDER = "clusters"  # in the run
KEPT = ("cluster", "confidence")  # columns of labels.csv that each head has, with its number from the second on


@dataclass(frozen=True)
class Settings:
    """Settings of a cluster page."""

    run: str = option("", "run that ssl-app label has labeled: its name, or its folder", argument=True)
    data: str | None = option(
        None, "where the labeled images lie now; default: where ssl-app label read them", metavar="D"
    )
    head: int | None = option(
        None, "only this head, from 1; default: all, to choose from in the page", at_least=1, metavar="N"
    )
    per_cluster: int = option(
        24, "images of a cluster shown at first, and lying on one sheet", at_least=1, at_most=400
    )
    thumb: int = option(160, "side of a thumbnail in pixels, at most that of the images", at_least=16, at_most=256)
    enlarge: int = option(
        512,
        "longest side in pixels of the picture that a click shows, from the image's file; 0: its thumbnail",
        at_least=0,
        at_most=2048,
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Make the page, and say where it lies."""
    import numpy as np

    from ssl_app.report.clusters import Labeling, Sizes, write_page

    started = time.monotonic()
    folder = runs.find_run(settings.out, settings.run)
    held = _read(folder, settings.run)
    heads = _heads(settings, folder, len(held.clusters))
    dataset, pixels, source = _open(settings, folder, held)
    place = {key: row for row, key in enumerate(dataset.keys)}
    at = [i for i, path in enumerate(held.paths) if path in place]
    if not at:
        raise DataError(
            f"{LABELS} of run {folder} names none of the {len(dataset.keys)} images of {dataset.name}; its first "
            f"path is '{held.paths[0]}', theirs '{dataset.keys[0]}': type --data with the images that were labeled"
        )
    paths = [held.paths[i] for i in at]
    rows = np.array([place[path] for path in paths], dtype=np.int64)
    in_source = {key: row for row, key in enumerate(source.keys)}
    labeling = Labeling(
        run=folder.name,
        identity=str(runs.read_json(folder / runs.SETTINGS).get("started", folder.name)),
        data=dataset.name,
        paths=paths,
        rows=np.array([in_source[path] for path in paths], dtype=np.int64),
        confidence=np.array([held.confidence[head - 1] for head in heads], dtype=np.float64)[:, at],
        heads=heads,
        sizes=tuple(held.sizes[head - 1] for head in heads),
        clusters=np.array([held.clusters[head - 1] for head in heads], dtype=np.int64)[:, at],
        classes=dataset.classes,
        labels=np.where(dataset.labeled[rows], dataset.labels[rows], -1),
        channels=dataset.images.shape[-1],
    )
    for count, sentence in (
        (len(held.paths) - len(at), f"rows of {LABELS} are of no image of {dataset.name}, and left out"),
        (len(dataset.keys) - len(at), f"images of {dataset.name} have no cluster, and are left out"),
    ):
        if count:
            logger.info(f"note: {count} {sentence}")
    runs.clear_half_made(folder)
    sizes = Sizes(settings.thumb, settings.enlarge, settings.per_cluster)
    written = write_page(folder / FOLDER, labeling, source, pixels, sizes)
    used = [len(np.unique(clusters)) for clusters in labeling.clusters]
    more: dict[str, Any] = {
        "page": str(written.page),
        "bytes": written.bytes,
        "pictures": written.pictures,
        "n": len(at),
        "heads": list(heads),
        "clusters": list(labeling.sizes),
        "clusters_used": used,
        "unreadable": list(dataset.unreadable),
    }
    several = f", {len(heads)} heads" if len(heads) > 1 else ""
    if written.unreadable:
        logger.info(f"note: {written.unreadable} images cannot be read any more, and are black")
    if written.left_out:
        logger.info(f"note: of {written.left_out} images a click shows the thumbnail: the set is large")
    logger.info(
        f"{len(at)} images in {used[0]} of {labeling.sizes[0]} clusters{several}, {written.bytes / 1e6:.1f} MB, "
        f"thumbnails of {written.thumb} px; open this in a browser: {written.page}"
    )
    return Result("clusters", folder, time.monotonic() - started, config.as_json(settings), more)


@dataclass(frozen=True)
class _Held:
    """What `ssl-app label` wrote: M images, T heads."""

    data: dict[str, Any]  # how it opened the data
    sizes: list[int]  # (T,) clusters that a head can give
    paths: list[str]  # (M,)
    clusters: list[list[int]]  # (T, M)
    confidence: list[list[float]]  # (T, M) in [0, 1]


def _read(folder: Path, typed: str) -> _Held:
    """The labels of a finished pretraining. Raises RunError where there are none, or not as they were written."""
    from ssl_app.training.initialization import BACKBONE

    again = f"type ssl-app label {typed}"
    if not runs.finished(folder):
        locks.refuse_at_work(folder)
        raise RunError(f"run {folder} has not finished; type ssl-app pretrain --resume {typed}, or name another run")
    if not (folder / BACKBONE).is_file():
        raise RunError(f"run {folder} holds no {BACKBONE}; expected a pretraining that ssl-app label has labeled")
    for name in (LABELS, ABOUT):
        if not (folder / name).is_file():
            raise RunError(f"run {folder} has no {name}; {again} first")
    about = runs.read_json(folder / ABOUT, {"clusters": list, "data": dict})
    try:
        sizes = [int(size) for size in about["clusters"]]
        header, rows = tables.read(folder / LABELS)
        if not rows:
            raise ValueError("it lists no images")
        odd = next((number for number, row in enumerate(rows, start=2) if len(row) != len(header)), None)
        if odd is not None:
            raise ValueError(f"row {odd} has {len(rows[odd - 2])} fields, the header {len(header)}")
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        names, sure = ([name, *(f"{name}_{head}" for head in range(2, len(sizes) + 1))] for name in KEPT)
        clusters = [[int(text) for text in columns[name]] for name in names]
        held = _Held(
            data=dict(about["data"]),
            sizes=sizes,
            paths=list(columns["path"]),
            clusters=clusters,
            confidence=[[float(text) for text in columns[name]] for name in sure],
        )
    except KeyError as error:
        raise RunError(f"{LABELS} of run {folder} lacks {error}, which {ABOUT} promises; {again} again") from error
    except (ValueError, TypeError, csv.Error) as error:  # no numbers, no UTF-8, no table
        raise RunError(f"{LABELS} of run {folder} cannot be read ({error}); {again} again") from error
    for name, size, numbers in zip(names, sizes, clusters, strict=True):
        wrong = next((number for number in numbers if not 0 <= number < size), None)
        if wrong is not None:
            raise RunError(
                f"{LABELS} of run {folder} has {wrong} in column {name}; expected 0 to {size - 1}: {again} again"
            )
    doubt = next((value for values in held.confidence for value in values if not 0 <= value <= 1), None)
    if doubt is not None:
        raise RunError(f"{LABELS} of run {folder} has a confidence of {doubt}; expected 0 to 1: {again} again")
    return held


def _heads(settings: Settings, folder: Path, count: int) -> tuple[int, ...]:
    """Numbers of the heads to show. Raises SettingsError for one that the run does not have."""
    if settings.head is None:
        return tuple(range(1, count + 1))
    if settings.head > count:
        raise SettingsError(
            f"--head is {settings.head}; {LABELS} of run {folder} has {count} head{'s' * (count > 1)}: "
            f"type --head {count}, or leave it out"
        )
    return (settings.head,)


def _open(settings: Settings, folder: Path, held: _Held) -> "tuple[Dataset, PixelScaling, Source]":
    """The labeled images as the run saw them, how it scaled them, and their files.

    Raises DataError, CheckpointError.
    """
    from ssl_app import checkpoints
    from ssl_app.data.intensity import PixelScaling
    from ssl_app.data.opened import open_images
    from ssl_app.data.sources.base import UNUSED, Columns, open_source
    from ssl_app.data.spec import DataSpec, PixelSpec
    from ssl_app.training import initialization

    _, meta = checkpoints.read(folder / initialization.BACKBONE)
    scaling = PixelScaling.from_json(meta["pixels"])
    columns = Columns(held.data.get("label"), UNUSED, UNUSED, held.data.get("axis"), *names_of(held.data))
    data = settings.data or str(held.data["data"])
    try:
        source = open_source(data, columns, held.data.get("max_image_mb", MAX_IMAGE_MB))
    except DataError as error:
        if settings.data is not None or Path(data).exists():
            raise
        raise DataError(
            f"{data}, which {LABELS} of run {folder} was made from, is not there; type --data with its place now"
        ) from error
    spec = DataSpec(data, cache_of(settings.out), columns, max_unreadable=len(source.keys))  # those have no cluster
    pixels = PixelSpec(
        meta["image_size"], meta["channels"], scaling.intensity, meta["pack_side"], scaling.nodata, scaling.fit
    )
    dataset = open_images(spec, pixels, source)
    scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
    return dataset, scaling, source
