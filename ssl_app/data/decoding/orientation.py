"""The turn that EXIF and TIFF name: applied once, by us, whatever the format."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

TAG = 274  # of EXIF and of TIFF


def turned(array: NDArray[Any], orientation: object) -> NDArray[Any]:
    """(H, W) or (H, W, C) as it is meant to be seen, by orientation 1 to 8; any other value turns nothing."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
