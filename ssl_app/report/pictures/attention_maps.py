"""Attention maps: where a layer is active, as the sum of |activation|^p over channels (RotNet, arXiv:1803.07728)."""

from functools import partial
from pathlib import Path

from torch import Tensor

from ssl_app.evaluation.attention import energy
from ssl_app.report.grid import Grid
from ssl_app.report.pictures.base import Picture, Subject, as_array, heated_rows, to_unit

IMAGES = 6
POWERS = (1, 2, 4)  # of the first, the second and all further layers, as in the paper's figure


class AttentionMaps(Picture):
    """Images down; each image, and the map of each layer over it, across."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`attention-maps.png`. Raises SettingsError where no layer has a map of more than one place."""
        layers = subject.map_layers(smallest=2)
        powers = [POWERS[min(number, len(POWERS) - 1)] for number in range(len(layers))]
        images = subject.examples(IMAGES)
        maps = []  # of each layer, (n, h, w) in [0, 1]
        for layer, power in zip(layers, powers, strict=True):
            found = energy(as_array(subject.map(partial(_activations, subject, layer), images)), power)
            maps.append([to_unit(one) for one in found])
        about = (
            "How active each place of a layer is: the sum of |activation|^p over its channels. Bright is the most "
            "active place of the image, dark the least."
        )
        heads = ["image", *(f"{layer}, p = {power}" for layer, power in zip(layers, powers, strict=True))]
        grid = Grid(f"Attention maps of {subject.name}", about, heads, [*map(subject.caption, images)])
        tiles = heated_rows(subject.pictures(images), maps)
        return [grid.sheet(tiles, subject.tile).save(folder / "attention-maps.png")]


def _activations(subject: Subject, layer: str, images: Tensor) -> Tensor:
    return subject.backbone(images, layer).float()  # type: ignore[no-any-return]
