"""Features of a backbone while a pretext method trains it."""

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.loading import ImageRows
from ssl_app.pretext.base import Pretext
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import map_images


def pooled(task: Pretext[object], rows: ImageRows, hardware: Hardware) -> NDArray[np.float32]:
    """Pooled features of images, as if training ended here. -> (n, D)."""
    return map_images(task, task.features, rows, hardware).float().flatten(1).numpy()
