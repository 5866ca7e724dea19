"""Write the clusters that a self-labeling run gives to images: a table of path, cluster, confidence and margin.

The table lies in the run, where `ssl-app clusters` shows it, and is what `--labels` of the other verbs takes.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs, tables
from ssl_app.commands.base import DIGITS, cache_of, names_of, names_typed, out_flag
from ssl_app.config import option
from ssl_app.runs import Result
from ssl_app.settings import MAX_IMAGE_MB, FileSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.data.dataset import Dataset
    from ssl_app.pretraining.labeler import Labeler
    from ssl_app.training.hardware import Hardware

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app label pretrain-20261121-101500
ssl-app label my-sela --data new-scans/ --output new-scans.parquet
"""
LABELS, ABOUT = "labels.csv", "labels.json"
KINDS = (".csv", ".parquet")
COLUMNS = ("label", "group", "split", "axis", "omit", "unlabeled", "one_spelling")
SPLIT = ("label", "group", "split", "axis", "split_seed", "test_fraction")  # what names the same images and test part


@dataclass(frozen=True)
class Settings(FileSettings):
    """Settings of a labeling."""

    run: str = option("", "finished pretraining by sela or deepcluster: its name, or its folder", argument=True)
    data: str | None = option(None, "images to label; default: those of the run, test part and all", metavar="D")
    label: str | None = option(None, "column of known labels, to compare the clusters with", metavar="COLUMN")
    output: Path | None = option(
        None, "table to write, .csv or .parquet, not there yet; default: labels.csv in the run", metavar="FILE"
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")
    max_unreadable: int = option(0, "unreadable images to allow; they are listed and left out", at_least=0)
    max_image_mb: int = option(
        MAX_IMAGE_MB, "largest decoded image in megabytes; larger ones are unreadable", at_least=1
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", metavar="NAME")
    threads: int | None = option(None, "CPU threads", at_least=1)


def run(settings: Settings) -> Result:
    """Label; where the images carry labels, say how far the clusters agree with them."""
    import numpy as np

    from ssl_app.clustering.agreement import agree
    from ssl_app.pretraining.labeler import load_labeler
    from ssl_app.training.hardware import choose

    started = time.monotonic()
    runs.check_output(settings.output, KINDS)
    folder = runs.find_run(settings.out, settings.run)
    labeler = load_labeler(folder)
    theirs = labeler.meta["settings"]
    hardware = choose(settings.device, theirs.get("precision", "auto"), settings.threads)
    data = _data(settings, theirs)
    dataset = _images(data, settings.out, labeler)
    found = _clusters(labeler, dataset, hardware)
    clusters = [labeler.clusters] * found.shape[1]
    path = settings.output or folder / LABELS
    _write(path, dataset.keys, found)
    if settings.output is None:
        about = {"data": data, "method": labeler.meta["method"], "clusters": clusters, "n": len(dataset.keys)}
        runs.write_json(folder / ABOUT, about)
    more: dict[str, Any] = {
        "labels": str(path),
        "n": len(dataset.keys),
        "clusters": clusters,
        "clusters_used": [len(np.unique(found[:, head, 0])) for head in range(found.shape[1])],
        "unreadable": list(dataset.unreadable),
    }
    logger.info(
        f"{len(dataset.keys)} images in {more['clusters_used'][0]} of {clusters[0]} clusters, {len(clusters)} heads: "
        f"{path}"
    )
    if dataset.labeled.any():
        first = found[:, 0, 0].astype(np.int64)
        agreement = agree(first[dataset.labeled], dataset.labels[dataset.labeled])
        more["agreement"] = config.as_json(agreement)
        logger.info(f"with the {agreement.n} labels there, first head: {agreement.sentence()}")
    if settings.output is None:
        same = {name: theirs.get(name) for name in SPLIT} if settings.data is None else {}
        logger.info(_next(folder, path, data | same, out_flag(settings.out)))
    return Result("label", folder, time.monotonic() - started, config.as_json(settings), more)


def _data(settings: Settings, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What names the images: as typed, and where those of the run are meant, as its settings say."""
    from ssl_app.data.sources.base import UNUSED

    same = settings.data is None
    omit, unlabeled, one_spelling = names_of((dict(theirs) if same else {}) | _changed(settings))
    return {
        "data": settings.data or theirs["data"] or DIGITS,
        "label": settings.label or (theirs["label"] if same else None),
        "group": theirs["group"] if same else UNUSED,
        "split": UNUSED,
        "axis": theirs.get("axis"),
        "omit": omit,
        "unlabeled": unlabeled,
        "one_spelling": one_spelling,
        "max_unreadable": max(settings.max_unreadable, theirs["max_unreadable"] if same else 0),
        "max_image_mb": max(settings.max_image_mb, theirs.get("max_image_mb", MAX_IMAGE_MB) if same else 0),
    }


def _images(data: Mapping[str, Any], out: Path, labeler: "Labeler") -> "Dataset":
    """The images in the run's size and scaling."""
    from ssl_app.data.opened import describe, open_images
    from ssl_app.data.sources.base import Columns
    from ssl_app.data.spec import DataSpec, PixelSpec

    columns = Columns(**{name: data[name] for name in COLUMNS})
    limits = {name: data[name] for name in ("max_unreadable", "max_image_mb")}
    meta, scaling = labeler.meta, labeler.scaling
    size, channels, side = meta["image_size"], meta["channels"], meta["pack_side"]
    pixels = PixelSpec(size, channels, scaling.intensity, side, scaling.nodata, scaling.fit)
    dataset = open_images(DataSpec(data["data"], cache_of(out), columns, **limits), pixels)
    describe(dataset)
    scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
    return dataset


def _clusters(labeler: "Labeler", dataset: "Dataset", hardware: "Hardware") -> "NDArray[np.float32]":
    """(N, T, 3): the likeliest cluster of each head, its probability, and how far the next one is behind."""
    import numpy as np
    import torch

    from ssl_app.data.loading import ImageRows
    from ssl_app.training.inference import map_images

    def assign(images: torch.Tensor) -> torch.Tensor:
        best, places = labeler.log_clusters(images).float().exp().topk(2, 2)  # (B, T, 2)
        return torch.stack([places[..., 0].float(), best[..., 0], best[..., 0] - best[..., 1]], 2)  # (B, T, 3)

    rows = ImageRows(dataset.images, np.arange(len(dataset.keys)), labeler.scaling, labeler.meta["image_size"])
    found: NDArray[np.float32] = map_images(labeler.task, assign, rows, hardware).numpy()
    return found


def _next(folder: Path, path: Path, data: Mapping[str, Any], out: str) -> str:
    """What to type now, with what names the same images and their split."""
    names = ("data", *(SPLIT if "split_seed" in data else ()))
    typed = {"labels": path} | {name: data[name] for name in names if data[name] is not None}
    flags = [f"{config.flag(name)} {quote(str(value))}" for name, value in typed.items()]
    flags += [" ".join([config.flag(name), *([quote(v)] if v else [])]) for name, v in names_typed(data).items()]
    again = f"ssl-app pretrain --method from-labels {' '.join(flags)}{out}"
    return f"now type ssl-app clusters {folder.name}{out}, or {again}"


def _changed(settings: Settings) -> dict[str, Any]:
    """What was typed of files and classes."""
    usual = vars(FileSettings())
    return {name: getattr(settings, name) for name in usual if getattr(settings, name) != usual[name]}


def _write(path: Path, keys: tuple[str, ...], found: "NDArray[np.float32]") -> None:
    """path, and cluster, confidence and margin of the first head and then, by number, of the others."""
    columns: dict[str, Any] = {"path": list(keys)}
    for head in range(found.shape[1]):
        end = f"_{head + 1}" if head else ""
        columns[f"cluster{end}"] = found[:, head, 0].astype(int)
        columns[f"confidence{end}"] = found[:, head, 1].round(4)
        columns[f"margin{end}"] = found[:, head, 2].round(4)
    if path.suffix != ".parquet":
        tables.write(path, list(columns), zip(*columns.values(), strict=True))
        return
    import io

    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, index=False)
    runs.write_bytes(path, buffer.getvalue())
