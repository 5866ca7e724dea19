"""The class maps that ReLabel's authors publish for ImageNet: a file of torch for each image (arXiv:2101.05022).

Each holds a tensor (2, 5, 15, 15): the five highest logits of a place, and the ids of their classes. The files are
named as the images, with another ending. Nothing but tensors is unpickled.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.errors import DataError, Fix

ENDINGS = (".pt", ".pth")


def path_of(folder: Path, key: str) -> Path | None:
    """The file of an image: its path below the root with another ending, or None. A name may hold dots."""
    image = Path(key)
    stems = (image.with_suffix(""), image)  # the second for names whose ending was kept
    return next((path for stem in stems for end in ENDINGS if (path := folder / f"{stem}{end}").is_file()), None)


def read_published(path: Path, classes: int) -> NDArray[np.uint16]:
    """A map as our files hold it, (2 k + 1, h, w); classes that it does not name have a logit of 0.

    Raises DataError for what is no such tensor.
    """
    wrong = DataError(f"{path} is no published class map", expected="a tensor (2, k, h, w) of logits and class ids")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise wrong from error
    if not isinstance(held, Tensor) or held.dim() != 4 or held.shape[0] != 2:
        raise wrong
    values, ids = held.float().numpy()
    k = len(values)
    if not np.isfinite(values).all() or ids.min() < 0 or (ids != np.round(ids)).any():
        raise wrong
    if ids.max() >= classes:
        raise DataError(
            f"{path} names class {int(ids.max())}, the data have {classes} classes",
            expected="the classes of the maps, in the order of their names",
            fix=Fix("give all of ImageNet's class folders"),
        )
    order = np.argsort(-values, axis=0, kind="stable")
    values, ids = np.take_along_axis(values, order, 0), np.take_along_axis(ids, order, 0)
    others = np.full_like(values[:1], np.log(max(classes - k, 1e-30)))  # so many logits of 0
    every: NDArray[np.float32] = np.concatenate([values, others]) if classes > k else values
    highest = every.max(0)
    total = highest + np.log(np.exp(every - highest).sum(0))
    halves = (np.concatenate([values, others]) - total).clip(-60_000, 0).astype("<f2").view("<u2")
    return np.concatenate([ids.astype("<u2"), halves])


def frame_of(shape: Sequence[Any]) -> tuple[float, float, float, float]:
    """The part of a map of the whole image that the center square covers. (H, W, ...) -> x0, y0, x1, y1."""
    height, width = shape[:2]
    short = min(height, width)
    left, top = (width - short) // 2 / width, (height - short) // 2 / height
    return left, top, left + short / width, top + short / height
