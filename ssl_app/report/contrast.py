"""Images as people see them best: the contrast and the size that they are shown at."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SMALL, LARGE = 96, 128  # pixels: smaller images are enlarged by a whole factor, larger ones averaged down
CLIPPED = 0.5  # percent of the pixels at either end, which gray images are stretched between


def tile_side(side: int) -> int:
    """Pixels that an image of this side is shown at."""
    return side * -(-SMALL // side) if side <= LARGE else LARGE


@dataclass(frozen=True)
class Contrast:
    """What becomes black and what white, alike for all images of a sheet."""

    low: float
    high: float

    @classmethod
    def of(cls, images: NDArray[np.float32]) -> "Contrast":
        """Of images in [0, 1], (n, S, S, C): gray is stretched to what they use, and RGB stays."""
        if images.shape[-1] == 3 or not images.size:
            return cls(0.0, 1.0)
        low, high = np.percentile(np.nan_to_num(images[..., 0]), (CLIPPED, 100 - CLIPPED))
        return cls(float(low), max(float(high), float(low) + 1e-6))

    def shown(self, images: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        """RGB, gray or, of other channels, the first; large images are averaged down. -> each (s, s, 1 or 3)."""
        values = np.nan_to_num(np.asarray(images if images.shape[-1] == 3 else images[..., :1], dtype=np.float64))
        values = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        if images.shape[1] <= LARGE:
            return list(values)
        smaller = [cv2.resize(one, (LARGE, LARGE), interpolation=cv2.INTER_AREA) for one in values]
        return [np.asarray(one, dtype=np.float64).reshape(LARGE, LARGE, -1) for one in smaller]
