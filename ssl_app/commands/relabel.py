"""Write what a classifier sees at each place of every image, for labels of random crops (ReLabel).

The teacher is a finished finetune run; its global pooling is taken off. finetune --relabel then pools the target of
each crop from the map of its image. The run says, and draws, how many random crops of these images show another class
than their label names: where those are few, pooled labels have little to add. With --published the maps are those
that the authors of ReLabel give for ImageNet.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_app import config, runs
from ssl_app.commands import RecordedRun, RunSpec, record
from ssl_app.commands.base import DIGITS, data_of, stage_two_of, with_data_of
from ssl_app.config import option
from ssl_app.errors import Change, DataError, Run, RunError, Set, SettingsError, Unset
from ssl_app.runs import Result
from ssl_app.settings import DataSettings, RunSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.data.class_maps import ClassMaps
    from ssl_app.data.spec import DataSpec
    from ssl_app.report.class_maps import Overlay
    from ssl_app.transfer.map_sources import MapSource

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app relabel --teacher finetune-20261121-101500
ssl-app relabel --teacher big-classifier --data scans/ --labels labels.csv --name maps
ssl-app finetune --relabel maps --strategy relabel --per-class 32
ssl-app relabel --published relabel_imagenet/ --data imagenet/train/ --name published
"""
MAPS, OVERLAYS, CROP_LABELS = "maps.safetensors", "class-maps.png", "crop-labels.png"  # of the run
PICTURES, LOOKED_AT = 12, 240  # of each kind, and images that the second kind is chosen from
SHOWN = 64  # pixels, of images whose maps others have made


@dataclass(frozen=True)
class Settings(RunSettings, DataSettings):
    """Settings of class maps."""

    teacher: str | None = option(None, "finished finetune run: its name, or its folder", metavar="RUN", path="any")
    published: Path | None = option(
        None, "folder of published maps, a .pt for each image, in the place of a teacher", metavar="DIR", path="any"
    )
    transposed: Literal["auto", "yes", "no"] = option(
        "auto", "whether published maps have rows for columns; auto: as they go with the images"
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE", path="file"
    )
    k: int = option(5, "classes that each place keeps; the others share the mass of the rest", at_least=1)
    image_size: int | None = option(
        None,
        "side of the images that the teacher is given, in pixels; above its own maps are finer; default: its own",
        at_least=8,
    )
    resume: str | None = option(None, "go on with stopped maps, by the run's name", metavar="RUN")


def run(settings: Settings) -> Result:
    """Write the maps, or go on with them; then say what they mean for crops."""
    started, folder = time.monotonic(), None
    if settings.resume is not None:
        settings, folder = _resumed(settings)
    else:
        runs.prepare(settings.out, settings.name, "relabel")
    source = _source(settings)
    about = RunSpec(
        "relabel", settings.out, settings.name, config.as_json(settings), settings.tracking_uri, f"{MAPS}.part"
    )
    with record(about, folder, started) as one:
        maps = _written(source, one.folder / MAPS)
        one.tracked.data(source.dataset.name, source.dataset.hash, "relabel")
        one.more = {"maps": str(maps.name), **_facts(maps)}
        _pictured(source, maps, one, settings.seed)
    logger.info(f"to train with them, type ssl-app finetune --relabel {one.folder.name}")
    return one.result()


def _resumed(given: Settings) -> tuple[Settings, Path]:
    """The settings of a stopped run, and its folder. Raises RunError where there is nothing to go on with."""
    assert given.resume is not None
    folder = runs.find_run(given.out, given.resume)
    stored = runs.read_json(folder / runs.SETTINGS)
    if stored.get("verb") != "relabel":
        raise RunError(f"run {folder} is of {stored.get('verb')}", expected="class maps", fix=Change("resume"))
    if runs.finished(folder):
        raise RunError(f"run {folder} has finished", fix=Run("finetune", (("relabel", folder.name),)))
    before = config.from_json(Settings, stored["settings"])
    return replace(before, out=given.out, name=folder.name, resume=given.resume), folder


