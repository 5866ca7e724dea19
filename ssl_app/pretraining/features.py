"""Features of a backbone while a pretext method trains it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.intensity import Pixels
from ssl_app.pretext.base import Pretext
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import over


def pooled(
    task: Pretext, rows: NDArray[np.int64], images: NDArray[Any], pixels: Pixels, hardware: Hardware
) -> NDArray[np.float32]:
    """Pooled features of rows of packed images, as if training ended here. -> (n, D)."""
    found = over(task, task.features, rows, images, pixels, hardware, task.backbone.image_size)
    return found.float().flatten(1).numpy()
