"""What to read and in which form: the data that a run names, and the pixels that a network sees."""

from dataclasses import dataclass
from pathlib import Path

from ssl_app.data.decoding.limits import MAX_IMAGE_MB
from ssl_app.data.sources.base import Columns


@dataclass(frozen=True)
class DataSpec:
    """Which images to read, where what is known of them stands, and which of them are test."""

    data: str  # folder, manifest, .npz, shards or a built-in name
    cache: Path  # folder of decoded images
    columns: Columns = Columns()
    labels: Path | None = None  # table that replaces the labels of the data
    label: str | None = None  # its column; None: as `label_tables` finds it
    test_fraction: float = 0.2
    split_seed: int = 0
    max_unreadable: int = 0
    allow_leak: bool = False  # whether a given split may put copies and groups on both sides
    max_image_mb: int = MAX_IMAGE_MB  # of one decoded image


@dataclass(frozen=True)
class PixelSpec:
    """The form of the images that a network sees, resolved once and used by everything that reads them."""

    size: int  # side in pixels
    channels: int | None = None  # None: as the files have them
    intensity: str = "range"  # see data/intensity.py
    pack_side: int | None = None  # side of the packed images, the margin of random crops; None: by the first image
    nodata: float | None = None  # value of pixels that hold nothing: see data/nodata.py
    fit: str = "crop"  # how an image becomes a square: crop, pad or stretch, see data/reduction.py
