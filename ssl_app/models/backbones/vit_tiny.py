"""A small vision transformer for images up to 96 px, for two CPU cores (Dosovitskiy et al., 2021, arXiv:2010.11929).

2.7 M parameters: 6 of torchvision's encoder blocks, 192 wide with 3 heads (the width of DeiT-Ti, arXiv:2012.12877).
Half of DeiT-Ti's 12 blocks: on whole images 6 train at about a third of the small ResNet's rate, 12 at a sixth. A
masked autoencoder, which encodes a quarter of the patches, trains 6 blocks faster than the small ResNet.
"""

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vision_transformer import EncoderBlock

from ssl_app.errors import Set, SettingsError
from ssl_app.models.backbones.base import PreferredOptimizer, TokenNetwork
from ssl_app.models.positions import sines_and_cosines

WIDTH, HEADS, BLOCKS, HIDDEN = 192, 3, 6, 4 * 192
FEWEST, MOST = 7, 16  # patches along a side: fewer say little of places, and the cost grows with their square
SMALLEST_PATCH, LARGEST_PATCH = 2, 16  # pixels; one pixel has no contrast, and 16 is what ViT-B/16 has
LARGEST_IMAGE = MOST * LARGEST_PATCH


class ViTTiny(TokenNetwork):
    """Patches, six blocks, a last norm, the mean over patches. (B, C, S, S) -> (B, 192).

    There is no class token: the mean over patches is as good (MAE, appendix A.1), and every token is a place of the
    map. Positions are fixed sines and cosines, so that they need no training and suit any grid. An image of another
    side than the network's own is cut into patches of the same size, and enlarged where they do not divide it.
    """

    layers = ("patches", *(f"block{n}" for n in range(1, BLOCKS + 1)), "norm")
    map_layer = "norm"
    smallest_image = FEWEST * SMALLEST_PATCH
    optimizer = PreferredOptimizer("adamw", lr=1e-3, weight_decay=0.05)

    def __init__(self, channels: int, image_size: int) -> None:
        """Raises SettingsError for a side that cannot be cut into 7 to 16 patches of at most 16 px."""
        super().__init__(channels, image_size)
        self.patch = patch_of(image_size)
        self.grid = image_size // self.patch
        self.patches = nn.Conv2d(channels, WIDTH, self.patch, self.patch)
        nn.init.xavier_uniform_(self.patches.weight.view(WIDTH, -1))  # as the linear layer that it is
        for number in range(1, BLOCKS + 1):
            self.add_module(f"block{number}", EncoderBlock(HEADS, WIDTH, HIDDEN, dropout=0.0, attention_dropout=0.0))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.register_buffer("positions", sines_and_cosines(self.grid, WIDTH), persistent=False)  # (T, 192)

    @classmethod
    def variant(cls, image_size: int) -> str:
        """The size of a patch."""
        return f"patches of {patch_of(image_size)} px"

    @classmethod
    def nearest_size(cls, image_size: int) -> int:
        """The nearest side that patches divide, the larger of two."""
        sides = [side for side in range(cls.smallest_image, LARGEST_IMAGE + 1) if _largest_divisor(side)]
        return min(sides, key=lambda side: (abs(side - image_size), -side))

    def embed(self, images: Tensor) -> Tensor:
        """Each patch by one linear layer, and its position. (B, C, S, S) -> (B, T, 192)."""
        side = -(-images.shape[-1] // self.patch) * self.patch
        if side != images.shape[-1]:
            images = functional.interpolate(images, size=side, mode="bilinear", align_corners=False)
        tokens: Tensor = self.patches(images).flatten(2).transpose(1, 2)
        return tokens + self._positions(side // self.patch)

    def encode(self, tokens: Tensor) -> Tensor:
        """What the blocks and the last norm make of any tokens of an image. (B, T', 192) -> (B, T', 192)."""
        for layer in self.layers[1:]:
            tokens = self.get_submodule(layer)(tokens)
        return tokens

    def _positions(self, grid: int) -> Tensor:
        assert isinstance(self.positions, Tensor)
        if grid == self.grid:
            return self.positions
        return sines_and_cosines(grid, WIDTH).to(self.positions.device)


def patch_of(image_size: int) -> int:
    """Side of a patch in pixels: the largest up to 16 that divides the image into 7 patches or more along a side.

    28 -> 4, 32 -> 4, 64 -> 8, 96 -> 12, 224 -> 16. Raises SettingsError where that makes more than 16.
    """
    patch = _largest_divisor(image_size)
    if patch is None:
        raise SettingsError(
            f"vit-tiny cannot cut an image of {image_size} px into {FEWEST} to {MOST} patches a side of at most "
            f"{LARGEST_PATCH} px",
            fix=(Set("image_size", ViTTiny.nearest_size(image_size)), Set("backbone", "small-resnet")),
        )
    return patch


def _largest_divisor(image_size: int) -> int | None:
    patches = range(min(LARGEST_PATCH, image_size // FEWEST), SMALLEST_PATCH - 1, -1)
    patch = next((patch for patch in patches if image_size % patch == 0), None)
    return None if patch is None or image_size // patch > MOST else patch
