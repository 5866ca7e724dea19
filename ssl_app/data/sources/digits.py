"""The 1,797 handwritten digits that scikit-learn carries: 8x8 pixels, ten classes, nothing to download."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.sources.base import UNUSED, Columns, Source, only_in_manifests


class Digits(Source):
    """scikit-learn's digits; a mirrored digit is no digit."""

    mirrors = False

    def __init__(self, data: str, columns: Columns) -> None:
        from sklearn.datasets import load_digits

        only_in_manifests(data, columns, "the built-in set")
        self.name = data
        images, labels = load_digits().images, load_digits().target
        self.images = np.rint(images * 255 / 16).astype(np.uint8)[..., None]  # (1797, 8, 8, 1), from 0..16
        self.keys = tuple(f"{i:04d}" for i in range(len(images)))
        self.file_names = ()
        if columns.label != UNUSED:
            self.labels = tuple(str(label) for label in labels)
            self.columns = Columns(label="digit")

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether the name is `digits`; a folder of that name is ./digits."""
        return data == "digits"

    def read(self, i: int) -> NDArray[Any]:
        """Image i: (8, 8, 1) uint8."""
        array: NDArray[Any] = self.images[i]
        return array

    def stamps(self) -> list[str]:
        """(N,) the set has never changed."""
        return [f"scikit-learn digits|{key}" for key in self.keys]
