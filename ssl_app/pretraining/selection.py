"""Which images a pretraining learns from, and which it is scored on."""

import logging

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import Dataset, open_dataset
from ssl_app.data.opened import Opened
from ssl_app.data.overlap import exclude, seen
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.splits import hold_out_units
from ssl_app.errors import DataError
from ssl_app.settings import PretrainSettings

logger = logging.getLogger(__name__)

HELD_OUT_SHARE, HELD_OUT_MOST = 0.05, 512  # images that the pretext score is taken on


def choose_rows(
    settings: PretrainSettings, opened: Opened, hold_out: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from, and rows to take the score on: all but the test part and what is excluded.

    Raises DataError where too few are left.
    """
    dataset, parts = opened.dataset, opened.parts
    rows = np.sort(np.concatenate([parts.train, parts.val]))
    if settings.exclude is not None:
        other = _other(settings, opened)
        kept = exclude(dataset, rows, seen(other, np.arange(len(other.keys))))
        logger.info(f"excluded: {len(rows) - len(kept)} of {len(rows)} images, by content or group of {other.name}")
        rows = kept
    if len(rows) < 4:
        apart = " after --exclude" if settings.exclude is not None else ""
        raise DataError(
            f"{len(rows)} images are left to pretrain on{apart}, {len(parts.test)} are the test part; "
            f"expected at least 4: type another --data"
        )
    if not hold_out:
        return rows, rows[:0]
    return hold_out_units(dataset, rows, HELD_OUT_SHARE, HELD_OUT_MOST, settings.seed)


def spaced(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Every k-th row, so many at most: sets are often sorted by class."""
    return rows[:: -(-len(rows) // most)]


def _other(settings: PretrainSettings, opened: Opened) -> Dataset:
    """What --exclude names, unsplit, its labels unread; by group where it has pretraining's group column."""
    assert settings.exclude is not None
    group = opened.dataset.columns.group
    if opened.dataset.groups is None:
        logger.info(f"excluding by content only: {opened.dataset.name} has no groups (--group COLUMN, of a manifest)")
    try:
        source = open_source(settings.exclude, Columns("none", group, "none"))
    except DataError:
        source = open_source(settings.exclude, Columns("none", "none", "none"))
        if group is not None:
            logger.info(f"excluding by content only: {settings.exclude} has no column {group}")
    return open_dataset(
        source,
        image_size=opened.dataset.image_size,
        channels=opened.dataset.images.shape[-1],
        intensity=settings.intensity or "range",
        cache=settings.out / "cache",
        max_unreadable=settings.max_unreadable,
        progress=True,
    )
