"""NIfTI volumes (.nii, .nii.gz), cut into slices that lie as DICOM shows them; the volume is the group.

`volume.nii.gz#12` is slice 12 of the file's own grid, from 0. Of a file of more than three axes `#12@3` is slice 12
at place 3 of the others (time, echo, direction of diffusion), the first of them counted fastest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import MAX_IMAGE_MB, MEGABYTE
from ssl_app.data.files import Files
from ssl_app.data.images import Unreadable
from ssl_app.data.members import Look, Read
from ssl_app.data.sources.base import Columns

PLANES = ("sagittal", "coronal", "axial")  # what is cut across the world's axes: left-right, back-front, feet-head
COLORS = (("R", "G", "B"), ("R", "G", "B", "A"))
CLEARLY = 1.01  # times the other spacings, for the largest one to be that between the planes
MOST_DEFLATED = 1100  # bytes that gzip can make of one


class Nifti(Files):
    """Slices of volumes, in the units that the header's slope and intercept give."""

    kind = "NIfTI"
    packages = ("nibabel",)
    group, group_from = "volume", "each NIfTI file"
    value_units = "modality"
    volumes = True

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """By the ending; of a header with its image in a second file by NIfTI's mark."""
        lower = name.lower()
        return lower.endswith((".nii", ".nii.gz")) or (lower.endswith(".hdr") and head[344:347] == b"ni1")

    @classmethod
    def look(cls, path: Path, columns: Columns) -> Look:
        """The slices along the axis that is requested, or the one through the planes of acquisition."""
        refuse_other_compression(path)
        image = load(path)
        if not hasattr(image, "affine"):
            return Look(left_out=f"{type(image).__name__.removesuffix('Image')} (no volume)")
        cut = Cut.of(image, columns.axis)
        cut.refuse_cut_short(path)
        plane = tuple(side for axis, side in enumerate(cut.shape[:3]) if axis != cut.axis)
        largest = plane, image.dataobj.dtype.itemsize
        slices = range(cut.shape[cut.axis])
        names = (
            [f"{k}@{place}" for place in range(cut.places) for k in slices] if cut.places > 1 else map(str, slices)
        )
        at = f" at each of {cut.places} places of the other axes" if cut.places > 1 else ""
        remarks = [f"cut into {PLANES[cut.world]} slices{at}"]
        if not (image.header["sform_code"] or image.header["qform_code"]):
            remarks.append("no orientation in the header; the axes are taken for left, anterior, superior")
        return Look(tuple(names), dtype=cut.dtype, largest=largest, remarks=tuple(remarks))

    @classmethod
    @contextmanager
    def opened(cls, path: Path, columns: Columns, max_image_mb: int) -> Iterator[Read]:
        """The volume: slices are read one by one; a compressed one is unpacked once, when a second is asked for."""
        cut = Cut.of(load(path), columns.axis)
        cut.compressed = path.suffix.lower() == ".gz"
        yield cut.slice


def refuse_other_compression(path: Path) -> None:
    """Raise Unreadable for a volume whose name does not say whether it is compressed: nibabel goes by the name."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if compressed != (path.suffix.lower() == ".gz") and path.stat().st_size:
        name = f"{path.name}.gz" if compressed else path.name[:-3]
        raise Unreadable(f"it is {'' if compressed else 'not '}compressed by gzip; rename it {name}")


def load(path: Path) -> Any:
    """nibabel's image: the header, and a proxy of the values."""
    import nibabel

    return nibabel.load(path)


