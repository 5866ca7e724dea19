"""RotNet's Network in Network for 32 px (Gidaris et al., 2018, arXiv:1803.07728; Lin et al., 2013)."""

from torch import Tensor, nn

from ssl_app.models.backbones.base import Network

# channels of a block's three convolutions, side of the first kernel; the others are 1x1 (RotNet, section 3.1)
FIRST = ((192, 160, 96), 5)
SECOND = ((192, 192, 192), 5)
DEEPER = ((192, 192, 192), 3)


def _block(channels: int, widths: tuple[int, int, int], kernel: int, pool: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, side in zip(widths, (kernel, 1, 1), strict=True):
        layers += [
            nn.Conv2d(channels, width, side, padding=side // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers, *([] if pool is None else [pool]))


class NIN(Network):
    """Blocks of one wide and two 1x1 convolutions, global average. (B, C, S, S) -> (B, 192).

    The first block ends in a max pool, the second in an average pool, so that block2
    gives (192, S / 4, S / 4): the features that the paper finds best. RotNet's have 3, 4 or 5 blocks; this one has 4.
    """

    layers = ("block1", "block2", "block3", "block4")
    map_layer = "block4"

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        for number in range(1, len(self.layers) + 1):
            widths, kernel = {1: FIRST, 2: SECOND}.get(number, DEEPER)
            pool = {1: nn.MaxPool2d(3, 2, padding=1), 2: nn.AvgPool2d(3, 2, padding=1)}.get(number)
            self.add_module(f"block{number}", _block(channels, widths, kernel, pool))
            channels = widths[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features. (B, C, S, S) -> (B, 192)."""
        for block in self.children():
            images = block(images)
        return images.mean(dim=(2, 3))
