"""The setup of trials: the labeled set as the initialization wants it, its parts, and what pretraining saw of it."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssl_app.data import splits
from ssl_app.data.class_maps import ClassMaps
from ssl_app.data.class_maps import read as read_maps
from ssl_app.data.dataset import Dataset, changed
from ssl_app.data.intensity import measure
from ssl_app.data.opened import Opened, open_data
from ssl_app.data.overlap import Overlap, count_overlap, near_among, near_in_train
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import Parts
from ssl_app.errors import DataError, Fix, Run, Set, Unset
from ssl_app.training.hardware import Hardware
from ssl_app.training.initialization import Initialization
from ssl_app.training.precision import measured
from ssl_app.transfer.draw import TransferConfig
from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

# what is evaluated: the test part; a fifth of the training part, which leaves the test part alone; every labeled
# image, fold by fold; or folds where labels are few, else the test part
Tested = Literal["test", "validation", "folds", "auto"]
FEW_LABELS = 30  # a class in all: below it a fixed test part would waste them
VALIDATION_FRACTION = 0.2  # of the training part, where a separate validation finds no rows marked val
VALIDATION_SEED = 1_000_003  # added to the split seed, so that this hash is another
EVALUATION_SEED = 2_000_003  # added likewise, so that what is evaluated on is not what is selected on
LABEL_SOURCES = (Set("label", "COLUMN"), Set("labels", "FILE"))


@dataclass(frozen=True)
class Planned:
    """An initialization, and the labeled data that it is tried on, in the pixels that it wants."""

    initialization: Initialization
    data: DataSpec
    pixels: PixelSpec
    inherited: bool = False  # whether the data are those of the pretraining, since the user named none
    tested: Tested = "test"
    strict: bool = False  # whether what pretraining has seen of the test images is refused
    maps: Path | None = None  # class maps of the training part


def prepare(planned: Planned, config: TransferConfig, hardware: Hardware) -> TrialSetup:
    """Open the labeled set. Raises DataError where no trial could be run on it."""
    start = planned.initialization
    opened = open_data(planned.data, planned.pixels)
    _refuse_unlabeled(opened.dataset, planned)
    before = start.settings.get("data_state") if planned.inherited else None
    if before is not None and (what := changed(before, opened.dataset.state)) is not None:
        logger.info(f"note: {opened.dataset.name} has {what} than when {start.name} was trained on it")
    parts = _parts(opened, planned, config)
    everything = parts.train  # before the images without a label are left out
    labeled = opened.dataset.labeled
    tested = parts.test[labeled[parts.test]]
    if parts.leakage:  # by the split that was given, of labeled and unlabeled images
        parts = replace(parts, leakage=splits.leakage_of(opened.dataset, replace(parts, test=tested)))
    near = (
        near_among(opened.dataset, tested)
        if parts.cross_validated
        else near_in_train(opened.dataset, everything, tested)
    )
    if near is not None:
        logger.warning(f"warning: {near}")
        parts = replace(parts, leakage=(*parts.leakage, near))
    kept = {name: getattr(parts, name)[labeled[getattr(parts, name)]] for name in ("train", "val", "test")}
    opened = replace(opened, parts=replace(parts, **kept))
    _check(opened, planned, config)
    dataset, parts = opened.dataset, opened.parts
    scaling = start.scaling or measure(
        dataset.images,
        everything,
        planned.pixels.intensity,
        config.seed,
        planned.pixels.nodata,
        dataset.value_units,
        planned.pixels.fit,
    )
    scaling.refuse_other_depth(dataset.images.dtype, dataset.name, dataset.value_units)
    backbone = start.build(dataset.images.shape[-1], planned.pixels.size, config.seed)
    config.resizing(backbone)  # refuses a layer that is not there, and what the network cannot do
    hardware = measured(hardware, backbone, planned.data.cache)
    if start.image_size not in (None, planned.pixels.size):
        logger.info(f"image size: {planned.pixels.size} px, and {start.image_size} px in pretraining")
    maps = (
        None if planned.maps is None else maps_of(planned.maps, opened, everything, config.validation == "separate")
    )
    found = TrialSetup(opened, everything, start, scaling, config, hardware, maps=maps)
    if planned.strict:
        _refuse_overlap(found, planned)
    return found


def _refuse_overlap(setup: TrialSetup, planned: Planned) -> None:
    """Raise DataError where pretraining has seen test images, or where that is not known."""
    clauses = seen_clauses(setup)
    if clauses and planned.tested != "validation":
        again = Run("pretrain", (("exclude", planned.data.data),))
        raise DataError(f"{planned.initialization.name}: {'; '.join(clauses)}", fix=(again, Unset("strict")))


def maps_of(path: Path, opened: Opened, training: NDArray[np.int64], separate: bool = False) -> ClassMaps:
    """The class maps of a file, for the classes of the set.

    Raises DataError where an image of the training part has none, where they are of other classes, and where their
    teacher was trained on labels of the test part, or of the validation part that selects (`separate`).
    """
    dataset = opened.dataset
    maps = read_maps(path).for_classes(dataset.classes)
    lost = training[maps.rows_of(dataset.content[training]) < 0]
    if len(lost):
        raise DataError(
            f"{path} has no map of {len(lost)} of {len(training)} training images of {dataset.name}, first "
            f"{dataset.keys[lost[0]]}",
            fix=Run("relabel", (("teacher", "RUN"), ("data", dataset.name))),
        )
    labeled = maps.index.labeled
    if labeled is None:
        logger.info(f"note: which labels the teacher of {path} has seen is not known")
        return maps
    parts = [("test", opened.parts.test), *([("validation", opened.parts.val)] if separate else [])]
    for what, rows in parts:
        known = int(np.isin(dataset.content[rows], labeled).sum())
        if known:
            raise DataError(
                f"the teacher of {path} was trained on the labels of {known} of {len(rows)} {what} images",
                fix=Fix("make the maps with a teacher of the same split"),
            )
    return maps


def _refuse_unlabeled(dataset: Dataset, planned: Planned) -> None:
    if dataset.labeled.any():
        return
    if planned.inherited:
        raise DataError(
            f"run {planned.initialization.name} was trained on {dataset.name}, which has no labels",
            fix=(*LABEL_SOURCES, Set("data", "D")),
        )
    raise DataError(f"{dataset.name} has no labels", fix=(*LABEL_SOURCES, Fix("put images into one folder a class")))


def _parts(opened: Opened, planned: Planned, config: TransferConfig) -> Parts:
    """The parts, with a validation part in the place of test, and one to select on, where those are wanted."""
    dataset, parts, seed = opened.dataset, opened.parts, planned.data.split_seed
    few = parts.seed is not None and dataset.labeled.sum() < FEW_LABELS * len(dataset.classes)
    if planned.tested == "folds" or (planned.tested == "auto" and few):
        parts = splits.cross_validated(dataset, parts)
        logger.info(parts.how)
    if planned.tested == "validation":
        parts = _evaluated_on_train(dataset, parts, seed + EVALUATION_SEED)
        logger.info(f"{parts.how}: {len(parts.train)} train, {len(parts.test)} in the place of test")
    if config.validation == "separate" and not len(parts.val):
        parts = hold_out(dataset, parts, seed)
    return parts


def _check(opened: Opened, planned: Planned, config: TransferConfig) -> None:
    """Raise DataError where a class is missing on a side, or nothing is left to select on."""
    start = planned.initialization
    if not len(opened.parts.test) and len(opened.parts.train):
        raise DataError(
            f"no test image of {opened.dataset.name} has a label, {len(opened.parts.train)} others have",
            fix=(Run("sweep", (("evaluate_on", "folds"),)), Fix("label images of the test part too")),
        )
    try:
        splits.check_classes(opened.dataset, opened.parts, planned.data.columns.unlabeled)
    except DataError as error:
        if start.seen is None:
            raise
        notice, too = error.notice, f"(and pretrain with the same: {start.name} has seen what is test then)"
        fixes = [
            Set(fix.words, f"{fix.value} {too}") if isinstance(fix, Set) and fix.words == "split_seed" else fix
            for fix in notice.fixes
        ]
        raise DataError(notice.found, expected=notice.expected, fix=fixes) from error
    if config.validation == "separate" and not len(opened.parts.val):
        raise DataError(
            f"{opened.dataset.name} has no labeled image to hold out beside the draw", fix=Set("validation", "within")
        )


def hold_out(dataset: Dataset, parts: Parts, seed: int) -> Parts:
    """The parts with a fifth of the training groups moved to val, by hash as the test part was."""
    again = splits.split(replace(dataset, splits=None), fraction=VALIDATION_FRACTION, seed=seed + VALIDATION_SEED)
    val = np.intersect1d(parts.train, again.test)
    return replace(
        parts, train=np.setdiff1d(parts.train, val), val=val, how=f"{parts.how}; a fifth of train held out"
    )


def _evaluated_on_train(dataset: Dataset, parts: Parts, seed: int) -> Parts:
    """A fifth of the training part in the place of test, by the first seed that gives both sides every class."""
    absent: list[tuple[str, str, NDArray[np.int64]]] = []
    for tried in range(seed, seed + splits.SEEDS_TRIED):
        found = hold_out(dataset, replace(parts, val=parts.val[:0]), tried)
        found = replace(found, val=found.val[:0], test=found.val, how=f"{found.how} for evaluation")
        absent = splits.absent(dataset, found)
        if not absent:
            return found
    name, _, images = absent[0]
    one = f"one {dataset.columns.group or 'picture'}"
    raise DataError(
        f"class '{name}' has too few images in the training part to train on some and evaluate on others: "
        f"{len(images)}, or all of {one}",
        fix=(Fix("add images of that class"), Set("unlabeled", quote(name))),
    )


def overlap_of(setup: TrialSetup) -> Overlap | None:
    """How many test images pretraining saw; None where it is not known (another tool's weights, random ones)."""
    if setup.initialization.seen is None:
        return None
    return count_overlap(setup.initialization.seen, setup.dataset, setup.opened.parts.test)


def overlap_sentence(setup: TrialSetup, of_test: bool = True) -> str | None:
    """What the test part has in common with the training part, and with the images that the weights come from.

    Without `of_test` what is evaluated on is of the training part, which pretraining sees as a matter of course.
    """
    learned = setup.initialization.labels_learned
    labels = [f"pretraining has learned the labels of {learned:,} images"] if learned else []
    return "; ".join([*setup.opened.parts.leakage, *(seen_clauses(setup) if of_test else []), *labels]) or None


def seen_clauses(setup: TrialSetup) -> list[str]:
    """What pretraining has seen of the test part, or that it is not known."""
    found = overlap_of(setup)
    sentence = found.sentence() if found else None
    known = setup.initialization.ancestry_known
    unknown = [] if known else [f"what {setup.initialization.name} was trained on is not known"]
    return ([sentence] if sentence else []) + unknown
