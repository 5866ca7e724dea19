"""Images that are given in Python, packed as those of a set are, without a cache: paths, Pillow's images, arrays."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_app.data.images import Unreadable, decode, standard
from ssl_app.data.reduction import Reduced, reduce
from ssl_app.data.sources.base import in_order
from ssl_app.data.spec import PixelSpec
from ssl_app.data.store import Form
from ssl_app.errors import DataError, Fix

Picture = str | Path | Image.Image | NDArray[Any]  # an array is (H, W) or (H, W, C)
COLORS = (1, 3, 4)  # numbers of channels that a last axis is taken for
PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # modes of Pillow that a PNG holds as they are


def pictures(given: Picture | Sequence[Picture], channels: int | None) -> list[Picture]:
    """One picture, a list of them, or an array of several, as a list that is not empty.

    An array (N, H, W, C) is N pictures. One of three axes is one picture (H, W, C) where the last axis is as long as
    the network has `channels`, or is 1, 3 or 4; else N gray ones (N, H, W). Raises DataError for anything else.
    """
    if isinstance(given, str | Path | Image.Image):
        return [given]
    if isinstance(given, np.ndarray):
        several = given.ndim == 4 or (given.ndim == 3 and given.shape[-1] not in (channels, *COLORS))
        given = list(given) if several else [given]
    if not isinstance(given, Sequence):
        raise _refusal(given)
    if not len(given):
        raise DataError("no image is given", expected="one or more")
    return list(given)


def pack_given(given: Sequence[Picture], pixels: PixelSpec) -> NDArray[Any]:
    """Decode pictures and reduce them to the form of a set's, as `packing.pack` does. -> (N, P, P, C).

    Raises DataError for the first that cannot be read, for mixed depths, and for another number of channels.
    """
    assert pixels.channels is not None
    side = pixels.pack_side or pixels.size

    def reduced(numbered: tuple[int, Picture]) -> Reduced | DataError:
        number, picture = numbered
        try:
            return reduce(_array(picture), side, pixels.nodata, pixels.fit)
        except Unreadable as reason:
            return DataError(f"{_named(number, picture)} cannot be read: {reason}")

    form = Form(pixels.channels, "scaled" if pixels.intensity == "dtype" else "strict")
    small = []
    for (number, picture), one in zip(enumerate(given), in_order(reduced, enumerate(given)), strict=True):
        if isinstance(one, DataError):
            raise one
        form.admit(_named(number, picture), one)
        small.append(one.small)
    form.settle()
    for refusal in form.refusals():
        raise refusal
    return np.stack([form.fit(one) for one in small])  # in the form of all: a mixed depth shows at the end only


def _array(picture: Picture) -> NDArray[Any]:
    """(H, W, C) at its true bit depth. Raises Unreadable, DataError for what is no picture."""
    if isinstance(picture, str | Path):
        return decode(Path(picture), str(picture))
    if isinstance(picture, Image.Image):
        return decode(_file_of(picture), "")
    if isinstance(picture, np.ndarray):
        return standard(picture)
    raise _refusal(picture)


def _file_of(picture: Image.Image) -> bytes:
    """Pillow's image as a lossless file, so that every rule for files (turns, alpha, palettes) holds for it too."""
    buffer = io.BytesIO()
    try:
        if picture.mode in PNG:
            picture.save(buffer, "PNG", compress_level=0, exif=picture.getexif())
        else:
            picture.save(buffer, "TIFF", exif=picture.getexif())
    except OSError as error:
        raise Unreadable(error) from error
    return buffer.getvalue()


def _named(number: int, picture: Picture) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"image {number}"


def _refusal(given: object) -> DataError:
    kind = type(given)
    return DataError(
        f"{kind.__module__}.{kind.__qualname__} is no image",
        expected="a path, an image of Pillow, or a numpy array (H, W) or (H, W, C)",
        fix=Fix("give one, or a list of them"),
    )
