"""Suggest which images to label next: those that stand for most others.

RUN is a pretraining, a checkpoint or a weights file; default: the newest finished pretraining in --out. By its frozen
features each training image has its nearest ones, and labels spread from one to the other: suggested are the images
from which they reach all others best. The test part is never suggested. The table suggested.csv holds the
suggested images first and then those labeled already: once filled in, it is all that finetune --labels needs. The
page suggested.html shows the pictures, to name them.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.base import (
    columns_of,
    hardware_of,
    out_flag,
    planned_of,
    run_in_place_of_init,
    stage_two_of,
    typed_flags,
)
from ssl_app.config import option
from ssl_app.errors import Change, CheckpointError, DataError, Fix, Mistakes, Run, RunError, Set
from ssl_app.runs import Result
from ssl_app.settings import DataSettings, PixelSettings, RunSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.clustering.coverage import Chosen
    from ssl_app.data.dataset import Dataset
    from ssl_app.data.intensity import PixelScaling
    from ssl_app.data.opened import Opened
    from ssl_app.data.sources.base import Source
    from ssl_app.report.suggested import Suggestion
    from ssl_app.training.initialization import Initialization
    from ssl_app.transfer.setup import Planned

logger = logging.getLogger(__name__)

# what a command on the same images and split needs
SAME = (
    "data", "label", "group", "split", "axis", "split_seed", "test_fraction", "allow_leak", "backbone", "image_size",
    "channels", "intensity", "nodata", "fit", "max_unreadable", "max_image_mb",
)  # fmt: skip
EXAMPLES = """
ssl-app suggest --count 20
ssl-app suggest my-simclr --labels labels.csv --count 20
ssl-app suggest my-simclr --labels ssl-runs/suggest-20261121-101500/suggested.csv --count 40
ssl-app suggest my-simclr --data all.csv --group patient --labels none --count 12
"""
NEWEST, UNKNOWN = "newest", "none"
CAUTION = (
    "A chosen sample is no random one: intervals over draws (sweep) do not hold for it, those over test images do; "
    "and classes may be unequal in number."
)


@dataclass(frozen=True)
class Settings(RunSettings, PixelSettings, DataSettings):
    """Settings of a suggestion."""

    run: str = option(
        NEWEST, "pretraining, checkpoint or weights file; default: the newest finished pretraining", argument=True
    )
    backbone: str | None = option(None, "network of a plain weights file; a checkpoint knows its own", metavar="B")
    labels: str | None = option(
        None,
        "labels so far: table of path and label that takes the place of the data's own; none: nothing is labeled; "
        "default: those of the data",
        metavar="FILE|none",
    )
    count: int = option(20, "images to suggest", at_least=1)
    thumb: int = option(640, "longest side of a picture on the page in pixels", at_least=16, at_most=2048)


def run(settings: Settings) -> Result:
    """Choose, write table and page, and say where they lie."""
    from ssl_app.report import originals, suggested

    started = time.monotonic()
    start, planned, source = _planned(settings)
    opened = _open(settings, planned, source)
    rows = _training_rows(opened)
    _refuse_too_many(settings, opened, rows)
    stored = config.as_json(settings) | {"run": settings.run if settings.run != NEWEST else start.name}
    about = RunSpec("suggest", settings.out, settings.name, stored, settings.tracking_uri)
    with record(about, None, started) as one:
        chosen, scaling = _choose(settings, start, planned, opened, rows)
        suggestion = _suggestion(one.folder, opened.dataset, rows, chosen)
        table, page = one.folder / suggested.TABLE, one.folder / suggested.PAGE
        suggested.write_table(table, suggestion)
        place = {key: row for row, key in enumerate(source.keys)}
        pictures = [
            originals.picture(source, place[row.path], scaling, settings.thumb) for row in suggestion.suggested
        ]
        suggested.write_page(page, suggestion, pictures)
        one.tracked.data(opened.dataset.name, opened.dataset.hash, "suggest")
        one.tracked.artifact(table)  # not the page: pictures stay on this machine
        one.more = _facts(opened, rows, chosen) | {"init": start.name, "suggested": str(table), "page": str(page)}
        one.more["sentence"] = f"{_sentence(one.more, opened.dataset)} {CAUTION}"
    logger.info(one.more["sentence"])
    logger.info(f"open this in a browser to name them: {page}")
    verb = "finetune"
    if not opened.dataset.labeled[opened.parts.test].any():
        verb = "sweep --evaluate-on folds"
        logger.info(
            "note: no image of the test part has a label, and finetune needs some; a sweep by folds needs none, and "
            "its scores hold for images chosen like these"
        )
    logger.info(f"once {table} is filled in, type {_next(verb, settings, start, table)}")
    return one.result()


def _planned(settings: Settings) -> "tuple[Initialization, Planned, Source]":
    """What to take features with, and what of. Raises UserError for all mistakes that can be seen before packing."""
    from ssl_app.data.label_tables import read_table_of_labels
    from ssl_app.data.sources.base import open_source

    mistakes = Mistakes()
    found: list[Initialization] = []
    with mistakes.collected():
        runs.prepare(settings.out, settings.name, "suggest")
    with mistakes.collected(), run_in_place_of_init():
        found.append(_initialization(settings))
    with mistakes.collected():
        if settings.labels not in (None, UNKNOWN):
            read_table_of_labels(Path(str(settings.labels)))
    with mistakes.collected():
        if settings.data is not None:
            open_source(settings.data, columns_of(_without_labels(settings)))
    mistakes.refuse()
    with run_in_place_of_init():
        planned = planned_of(stage_two_of(_without_labels(settings)), found[0], "test")
    return found[0], planned, open_source(planned.data.data, planned.data.columns, planned.data.max_image_mb)


def _without_labels(settings: Settings) -> Settings:
    """What the data are without a table of labels, of which --label is a column where there is one."""
    table = settings.labels not in (None, UNKNOWN)
    return replace(settings, labels=None, label=None if table else settings.label)


def _initialization(settings: Settings) -> "Initialization":
    """The weights of RUN. Raises RunError, CheckpointError."""
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.replicates import first_of

    name = settings.run
    if name == NEWEST:
        newest = runs.newest_finished(settings.out, "pretrain") if settings.out.is_dir() else None
        if newest is None:
            raise RunError(f"no finished pretraining in {settings.out}", fix=(Run("pretrain"), Change("out")))
        name = first_of(settings.out, newest.name)
        logger.info(f"run: {name}, the newest finished pretraining in {settings.out} (RUN says otherwise)")
    start = load_initialization(name, settings.out, settings.backbone)
    if not start.pretrained:
        raise CheckpointError(f"RUN {name} is random weights", expected="a pretraining", fix=Run("pretrain"))
    return start


def _open(settings: Settings, planned: "Planned", source: "Source") -> "Opened":
    """The data with the labels so far: their own, those of a table, or none."""
    import numpy as np

    from ssl_app.data.opened import labeled_by, open_data

    opened = open_data(planned.data, planned.pixels, source)
    dataset = opened.dataset
    if settings.labels == UNKNOWN:
        dataset = replace(dataset, classes=(), labeled=np.zeros_like(dataset.labeled))
    elif settings.labels is not None:
        dataset, _ = labeled_by(dataset, Path(settings.labels), columns_of(settings), settings.label)
    return replace(opened, dataset=dataset)


def _training_rows(opened: "Opened") -> "NDArray[np.int64]":
    """Indices of the training part, without exact copies of test images."""
    import numpy as np

    content, parts = opened.dataset.content, opened.parts
    copies = np.isin(content[parts.train], content[parts.test])
    if copies.any():
        logger.info(f"note: {copies.sum()} training images are exact copies of test images, and are left out")
    return parts.train[~copies]


def _refuse_too_many(settings: Settings, opened: "Opened", rows: "NDArray[np.int64]") -> None:
    """Raise DataError where fewer images have no label than are wanted."""
    left = _unlabeled(opened.dataset, rows)
    if settings.count <= left:
        return
    fixes: tuple[Fix, ...] = (Set("count", left),) if left else ()
    if settings.labels != UNKNOWN and opened.dataset.labeled[rows].any():
        fixes = (*fixes, Set("labels", f"{UNKNOWN} to choose as if nothing were labeled"))
    raise DataError(
        f"{left} of {len(rows)} training images of {opened.dataset.name} have no label (copies count once), "
        f"{settings.count} are requested",
        fix=fixes or Change("data"),
    )


def _unlabeled(dataset: "Dataset", rows: "NDArray[np.int64]") -> int:
    """How many different pictures among these have no label, on no copy."""
    import numpy as np

    content, labeled = dataset.content[rows], dataset.labeled[rows]
    return len(np.setdiff1d(content[~labeled], content[labeled]))


def _choose(
    settings: Settings,
    start: "Initialization",
    planned: "Planned",
    opened: "Opened",
    rows: "NDArray[np.int64]",
) -> "tuple[Chosen, PixelScaling]":
    """The images chosen, as places among `rows`, and how pixels were scaled. Raises CheckpointError."""
    import numpy as np

    from ssl_app.clustering import coverage
    from ssl_app.data.intensity import measure
    from ssl_app.data.loading import ImageRows
    from ssl_app.training.inference import frozen_features
    from ssl_app.training.precision import measured

    dataset = opened.dataset
    scaling = start.scaling or measure(
        dataset.images,
        rows,
        planned.pixels.intensity,
        settings.seed,
        planned.pixels.nodata,
        dataset.value_units,
        planned.pixels.fit,
    )
    scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
    backbone = start.build(dataset.images.shape[-1], dataset.image_size, settings.seed)
    hardware = hardware_of(settings)
    logger.info(hardware.sentence())
    hardware = measured(hardware, backbone, planned.data.cache)
    features = frozen_features(backbone, None, ImageRows(dataset.images, rows, scaling, dataset.image_size), hardware)
    if not np.isfinite(features).all():
        raise CheckpointError(f"the features of {start.name} are not finite", fix=Set("precision", "fp32"))
    chosen = coverage.choose(
        features,
        dataset.labeled[rows],
        settings.count,
        groups=None if dataset.groups is None else [dataset.units[row] for row in rows],
        content=dataset.content[rows],
        seed=settings.seed,
    )
    return chosen, scaling


def _suggestion(folder: Path, dataset: "Dataset", rows: "NDArray[np.int64]", chosen: "Chosen") -> "Suggestion":
    """The rows of the table: those chosen, and all that are labeled, of the test part too."""
    import numpy as np

    from ssl_app.report.suggested import Row, Suggestion

    stands_for = dict(zip(rows[chosen.indices].tolist(), chosen.stands_for.tolist(), strict=True))
    grouped = dataset.grouped()

    def row(index: int) -> Row:
        label = dataset.classes[dataset.labels[index]] if dataset.labeled[index] else ""
        group = dataset.groups[index] if dataset.groups is not None and grouped[index] else ""
        return Row(dataset.keys[index], label, stands_for.get(index), group)

    return Suggestion(
        run=folder.name,
        identity=str(runs.started(folder)),
        data=dataset.name,
        suggested=[row(index) for index in rows[chosen.indices].tolist()],
        labeled=[row(index) for index in np.flatnonzero(dataset.labeled).tolist()],
        group=dataset.columns.group if dataset.groups is not None else None,
    )


def _facts(opened: "Opened", rows: "NDArray[np.int64]", chosen: "Chosen") -> dict[str, Any]:
    """The numbers of result.json."""
    dataset = opened.dataset
    labeled = dataset.labeled[rows]
    units = None if dataset.groups is None else {dataset.units[row] for row in rows[chosen.indices]}
    return {
        "n": len(chosen.indices),
        "candidates": _unlabeled(dataset, rows),
        "labels_so_far": int(labeled.sum()),
        "stand_for": int(chosen.stands_for.sum()),
        "groups": None if units is None else len(units),
        "test_left_out": len(opened.parts.test),
        "unreadable": list(dataset.unreadable),
    }


def _sentence(facts: dict[str, Any], dataset: "Dataset") -> str:
    """What was done, in one sentence."""
    group = f" of {facts['groups']} groups ({dataset.columns.group})" if facts["groups"] is not None else ""
    so_far = f"{facts['labels_so_far']} labeled so far" if facts["labels_so_far"] else "none labeled so far"
    return (
        f"{facts['n']}{group} of {facts['candidates']} unlabeled training images suggested, which stand for "
        f"{facts['stand_for']} of them ({so_far}); {facts['test_left_out']} test images left out."
    )


def _next(verb: str, settings: Settings, start: "Initialization", table: Path) -> str:
    """The command that takes the filled-in table, on the same data and split."""
    init = settings.run if settings.run != NEWEST else start.name
    pairs = [("init", init), *typed_flags(settings, SAME).items(), ("labels", str(table))]
    flags = " ".join(
        f"{config.flag(name)} {quote(str(value))}" if value is not None else config.flag(name)
        for name, value in pairs
    )
    return f"ssl-app {verb} {flags}{out_flag(settings.out)}"
