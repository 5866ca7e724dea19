"""Which images a pretraining trains on, and which it is scored on."""

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset
from ssl_app.data.opened import Opened, open_images
from ssl_app.data.overlap import exclude, seen
from ssl_app.data.sources.base import UNUSED, open_source
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.data.splits import hold_out_units, limited, too_few
from ssl_app.errors import Change, DataError

logger = logging.getLogger(__name__)

VALIDATION_SHARE, VALIDATION_MOST = 0.05, 512  # images that the pretext score is taken on


def without_test(opened: Opened, excluded: Dataset | None) -> NDArray[np.int64]:
    """Indices of all images but the test part and what is excluded. Raises DataError where too few are left."""
    dataset, parts = opened.dataset, opened.parts
    indices = np.sort(np.concatenate([parts.train, parts.val]))
    if excluded is not None:
        kept = exclude(dataset, indices, seen(excluded, np.arange(len(excluded.keys))))
        gone = len(indices) - len(kept)
        logger.info(f"excluded: {gone} of {len(indices)} images, by content, near copy or group of {excluded.name}")
        indices = kept
    apart = "" if excluded is None else f" after the exclusion of {excluded.name}"
    few = too_few(len(indices), len(parts.test), apart)
    if few is not None:
        fixes = few.fixes if excluded is None else (Change("exclude"), *few.fixes)
        raise DataError(few.found, expected=few.expected, fix=fixes)
    return indices


def with_validation(dataset: Dataset, indices: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], ...]:
    """Indices to train on, and indices of whole groups to take the score on."""
    return hold_out_units(dataset, indices, VALIDATION_SHARE, VALIDATION_MOST, seed)


def with_limit(dataset: Dataset, train: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of so many of the images at most, logged; all of them without a limit."""
    if limit is None:
        return train
    kept = limited(dataset, train, limit, seed)
    unit = "image" if dataset.groups is None else f"{dataset.columns.group}"
    logger.info(f"limit: {len(kept):,} of {len(train):,} images are trained on (drawn by {unit}, seed {seed})")
    return kept


def open_excluded(spec: DataSpec, pixels: PixelSpec, opened: Opened) -> Dataset:
    """The set whose images and groups pretraining must not see; by group where it has pretraining's group column."""
    group = opened.dataset.columns.group
    if opened.dataset.groups is None:
        logger.info(f"excluding by content only: {opened.dataset.name} has no groups (a column of a manifest)")
    files_alone = replace(spec.columns, label=UNUSED, group=UNUSED, split=UNUSED)
    try:
        source = open_source(spec.data, replace(files_alone, group=group), spec.max_image_mb)
    except DataError:
        source = open_source(spec.data, files_alone, spec.max_image_mb)
        if group is not None:
            logger.info(f"excluding by content only: {spec.data} has no column {group}")
    channels = int(opened.dataset.images.shape[-1])
    return open_images(spec, replace(pixels, channels=channels, pack_side=None), source)


def spaced(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Every k-th index, so many at most: sets are often sorted by class."""
    return indices[:: -(-len(indices) // most)]
