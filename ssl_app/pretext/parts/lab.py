"""Colors: CIE Lab of sRGB under D65, and the 313 bins of its ab plane (Zhang et al., 2016, arXiv:1603.08511).

In floating point: Lab of 8 bits moves a and b by up to half a unit, and another white moves bins out of the table.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

# linear sRGB to CIE XYZ (IEC 61966-2-1); a row's sum is the white of D65
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
FROM_XYZ: list[list[float]] = torch.linalg.inv(torch.tensor(TO_XYZ, dtype=torch.float64)).tolist()
BEND = 6 / 29  # of CIE's cube root, which is a line below BEND ** 3
LUMA = (0.299, 0.587, 0.114)  # Y' of R'G'B' (ITU-R BT.601)

STEP = 10  # between bins
# a of a row of bins, and the lowest and highest b in it; no rule is known that gives these
ROWS = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100),
    -40: (-40, 100), -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100),
    10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90), 50: (-100, 80),
    60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
CANDIDATES = 12  # bins that the nearest of a rounded color are looked for among
NEIGHBORS = 5  # bins that a color is shared among (section 2.2)
SIGMA = 5.0  # of the shares, in units of ab
FARTHEST = 110  # |a| and |b| of the table of neighbors; sRGB has 108 at most


def lab_of(rgb: Tensor) -> Tensor:
    """CIE Lab of sRGB colors, which are clipped to [0, 1]. (B, 3, H, W) -> (B, 3, H, W) f32, L in [0, 100]."""
    rgb = rgb.float().clamp(0, 1)
    red, green, blue = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4).unbind(1)
    x, y, z = (_root((row[0] * red + row[1] * green + row[2] * blue) / sum(row)) for row in TO_XYZ)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def rgb_of(lab: Tensor) -> Tensor:
    """sRGB of CIE Lab colors, clipped to [0, 1] where a screen cannot show them. (B, 3, H, W) -> (B, 3, H, W)."""
    lightness, a, b = lab.float().unbind(1)
    y = (lightness + 16) / 116
    x, y, z = (_cube(root) * sum(row) for root, row in zip((y + a / 500, y, y - b / 200), TO_XYZ, strict=True))
    linear = torch.stack([row[0] * x + row[1] * y + row[2] * z for row in FROM_XYZ], 1).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).clamp(0, 1)


def luma(rgb: Tensor) -> Tensor:
    """Brightness, as weights of the three channels, which sum to 1: in the images' own scale. -> (B, 1, H, W)."""
    red, green, blue = rgb.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _root(ratio: Tensor) -> Tensor:
    return torch.where(ratio > BEND**3, ratio.clamp_min(BEND**3) ** (1 / 3), ratio / (3 * BEND**2) + 4 / 29)


def _cube(root: Tensor) -> Tensor:
    return torch.where(root > BEND, root**3, 3 * BEND**2 * (root - 4 / 29))


@dataclass(frozen=True)
class SoftColors:
    """Colors as shares of a few bins each; the other bins have none."""

    index: Tensor  # (B, 5, h, w) numbers of the bins
    weight: Tensor  # (B, 5, h, w) in [0, 1], sums to 1

    @property
    def nearest(self) -> Tensor:
        """The bin of the largest share. (B, h, w)."""
        return self.index.gather(1, self.weight.argmax(1, keepdim=True))[:, 0]


class ColorBins(nn.Module):
    """The 313 bins of ab, in the order of the released network: by a, then by b."""

    centers: Tensor
    near: Tensor

    def __init__(self) -> None:
        super().__init__()
        # facts, not state: they are the same in every checkpoint
        self.register_buffer("centers", bin_centers(), persistent=False)  # (313, 2)
        self.register_buffer("near", _near(), persistent=False)  # (221 * 221, 12)

    def __len__(self) -> int:
        return len(self.centers)

    def encode(self, ab: Tensor) -> SoftColors:
        """Shares of the five nearest bins, a Gaussian of their distance. (B, 2, h, w) -> (B, 5, h, w) twice.

        They are among the twelve nearest of ab rounded to units, which are looked up.
        """
        cell = ab.detach().float().round().clamp(-FARTHEST, FARTHEST).long() + FARTHEST
        index = self.near[cell[:, 0] * (2 * FARTHEST + 1) + cell[:, 1]]  # (B, h, w, 12)
        apart = (self.centers[index] - ab.float().permute(0, 2, 3, 1)[..., None, :]).square().sum(-1)
        apart, nearest = apart.topk(NEIGHBORS, largest=False)
        index, weight = index.gather(-1, nearest), torch.softmax(-apart / (2 * SIGMA**2), -1)
        return SoftColors(index.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2))

    def nearest(self, ab: Tensor) -> Tensor:
        """The nearest bin. (B, 2, h, w) -> (B, h, w)."""
        return self.encode(ab).nearest

    def mean(self, logits: Tensor, temperature: float) -> Tensor:
        """Expected ab after sharpening: the mean at 1, the mode towards 0. (B, 313, h, w) -> (B, 2, h, w)."""
        shares = torch.softmax(logits.float() / temperature, 1)
        with torch.autocast(logits.device.type, enabled=False):  # bf16 would round ab to half a unit
            return torch.einsum("bqhw,qc->bchw", shares, self.centers)


def bin_centers() -> Tensor:
    """Center of each bin, (313, 2)."""
    rows = [(a, b) for a, (low, high) in ROWS.items() for b in range(low, high + STEP, STEP)]
    return torch.tensor(rows, dtype=torch.float32)


@cache
def _near() -> Tensor:
    """The nearest bins of every whole a and b, (221 * 221, 12): searching anew would cost more than the network."""
    line = torch.arange(-FARTHEST, FARTHEST + 1.0)
    whole = torch.cartesian_prod(line, line)
    return torch.cdist(whole, bin_centers()).topk(CANDIDATES, largest=False).indices