def _source(settings: Settings) -> "MapSource":
    """A teacher's maps, or published ones. Raises UserError."""
    if (settings.teacher is None) == (settings.published is None):
        fixes = (Set("teacher", "RUN of finetune"), Set("published", "DIR"))
        raise SettingsError(
            "class maps come from a teacher, or are published ones", expected="one of both", fix=fixes
        )
    if settings.teacher is None:
        return _published(settings)
    if settings.transposed != "auto":
        raise SettingsError("maps of a teacher are never transposed", fix=Unset("transposed"))
    return _of_teacher(settings, settings.teacher)


def _of_teacher(settings: Settings, teacher: str) -> "MapSource":
    from ssl_app.data.opened import open_data
    from ssl_app.data.spec import PixelSpec
    from ssl_app.training.hardware import choose
    from ssl_app.transfer.map_sources import TeacherMaps
    from ssl_app.transfer.trained import load_classifier

    folder = runs.find_run(settings.out, teacher)
    trained = load_classifier(folder)
    meta, scaling = trained.meta, trained.scaling
    precision = settings.precision if settings.precision != "auto" else "bf16" if meta["bf16"] else "fp32"
    hardware = choose(settings.device, precision, settings.threads)
    logger.info(hardware.sentence())
    side = settings.image_size or meta.get("pack_side") or meta["image_size"]
    size = settings.image_size or meta["image_size"]
    pixels = PixelSpec(size, meta["channels"], scaling.intensity, side, scaling.nodata, scaling.fit)
    return TeacherMaps(trained, open_data(_data_of_teacher(settings, folder), pixels), hardware, settings.k)


def _published(settings: Settings) -> "MapSource":
    from ssl_app.data.opened import open_data
    from ssl_app.data.sources.base import open_source
    from ssl_app.data.spec import PixelSpec
    from ssl_app.transfer.map_sources import open_published

    assert settings.published is not None
    if settings.data is None:
        raise DataError("published maps are of images of yours", fix=Set("data", "D"))
    pixels = PixelSpec(settings.image_size or SHOWN)
    spec = data_of(settings, settings.out, settings.labels)
    source = open_source(spec.data, spec.columns, spec.max_image_mb)
    opened = open_data(spec, pixels, source)
    transposed = None if settings.transposed == "auto" else settings.transposed == "yes"
    return open_published(opened, source, settings.published, transposed, settings.seed)


def _data_of_teacher(settings: Settings, folder: Path) -> "DataSpec":
    """The data that the user names, else those that the teacher was trained on, and its split.

    Raises DataError where those were a pretraining's that is not there.
    """
    from ssl_app.training.initialization import Initialization
    from ssl_app.transfer.replicates import PLUS

    theirs = dict(runs.read_json(folder / runs.SETTINGS)["settings"])
    init = str(theirs["init"]).partition(PLUS)[0]  # of several pretrainings joined the first has the data
    if settings.data is None and theirs["data"] is None and init not in ("none", "scratch"):
        places = (Path(init), settings.out / init, folder.parent / init)
        found = next((one for one in places if (one / runs.SETTINGS).is_file()), None)
        if found is None:
            raise DataError(
                f"teacher {folder.name} was trained on the data of {init}, which is no run here", fix=Set("data", "D")
            )
        before = runs.read_json(found / runs.SETTINGS)["settings"]
        theirs |= {name: before.get(name) for name, value in theirs.items() if value is None and name in before}
    labels = settings.labels
    if settings.data is None and labels is None and theirs.get("labels"):
        labels = Path(theirs["labels"])
    merged = with_data_of(stage_two_of(settings), Initialization(folder.name, "", settings=theirs))
    return data_of(replace(merged, data=merged.data or DIGITS), settings.out, labels)


