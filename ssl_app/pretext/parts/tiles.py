"""Tiles: an image cut into a square of cells, and out of each cell a tile, for puzzles of where tiles belong."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.errors import DataError, Fix, Notice, Set, SettingsError
from ssl_app.models.backbones import Backbone

SMALLEST_TILE = 8  # pixels; less than that shows hardly more than an edge
THREE_FROM = 64  # pixels from which an image is cut 3x3: there its tiles are 15 to 16 px
FLAT = 1e-4  # deviation, in that of the set, under which a tile shows nothing but rounding
STEP = 1 / 255  # of 8 bits, where images are in [0, 1]
TELLING = 0.1  # share of images that must show something, for a set to teach
NARROWEST, WIDEST = 128, 512  # features that a tile is described by


@dataclass(frozen=True)
class Layout:
    """Where tiles are cut out of an image of S pixels. Lengths in pixels; T tiles, row by row.

    A cell is a tile, the room that it moves in, and a gap: two tiles are never nearer than the gap.
    """

    image: int  # S
    grid: int  # g cells a side, T = g * g
    tile: int  # t
    jitter: int  # a tile lies 0 to so many pixels into its cell, both included
    gap: int

    @property
    def tiles(self) -> int:
        """T."""
        return self.grid**2

    @property
    def cell(self) -> int:
        """Side of a cell."""
        return self.tile + self.jitter + self.gap

    def corners(self) -> Tensor:
        """Row and column of each cell's first pixel; the grid is in the middle of the image. (T, 2)."""
        margin = (self.image - self.grid * self.cell + self.gap) // 2
        first = margin + torch.arange(self.grid) * self.cell
        return torch.cartesian_prod(first, first)


def lay_out(image: int, grid: str, gap: float, jitter: float) -> Layout:
    """The layout of `grid` (auto, 2, 3) cells a side; gap and jitter are shares of a cell, rounded to pixels.

    auto is 2 below 64 px and 3 from there on. Raises SettingsError where a tile would be under 8 px.
    """
    cells = cells_of(grid, image)
    found = _of(image, cells, gap, jitter)
    if found.tile < SMALLEST_TILE:
        enough = 8 * math.ceil(image / 8)
        while _of(enough, cells, gap, jitter).tile < SMALLEST_TILE:
            enough += 8
        fewer = () if cells == 2 or _of(image, 2, gap, jitter).tile < SMALLEST_TILE else (Set("grid", 2),)
        same = (("grid", cells),) if grid == "auto" and cells_of(grid, enough) != cells else ()
        raise SettingsError(
            f"{cells}x{cells} cells of an image of {image} px hold tiles of {max(0, found.tile)} px",
            expected=f"at least {SMALLEST_TILE}",
            fix=(Set("image_size", enough, same), *fewer),
        )
    return found


def cells_of(grid: str, image: int) -> int:
    """Cells a side: what the setting says, or by the image's pixels."""
    return int(grid) if grid != "auto" else 3 if image >= THREE_FROM else 2


def _of(image: int, cells: int, gap: float, jitter: float) -> Layout:
    cell = image // cells
    apart, moves = round(gap * cell), round(jitter * cell)
    return Layout(image, cells, cell - apart - moves, moves, apart)


def draw_offsets(layout: Layout, images: int, generator: torch.Generator) -> Tensor:
    """How far each tile lies into its cell, rows and columns, uniform in 0 to `jitter`. -> (B, T, 1, 2)."""
    return torch.randint(layout.jitter + 1, (images, layout.tiles, 1, 2), generator=generator)


def cut(images: Tensor, layout: Layout, offsets: Tensor) -> Tensor:
    """The tiles of each image, every pixel copied as it is. (B, C, S, S), (B, T, 1 or C, 2) -> (B, T, C, t, t).

    Offsets of C channels cut each channel from a place of its own.
    """
    count, channels = images.shape[:2]
    places = (offsets + layout.corners()[:, None]).to(images.device, non_blocking=True)  # (B, T, 1 or C, 2)
    rows, columns = places.expand(-1, -1, channels, -1).unbind(3)
    windows = images.unfold(2, layout.tile, 1).unfold(3, layout.tile, 1)  # a view: every tile at every place
    image = torch.arange(count, device=images.device)[:, None, None]
    return windows[image, torch.arange(channels, device=images.device), rows, columns]


