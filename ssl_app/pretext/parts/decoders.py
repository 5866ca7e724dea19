"""Decoders: an image drawn from a backbone's map, and how well it was drawn."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDEST, NARROWEST = 128, 16  # channels of the first and, at the least, of the last map
STEADY = 1 / 4  # of what is drawn: squared error then stands the rates at which SGD learns classes
TINY = 1e-10  # error below which there is none: flat images are drawn exactly


class Decoder(nn.Module):
    """A few convolutions, between which the map doubles. (B, D, h, w) -> (B, C, S, S) f32, unbounded.

    Small beside the trunk, so that what an image shows has to be known there. Pixels are repeated, then convolved:
    transposed convolutions leave a checkerboard. The last kernel is `kernel` wide, and its output is multiplied
    by `scale`. float32 under autocast too.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        channels: int,
        side: int,
        *,
        narrowest: int = NARROWEST,
        kernel: int = 3,
        scale: float = STEADY,
    ) -> None:
        super().__init__()
        self.scale = scale
        depth, *sides = shape
        self.sides = sides_between(max(sides), side)
        widths = [max(narrowest, WIDEST >> number) for number in range(len(self.sides) + 1)]
        self.first = _block(depth, widths[0], 1)
        self.blocks = nn.ModuleList(_block(width, narrower, 3) for width, narrower in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], channels, kernel, padding=kernel // 2)
        with torch.no_grad():
            self.last.weight /= (
                scale  # what is drawn at first, and the first gradient of the trunk, are as large as ever
            )

    def forward(self, features: Tensor) -> Tensor:
        """The image, or whatever its pixels are to tell."""
        x = self.first(features)
        for side, block in zip(self.sides, self.blocks, strict=True):
            if x.shape[-2:] != (side, side):
                x = functional.interpolate(x, size=(side, side), mode="nearest")
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):  # bf16 has 256 steps, fewer than pixels have
            drawn: Tensor = self.last(x.float())
        return drawn * self.scale


def sides_between(start: int, side: int) -> list[int]:
    """Sides of the maps after the first, each about twice the one before, up to `side`. 4, 32 -> [8, 16, 32]."""
    steps = max(1, round(math.log2(side / start)))
    return [math.ceil(side / 2**left) for left in reversed(range(steps))]


def mean_within(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values at the pixels that `where` holds true; 0 where it holds none. (B, C, S, S), (B, 1, S, S)."""
    chosen = where.expand_as(values)
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


def psnr_gain(before: Tensor, after: Tensor) -> Tensor:
    """By how many dB a mean squared error fell, (), () -> (): what PSNR gained, in which the peak cancels out."""
    return 10 * torch.log10(before.clamp_min(TINY) / after.clamp_min(TINY))


def _block(channels: int, width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