def _written(source: "MapSource", path: Path) -> "ClassMaps":
    """All maps in one file. Raises Stopped, with what there is kept, after a signal."""
    from ssl_app.data.class_maps import MapWriter, read, size_of
    from ssl_app.training.history import Progress
    from ssl_app.training.signals import Stopped, StopRequest

    if not path.is_file():  # written whole before a stop
        form, count = source.form, len(source.index.content)
        height, width = form.grid
        logger.info(
            f"class maps: {count} images x {height}x{width} places x {4 * form.k + 2} bytes, "
            f"{_megabytes(size_of(form, source.index))} in {path}"
        )
        with _resumable(path.parent), MapWriter(path, form, source.index) as writer, StopRequest() as stop:
            if writer.done:
                logger.info(f"{writer.done} of {count} maps are there already")
            with Progress("class maps", count, writer.done) as progress:
                for cells in source.cells(writer.done):
                    writer.add(cells)
                    for _ in cells:
                        progress.step()
                    if stop.number is not None and writer.done < count:
                        raise Stopped(stop.number)
    return read(path)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say how to go on where a signal ends what is inside; a mistake leaves nothing to go on from."""
    from ssl_app.data.class_maps import part_of
    from ssl_app.training.signals import Stopped

    try:
        yield
    except Stopped as stopped:
        stopped.add_note(f"to go on, type ssl-app relabel --resume {folder.name}")
        raise
    except DataError:
        part_of(folder / MAPS).unlink(missing_ok=True)
        raise


def _facts(maps: "ClassMaps") -> dict[str, Any]:
    """Numbers for result.json."""
    form = maps.form
    return {
        "n": len(maps.index.content),
        "grid": list(form.grid),
        "k": form.k,
        "classes": list(form.classes),
        "bytes": Path(maps.name).stat().st_size,
        "teacher_labels": None if maps.index.labeled is None else len(maps.index.labeled),
    }


def _pictured(source: "MapSource", maps: "ClassMaps", one: RecordedRun, seed: int) -> None:
    """Figures, the sentence on crops, and their numbers, of labeled images of the training part."""
    from ssl_app.evaluation.crop_labels import crop_labels
    from ssl_app.report import class_maps as report
    from ssl_app.training.label_pooling import PooledTargets

    dataset, train = source.dataset, source.opened.parts.train
    train = train[maps.rows_of(dataset.content[train]) >= 0]
    if not len(train):
        return
    report.overlays(one.folder / OVERLAYS, _overlays(source, maps, train, seed), maps.form.classes)
    one.tracked.artifact(one.folder / OVERLAYS)
    logger.info(f"pictures: {one.folder / OVERLAYS}")
    labeled = train[dataset.labeled[train]]
    wanted = maps.for_classes(dataset.classes) if len(labeled) else maps
    found = crop_labels(PooledTargets(wanted, dataset.content[labeled]), dataset.labels[labeled], seed)
    if found is None:
        logger.info("no training image has a label, so that nobody knows how many crops show another class")
        return
    report.crop_labels(one.folder / CROP_LABELS, found, "/".join(Path(dataset.name).parts[-2:]))
    one.tracked.artifact(one.folder / CROP_LABELS)
    shares = {f"wrong_{name}": getattr(found, name) for name in ("whole", "usual", "paper")}
    one.tracked.metrics(shares | {"moved": found.moved}, 0)
    one.more |= {"crop_labels": asdict(found), "sentence": found.sentence()}
    logger.info(found.sentence())


def _overlays(
    source: "MapSource", maps: "ClassMaps", train: "NDArray[np.int64]", seed: int
) -> "list[tuple[str, list[Overlay]]]":
    """Images drawn at random, and those of more images whose maps hold most of several classes."""
    import numpy as np

    from ssl_app.report.class_maps import Overlay

    dataset = source.dataset
    drawn = np.random.default_rng(seed).permutation(train)[:LOOKED_AT]
    ids, values, _ = maps.at(maps.rows_of(dataset.content[drawn]))
    top, probability = ids[:, 0], np.exp(values[:, 0])  # (n, h, w)
    others = np.array([1 - np.bincount(one.ravel()).max() / one.size for one in top])  # places of further classes
    most = np.argsort(-others, kind="stable")[:PICTURES]
    chosen = {
        "drawn at random": np.arange(min(PICTURES, len(drawn))),
        f"most places of further classes, of {len(drawn)} images": most[others[most] > 0],
    }
    groups = []
    for title, places in chosen.items():
        if len(places):
            rows = drawn[places]
            labels = [dataset.classes[dataset.labels[row]] if dataset.labeled[row] else None for row in rows]
            each = zip(source.pictures(rows), top[places], probability[places], labels, strict=True)
            groups.append((title, [Overlay(*one) for one in each]))
    return groups


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