def standardize(tiles: Tensor) -> Tensor:
    """Mean 0 and deviation 1 of every tile and channel, which else tell neighbors apart. (..., t, t) -> the same.

    A tile of one value becomes 0.
    """
    variance, mean = torch.var_mean(tiles.float(), (-2, -1), correction=0, keepdim=True)
    deviation = variance.sqrt()
    return (tiles - mean) / deviation.masked_fill(deviation < FLAT, torch.inf)


def one_channel(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Each tile in one of its channels, drawn, on all of them: no fringe is left. (B, T, C, t, t) -> the same."""
    count, places, channels = tiles.shape[:3]
    kept = torch.randint(channels, (count, places, 1, 1, 1), generator=generator).to(tiles.device)
    return tiles.gather(2, kept.expand(-1, -1, 1, *tiles.shape[3:])).expand_as(tiles)


def as_images(tiles: Tensor, side: int, like: Tensor) -> Tensor:
    """All tiles of all images as one batch for the trunk, enlarged to `side` pixels where they are smaller.

    (B, T, C, t, t) -> (B * T, C, s, s), in the memory format of `like`. One batch holds every image's tiles, so
    that batch statistics are of all of them, and say nothing of one place or one image.
    """
    images = tiles.flatten(0, 1)
    if side > images.shape[-1]:
        images = functional.interpolate(images, size=side, mode="bilinear", align_corners=False)
    last = like.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def trunk_side(layout: Layout, backbone: Backbone) -> int:
    """Side in pixels that tiles are given to the trunk in: their own, unless it is too small for the trunk.

    That is where the trunk cannot compute it, or where its deepest map would be a single pixel: there a 3x3 filter
    learns its center only, and the rest of it goes on to whole images as random as it began.
    """
    side = max(layout.tile, backbone.smallest_image)
    try:
        deepest = backbone.shape(backbone.map_layer())
    except SettingsError:  # no map anywhere, which is no matter here
        return side
    stride = layout.image / deepest[-1]
    return max(side, round(1.5 * stride)) if deepest[-1] > 1 and side <= stride else side


def remarks(layout: Layout, side: int) -> tuple[Notice, ...]:
    """What the user should know of small tiles, as a method's notes."""
    found = []
    if layout.image < THREE_FROM:
        found.append(
            f"images of {layout.image} px are cut into {layout.grid}x{layout.grid} tiles of {layout.tile} px, little "
            f"to tell places by; where the files are larger, an image size of {THREE_FROM} or more leaves more"
        )
    if side > layout.tile:
        found.append(f"tiles of {layout.tile} px are enlarged to {side} px for this backbone")
    return tuple(Notice(words) for words in found)


def width_of(features: int) -> int:
    """E, how many numbers a tile is described by: half of the trunk's features, 128 to 512."""
    return min(WIDEST, max(NARROWEST, features // 2))


def embedding(features: int) -> nn.Sequential:
    """What describes a tile, from the trunk's features. (N, D) -> (N, E)."""
    width = width_of(features)
    return nn.Sequential(nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True))


def sheet(tiles: Tensor, cell: int, side: int) -> Tensor:
    """A picture of tiles laid in cells, row by row, 0 between them. (B, g * g, C, t, t) -> (B, C, side, side).

    Made smaller where it does not fit; for people, not for the network.
    """
    count, places, channels, tile = tiles.shape[:4]
    grid = math.isqrt(places)
    before = (cell - tile) // 2
    laid = functional.pad(tiles, (before, cell - tile - before) * 2).view(count, grid, grid, channels, cell, cell)
    picture = laid.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, grid * cell, grid * cell)
    rest = side - grid * cell
    if rest < 0:
        return functional.interpolate(picture, size=side, mode="bilinear", antialias=True)
    return functional.pad(picture, (rest // 2, rest - rest // 2) * 2)


def refuse_flat(images: NDArray[np.float32], grid: str, method: str) -> None:
    """Raise DataError where tiles show nothing: fewer than a tenth of the images have two that are not of one color.

    (M, S, S, C) in [0, 1], a sample.
    """
    cells = cells_of(grid, images.shape[1])
    side = images.shape[1] // cells
    inner = images[:, : cells * side, : cells * side]
    split = inner.reshape(len(images), cells, side, cells, side, -1)
    deviation = split.std((2, 4)).max(-1).reshape(len(images), -1)  # (M, T)
    tell = (deviation > STEP / 2).sum(1) >= 2
    if tell.mean() < TELLING:
        raise DataError(
            f"{method} finds nothing to tell tiles by: {int((~tell).sum())} of {len(images)} sampled images are of "
            f"one color in all of their {cells}x{cells} tiles but one",
            expected="something in every part",
            fix=(Fix("crop the images to what they show"), Set("method", "rotnet")),
        )
