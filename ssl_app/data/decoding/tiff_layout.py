"""What the tags of a TIFF page say of its samples and of the segments they lie in (TIFF 6.0)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssl_app.data.decoding.limits import Limit, Unreadable

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLORS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}  # samples that they need
OTHERS = {4: "a transparency mask", 8: "CIELab", 9: "ICC Lab", 10: "ITU Lab", 32803: "a color filter array",
          32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}  # fmt: skip
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # of SampleFormat; 4 is undefined, and integers in practice
WIDE = {"u": (32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}  # bits, beside unsigned ones of up to 16
ALPHA = (1, 2)  # of ExtraSamples: associated and unassociated
JPEG = 7  # of Compression
JPEG_TABLES, COLOR_MAP, T4_OPTIONS, T6_OPTIONS = 347, 320, 292, 293


@dataclass(frozen=True)
class Layout:
    """One page: its sides and samples, and how they are cut into segments and packed."""

    height: int
    width: int
    samples: int  # a pixel, those beside the colors too
    bits: int  # a sample
    kind: str  # u, i or f
    order: Literal["<", ">"]  # of bytes
    photometric: int
    compression: int
    predictor: int
    reversed_bits: bool  # in every byte, before anything is unfolded
    planar: bool  # every sample has segments of its own
    tiled: bool
    segment: tuple[int, int]  # (rows, columns) of a strip or tile
    subsampling: tuple[int, int]  # of YCbCr: columns and rows that share a color
    alpha: tuple[int, ...]  # positions among the samples

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a sample in memory."""
        size = 1 if self.bits <= 8 else 2 if self.bits <= 16 else self.bits // 8
        return np.dtype(f"{self.kind}{size}")

    @property
    def top(self) -> int:
        """The largest value that an unsigned sample can have."""
        return int(2**self.bits) - 1

    @property
    def planes(self) -> int:
        """How often the image is covered by segments: once, or once a sample."""
        return self.samples if self.planar else 1

    @property
    def together(self) -> int:
        """Samples of one pixel that lie in one segment."""
        return 1 if self.planar else self.samples


def layout_of(page: Any, limit: Limit) -> Layout:
    """The layout of a tifffile page. Raises Unreadable for what is not understood, TooLarge by the tags alone."""
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    photometric, compression = int(page.photometric), int(page.compression)
    bits, kind = page.bitspersample, KINDS.get(page.sampleformat if isinstance(page.sampleformat, int) else 0)
    if not isinstance(bits, int):
        raise Unreadable(f"TIFF with samples of {bits} bits; expected one number for all")
    if kind is None or (bits not in WIDE[kind] and not (kind == "u" and 1 <= bits <= 16)):
        raise Unreadable(f"TIFF with samples of {bits} bits in format {page.sampleformat}")
    if photometric in OTHERS:
        raise Unreadable(f"TIFF of {OTHERS[photometric]} is not read; save it as gray or RGB")
    if photometric == YCBCR and (bits != 8 or page.planarconfig == 2) and compression != JPEG:
        raise Unreadable("TIFF of YCbCr in planes, or of more than 8 bits, is not read; save it as RGB")
    if photometric not in COLORS or samples < COLORS[photometric] or int(page.imagedepth) != 1:
        raise Unreadable("the file is damaged (its tags contradict each other)")
    extra = [int(one) for one in page.extrasamples or ()][: samples - COLORS[photometric]]
    tiled = page.rowsperstrip == 0
    rows, columns = (int(page.tilelength), int(page.tilewidth)) if tiled else (int(page.rowsperstrip), width)
    found = Layout(
        height=height,
        width=width,
        samples=samples,
        bits=bits,
        kind=kind,
        order=page.parent.byteorder,
        photometric=photometric,
        compression=compression,
        predictor=int(page.predictor),
        reversed_bits=int(page.fillorder) == 2,
        planar=int(page.planarconfig) == 2 and samples > 1,
        tiled=tiled,
        segment=(rows if tiled else min(rows, height), columns),
        subsampling=subsampling_of(page) if photometric == YCBCR else (1, 1),
        alpha=tuple(COLORS[photometric] + at for at, one in enumerate(extra) if one in ALPHA),
    )
    limit.admit((height, width, max(samples, 3 if photometric == PALETTE else 1)), found.dtype.itemsize)
    limit.admit((*found.segment, found.together), found.dtype.itemsize)
    return found


def subsampling_of(page: Any) -> tuple[int, int]:
    """Columns and rows that share a color; 2 and 2 is the default. Raises Unreadable."""
    across, down = (int(one) for one in page.subsampling or (2, 2))
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise Unreadable("the file is damaged (its tags contradict each other)")
    return across, down
