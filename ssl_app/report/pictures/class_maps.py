"""Class maps: places of an image that speak for a class or against it (Zhou et al., 2016, arXiv:1512.04150)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app.errors import SettingsError
from ssl_app.report.grid import Grid, Tile
from ssl_app.report.palette import COLORS
from ssl_app.report.pictures.base import Picture, Subject, as_array, two_sided
from ssl_app.training.class_maps import mean_class_maps
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.inference import map_images, probabilities

IMAGES, CLASSES = 6, 3  # images down, classes across


class ClassMaps(Picture):
    """Images down; each image, and the map of each of its likeliest classes, across."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`class-maps.png`. Raises SettingsError where there is no classifier, or its head is not linear."""
        if subject.predictor is None:
            raise SettingsError(f"{subject.name} is no classifier", expected="a finished run of finetune")
        predictor, images = subject.predictor, subject.examples(IMAGES)
        rows = subject.rows.at(subject.rows.indices[np.asarray(images)])
        likely = probabilities(predictor, rows, subject.hardware)  # (n, K)
        if likely.shape[1] != len(subject.classes):
            raise SettingsError(
                f"{subject.name} has {likely.shape[1]} classes, the images have {len(subject.classes)}"
            )
        maps = as_array(map_images(predictor, partial(mean_class_maps, predictor), rows, subject.hardware))
        order = np.argsort(-likely, axis=1, kind="stable")[:, :CLASSES]
        heads = ["image, its class", *["likeliest class", "second", "third"][: order.shape[1]]]
        tiles = [
            [Tile(picture, subject.caption(image)), *_tiles(subject, picture, likely[row], maps[row], order[row])]
            for row, (image, picture) in enumerate(zip(images, subject.pictures(images), strict=True))
        ]
        grid = Grid(f"Class maps of {subject.name}", _about(predictor), heads)
        return [grid.sheet(tiles, subject.tile).save(folder / "class-maps.png")]


def _about(predictor: Ensemble) -> str:
    members = len(predictor.classifiers)
    mean = f" Mean over the maps of {members} classifiers." if members > 1 else ""
    return (
        "Which places speak for a class (orange) and against it (blue): the head's weights times the last "
        f"map, without a gradient. One scale an image.{mean}"
    )


def _tiles(
    subject: Subject,
    picture: NDArray[np.float64],
    likely: NDArray[np.float64],
    maps: NDArray[np.float64],
    classes: Sequence[int] | NDArray[np.int64],
) -> list[Tile]:
    largest = max(float(np.abs(maps[k]).max()) for k in classes)
    return [
        Tile(
            two_sided(picture, maps[k] / max(largest, 1e-12), COLORS[1], COLORS[0]),
            f"{likely[k]:.2f} {subject.captions[k]}",
        )
        for k in classes
    ]
