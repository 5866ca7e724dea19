"""JPEG, GIF, BMP, WebP and all PNG and PNM of up to eight bits: Pillow says what a file holds."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_app.data.decoding.limits import Limit, Unreadable
from ssl_app.data.decoding.orientation import TAG, turned

# Pillow tries these and no other: its EPS reader, for one, starts Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")
KEPT = {"L": 1, "RGB": 1, "F": 4, "I": 4, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # bytes a sample
ANIMATED = 2  # bit of the flags of a WebP
BAND = 2**24  # pixels that are taken out of Pillow's memory at a time

# Pillow's own limit is a warning at 90 megapixels, which scans of slides and wafers pass honestly. Ours is `admit`.
Image.MAX_IMAGE_PIXELS = None


def decode_pillow(content: bytes, limit: Limit) -> NDArray[Any]:
    """(H, W) or (H, W, 3). Raises Unreadable for a cut file, TooLarge by the header alone."""
    if content[:4] == b"RIFF":
        limit.admit(webp_shape(content))  # Pillow makes room for a WebP as soon as it opens it
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        samples = 1 if image.mode in {"1", "LA", "La"} or KEPT.get(image.mode, 0) > 1 else len(image.getbands())
        limit.admit((image.height, image.width, max(samples, 3 if image.mode == "P" else 1)), KEPT.get(image.mode, 1))
        image.load()
        array = unpacked(image)
        return turned(array, image.getexif().get(TAG, 1))


def has_alpha(path: Path) -> bool:
    """Whether a file has an alpha channel or a transparent color, by its header; False where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in {"RGBA", "LA", "La", "RGBa", "PA"} or "transparency" in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def unpacked(image: Image.Image) -> NDArray[Any]:
    """The pixels by the rule of their mode, in bands: Pillow's own copy of the whole would need the memory thrice."""
    rows = max(1, BAND // image.width)
    bands = range(0, image.height, rows)
    if len(bands) == 1:
        return plain(image)
    array: NDArray[Any] | None = None
    for top in bands:
        band = plain(image.crop((0, top, image.width, min(top + rows, image.height))))
        if array is None:
            array = np.empty((image.height, *band.shape[1:]), band.dtype)
        array[top : top + len(band)] = band
    assert array is not None
    return array


def plain(image: Image.Image) -> NDArray[Any]:
    """Alpha is dropped, one bit becomes 0 and 255, a palette and CMYK become RGB; all else stays as it is."""
    if image.mode in {"LA", "La"}:
        return np.asarray(image.getchannel(0))
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode in KEPT:
        return np.asarray(image)  # never .convert() here: it clips 16 bits to 255
    image.info.pop("transparency", None)  # of a palette's colors; Pillow warns where they are dropped
    return np.asarray(image.convert("RGB"))


def webp_shape(content: bytes) -> tuple[int, int, int]:
    """(H, W, bytes of a pixel) by the first chunk of a WebP (RFC 9649, sections 2.5 to 2.7).

    Four, and twelve of an animation, whose decoder holds three pictures. Raises Unreadable where it has none.
    """
    held = 4
    kind, body = content[12:16], content[20:30]
    if content[8:12] != b"WEBP" or len(body) < 10:
        raise Unreadable("the file is damaged")
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        held = 12 if body[0] & ANIMATED else 4
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + bits % 2**14, 1 + (bits >> 14) % 2**14
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(body[at : at + 2], "little") % 2**14 for at in (6, 8))
    else:
        raise Unreadable("the file is damaged")
    return height, width, held
