""".npy arrays: one image (H, W) or (H, W, C), or a stack (N, H, W) or (N, H, W, C); a folder of them, or one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ssl_app.data.files import Files
from ssl_app.data.images import Unreadable
from ssl_app.data.members import ONE, Look, Read
from ssl_app.data.sources.base import Columns

COLORS_FIRST = "3 gray images each; if the first axis is color, save numpy.moveaxis(array, 0, -1)"
MOST_BANDS = 4  # a last axis of so many is that of the bands, of a longer one of three axes the width


class Npy(Files):
    """Arrays that are mapped, not loaded; nothing is unpickled."""

    kind = ".npy"

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """By the ending, or by NumPy's mark."""
        return name.lower().endswith(".npy") or head.startswith(b"\x93NUMPY")

    @classmethod
    def look(cls, path: Path, columns: Columns) -> Look:
        """One image, or as many as the first axis is long."""
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape = array.shape
        if channels_first(shape):
            raise Unreadable(
                f"an array of shape {shape}, channels first; expected (N, H, W, C): save numpy.moveaxis(array, 1, -1)"
            )
        if is_stack(shape):
            remarks = (COLORS_FIRST,) if len(shape) == 3 and shape[0] == 3 else ()
            names = tuple(map(str, range(shape[0])))
            return Look(names, largest=(shape[1:], array.dtype.itemsize), remarks=remarks)
        if len(shape) not in (2, 3):
            raise Unreadable(f"an array of shape {shape}; expected an image (H, W, C), or a stack (N, H, W, C)")
        return Look(ONE, largest=(shape, array.dtype.itemsize))

    @classmethod
    @contextmanager
    def opened(cls, path: Path, columns: Columns, max_image_mb: int) -> Iterator[Read]:
        """Each image as its file's own type has it."""
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        yield lambda name: np.asarray(array[int(name)] if name else array)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an array of four axes has its channels before height and width, as PyTorch orders them."""
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] > MOST_BANDS


def is_stack(shape: tuple[int, ...]) -> bool:
    """Whether the first axis counts images: of four axes, and of three where the last one is longer than 4."""
    return min(shape, default=0) > 0 and (len(shape) == 4 or (len(shape) == 3 and shape[-1] > MOST_BANDS))
