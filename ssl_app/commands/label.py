"""Write the clusters that a self-labeling run gives to images: a table of path, cluster, confidence and margin.

The table lies in the run, where `ssl-app clusters` shows it, and is what `--labels` of the other verbs takes.
"""

import logging
import time
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

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app label pretrain-20261121-101500
ssl-app label my-sela --data new-scans/ --output new-scans.parquet
"""
LABELS, ABOUT = "labels.csv", "labels.json"
KINDS = (".csv", ".parquet")
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
    import torch

    from ssl_app.clustering.agreement import agree
    from ssl_app.data.loading import ImageRows
    from ssl_app.data.opened import describe, open_images
    from ssl_app.data.sources.base import UNUSED, Columns
    from ssl_app.data.spec import DataSpec, PixelSpec
    from ssl_app.pretraining.labeler import load_labeler
    from ssl_app.training.hardware import choose
    from ssl_app.training.inference import map_images

    started = time.monotonic()
    runs.check_output(settings.output, KINDS)
    folder = runs.find_run(settings.out, settings.run)
    labeler = load_labeler(folder)
    meta, theirs = labeler.meta, labeler.meta["settings"]
    same = settings.data is None
    data = settings.data or theirs["data"] or DIGITS
    columns = Columns(
        settings.label or (theirs["label"] if same else None),
        theirs["group"] if same else UNUSED,
        UNUSED,
        theirs.get("axis"),
        *names_of((theirs if same else {}) | _changed(settings)),
    )
    unreadable = max(settings.max_unreadable, theirs["max_unreadable"] if same else 0)
    hardware = choose(settings.device, theirs.get("precision", "auto"), settings.threads)
    largest = max(settings.max_image_mb, theirs.get("max_image_mb", MAX_IMAGE_MB) if same else 0)
    spec = DataSpec(data, cache_of(settings.out), columns, max_unreadable=unreadable, max_image_mb=largest)
    size = meta["image_size"]
    scaling = labeler.scaling
    pixels = PixelSpec(size, meta["channels"], scaling.intensity, meta["pack_side"], scaling.nodata, scaling.fit)
    dataset = open_images(spec, pixels)
    describe(dataset)
    labeler.scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)

    def assign(images: torch.Tensor) -> torch.Tensor:
        best, places = labeler.log_clusters(images).float().exp().topk(2, 2)  # (B, T, 2)
        return torch.stack([places[..., 0].float(), best[..., 0], best[..., 0] - best[..., 1]], 2)  # (B, T, 3)

    rows = ImageRows(dataset.images, np.arange(len(dataset.keys)), labeler.scaling, size)
    found = map_images(labeler.task, assign, rows, hardware).numpy()  # (N, T, 3)
    path = settings.output or folder / LABELS
    clusters = [labeler.clusters] * found.shape[1]
    _write(path, dataset.keys, found)
    about = {
        "data": {
            "data": data,
            "label": columns.label,
            "group": columns.group,
            "split": columns.split,
            "axis": columns.axis,
            "omit": columns.omit,
            "unlabeled": columns.unlabeled,
            "one_spelling": columns.one_spelling,
        }
        | {"max_unreadable": unreadable, "max_image_mb": largest},
        "method": meta["method"],
        "clusters": clusters,
        "n": len(dataset.keys),
    }
    if settings.output is None:
        runs.write_json(folder / ABOUT, about)
    first = found[:, 0, 0].astype(np.int64)
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
        agreement = agree(first[dataset.labeled], dataset.labels[dataset.labeled])
        more["agreement"] = config.as_json(agreement)
        logger.info(f"with the {agreement.n} labels there, first head: {agreement.sentence()}")
    if settings.output is None:
        flag = out_flag(settings.out)
        same_split = {name: theirs.get(name) for name in SPLIT}
        typed = {"labels": path, "data": data} | (same_split if same else {})
        flags = [f"--{name.replace('_', '-')} {quote(str(v))}" for name, v in typed.items() if v is not None]
        flags += [
            " ".join([config.flag(n), *([quote(v)] if v else [])]) for n, v in names_typed(about["data"]).items()
        ]
        again = f"ssl-app pretrain --method from-labels {' '.join(flags)}{flag}"
        logger.info(f"now type ssl-app clusters {folder.name}{flag}, or {again}")
    return Result("label", folder, time.monotonic() - started, config.as_json(settings), more)


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
