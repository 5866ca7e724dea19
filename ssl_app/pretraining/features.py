"""Features of a backbone while a pretext method trains it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.data.loading import ImageRows
from ssl_app.pretext.base import Pretext
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import map_images


def pooled(
    task: Pretext[object], rows: ImageRows, hardware: Hardware, group: SingleProcess | None = None
) -> NDArray[np.float32]:
    """Pooled features of images, as if training ended here. -> (n, D), the same in all processes."""
    return mapped(task, task.features, rows, hardware, group).float().flatten(1).numpy()


def mapped(
    task: Pretext[object],
    fn: Callable[[Tensor], Tensor],
    rows: ImageRows,
    hardware: Hardware,
    group: SingleProcess | None = None,
) -> Tensor:
    """fn of images, (B, C, S, S) -> (B, ...); each process of a group computes its share. -> (n, ...) in all."""
    count = len(rows.indices)
    if group is None or count < group.world:
        return map_images(task, fn, rows, hardware)
    mine = slice(group.rank * count // group.world, (group.rank + 1) * count // group.world)
    found = map_images(task, fn, rows.at(rows.indices[mine]), hardware)
    return group.all_gather(found.to(hardware.device)).cpu()
