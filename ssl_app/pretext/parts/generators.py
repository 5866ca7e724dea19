"""Images out of noise: a convolutional generator of any side (after Radford et al., 2016, arXiv:1511.06434)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

SMALLEST_MAP = 4  # pixels; maps start at 4 to 8 and double from there
NARROW, WIDEST = 32, 256  # channels of the last and the first map
DCGAN_NARROW, DCGAN_WIDEST = 64, 512


class ImageGenerator(nn.Module):
    """A linear layer to a small map, which doubles until an image is full. (B, Z) -> (B, C, S, S), in [-1, 1].

    Where S is not 4 to 8 times a power of two the image is made a little larger and its center kept: nothing is
    interpolated. Each doubling repeats pixels and convolves, which leaves no checkerboard; `transposed` has
    DCGAN's convolutions and widths instead.
    """

    def __init__(self, noise: int, channels: int, image_size: int, *, transposed: bool = False) -> None:
        super().__init__()
        self.noise, self.image_size = noise, image_size
        self.start, doublings = plan_of(image_size)
        widths = _widths(doublings, *((DCGAN_NARROW, DCGAN_WIDEST) if transposed else (NARROW, WIDEST)))
        if transposed and doublings:
            widths = widths[1:]  # DCGAN's last doubling gives the image itself
        self.first = nn.Linear(noise, widths[0] * self.start**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for width_in, width_out in pairwise(widths):
            layers += [*_doubling(width_in, width_out, transposed), nn.BatchNorm2d(width_out), nn.ReLU(inplace=True)]
        if transposed and doublings:
            self.last: nn.Module = nn.ConvTranspose2d(widths[-1], channels, 4, 2, padding=1)
        else:
            self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """float32 under autocast too: the discriminator must not know a made image by its coarser gray values."""
        small = self.first(noise).unflatten(1, (-1, self.start, self.start))
        maps = self.layers(small)
        with torch.autocast(maps.device.type, enabled=False):
            images: Tensor = self.last(maps.float())
        cut = (images.shape[-1] - self.image_size) // 2
        images = images[..., cut : cut + self.image_size, cut : cut + self.image_size]
        return torch.tanh(images)


def plan_of(image_size: int) -> tuple[int, int]:
    """Side of the first map, and how often it doubles to reach the image. 28 -> (7, 2); 50 -> (7, 3), which is 56."""
    doublings = max(0, (image_size // SMALLEST_MAP).bit_length() - 1)
    return -(-image_size // 2**doublings), doublings


def start_as_dcgan(module: nn.Module) -> None:
    """Weights from N(0, .02), batch-norm scales from N(1, .02), biases 0 (DCGAN, section 4), in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        if isinstance(bias := getattr(part, "bias", None), Tensor):
            nn.init.zeros_(bias)


def _widths(doublings: int, narrow: int, widest: int) -> list[int]:
    """Channels of each map, halved at every doubling."""
    return [min(widest, narrow << left) for left in range(doublings, -1, -1)]


def _doubling(width_in: int, width_out: int, transposed: bool) -> list[nn.Module]:
    if transposed:
        return [nn.ConvTranspose2d(width_in, width_out, 4, 2, padding=1, bias=False)]
    return [nn.Upsample(scale_factor=2), nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)]