@dataclass
class Cut:
    """A volume and how it is cut: which axis of the file is through the slices, and which way the others run."""

    values: Any  # nibabel's proxy
    shape: tuple[int, ...]  # of the file, three axes or more
    axis: int  # of the file, through the slices
    world: int  # the world's axis that it follows
    turns: NDArray[np.float64]  # (3, 2) of each axis of the file: the world's axis, and 1 or -1 for its direction
    compressed: bool = False
    unpacked: NDArray[Any] | None = field(default=None, repr=False)
    read: int = 0  # slices so far

    @classmethod
    def of(cls, image: Any, plane: str | None) -> "Cut":
        """How an image is cut: into the plane that is requested, or that of acquisition. Raises Unreadable."""
        from nibabel.orientations import io_orientation

        kind = image.dataobj.dtype
        if kind.kind == "c" or (kind.names is not None and kind.names not in COLORS):
            raise Unreadable(f"voxels of type {kind}; expected real numbers or RGB")
        shape = tuple(map(int, image.shape)) + (1,) * (3 - len(image.shape))
        if min(shape) < 1:
            raise Unreadable(f"a volume of shape {shape}")
        turns = io_orientation(image.affine)
        if not np.isfinite(turns).all():
            raise Unreadable("the header's orientation has no inverse")
        if plane is not None:
            axis = int(np.flatnonzero(turns[:, 0] == PLANES.index(plane))[0])
        else:
            axis = through_plane(image)
        return cls(image.dataobj, shape, axis, int(turns[axis, 0]), turns)

    @property
    def places(self) -> int:
        """How many volumes the file holds, one for each time or channel."""
        return prod(self.shape[3:])

    @property
    def dtype(self) -> str:
        """The narrowest type of ours that any volume of this kind fits in."""
        kind = self.values.dtype
        if kind.names is not None:
            return "uint8"
        plain = (self.values.slope, self.values.inter) == (1, 0) and kind.kind == "u" and kind.itemsize <= 2
        return str(kind.newbyteorder("=")) if plain else "float32"

    def refuse_cut_short(self, path: Path) -> None:
        """Raise Unreadable where the file cannot hold what its header promises."""
        file = path.with_suffix(".img") if path.suffix.lower() == ".hdr" else path
        needed = int(self.values.offset) + prod(self.shape) * self.values.dtype.itemsize
        held = file.stat().st_size * (MOST_DEFLATED if path.suffix.lower() == ".gz" else 1)
        if needed > held:
            raise Unreadable(
                f"the file is cut short: {self.shape} voxels do not fit in its {file.stat().st_size} bytes"
            )

    def slice(self, name: str) -> NDArray[Any]:
        """One slice, (H, W) or (H, W, 3): right of the body at the left, front or head at the top."""
        slice_name, _, place = name.partition("@")
        index: list[Any] = [slice(None)] * 3
        index[self.axis] = int(slice_name)
        others = np.unravel_index(int(place or 0), self.shape[3:], order="F") if len(self.shape) > 3 else ()
        array = self.values_at((*index, *map(int, others)))
        if array.dtype.names is not None:
            array = np.stack([array[color] for color in "RGB"], axis=-1)
        columns, rows = (axis for axis in sorted(range(3), key=lambda axis: self.turns[axis, 0]) if axis != self.axis)
        if columns < rows:
            array = np.swapaxes(array, 0, 1)
        # toward left, back and feet, as in DICOM: against the directions of the affine
        down, right = (-1 if self.turns[axis, 1] > 0 else 1 for axis in (rows, columns))
        return array[::down, ::right]

    def values_at(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """The scaled values there."""
        from nibabel.volumeutils import apply_read_scaling

        self.read += 1
        index = index[: len(self.values.shape)]
        size = prod(self.shape) * self.values.dtype.itemsize  # bytes
        if self.compressed and self.read > 1 and size <= MAX_IMAGE_MB * MEGABYTE:
            if self.unpacked is None:
                self.unpacked = np.asanyarray(self.values.get_unscaled())
            found = apply_read_scaling(self.unpacked[index], self.values.slope, self.values.inter)
        else:
            found = self.values[index]
        array: NDArray[Any] = np.asarray(found)
        return array[:, None] if array.ndim == 1 else array  # a file of two axes, cut across


def through_plane(image: Any) -> int:
    """The file's axis between the planes of acquisition: the header's, that of largest spacing, or the last."""
    named = image.header.get_dim_info()[2]
    if named is not None:
        return int(named)
    spacing = [float(side) for side in image.header.get_zooms()[:3]]
    largest = int(np.argmax(spacing)) if len(spacing) == 3 else 2
    others = [side for axis, side in enumerate(spacing) if axis != largest]
    return largest if len(spacing) == 3 and spacing[largest] > CLEARLY * max(others) else 2
