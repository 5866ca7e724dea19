"""One file to one array at its true bit depth: (H, W, C) in uint8, uint16 or float32.

The named rules: EXIF turns are applied; a palette becomes RGB; alpha is dropped; CMYK becomes RGB;
one bit becomes 0 and 255; int16 becomes float32; wider integers become uint16 where they fit and
float32 elsewhere; pixels that are not finite take the lowest finite value; the pages of a TIFF are
its bands; of an animation the first picture is taken.
"""

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

EXTENSIONS = frozenset(
    {
        ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
        ".tiff", ".webp",
    }
)  # fmt: skip

KNOWN_UNREAD = {
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".jp2": "JPEG 2000",
    ".heic": "HEIC",
    ".avif": "AVIF",
    ".exr": "OpenEXR",
    ".svs": "whole-slide",
    ".ndpi": "whole-slide",
    ".czi": "CZI",
    ".nd2": "ND2",
    ".lif": "LIF",
}
# Pillow tries these and no other: its EPS reader, for one, starts Ghostscript.
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
MOST_PIXELS = 2**30
TIFF_ORIENTATION = 274

# Pillow's own limit is a warning at 90 megapixels, which scans of slides and wafers pass honestly.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS


class Unreadable(Exception):
    """An image that cannot be read, with the reason in one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()) or "unknown reason")


def decode(data: bytes | Path, name: str) -> NDArray[Any]:
    """The picture in a file or in its bytes: (H, W, C) uint8, uint16 or float32. Raises Unreadable."""
    try:
        if isinstance(data, Path) and data.exists() and not data.is_file():
            raise Unreadable("it is no regular file")  # to read a pipe is to wait for somebody to write
        content = data.read_bytes() if isinstance(data, Path) else data
    except OSError as error:
        raise Unreadable("the file is missing" if isinstance(error, FileNotFoundError) else error) from error
    if not content:
        raise Unreadable("the file is empty")
    unread = unread_kind(name, content)
    if unread is not None:
        raise Unreadable(f"{unread} is not read yet")
    try:
        array = decode_content(content)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise anything on broken files
        raise Unreadable(reason_of(error)) from error
    return standard(array)


def unread_kind(name: str, head: bytes) -> str | None:
    """The format's name where it is one that is known and not read yet; head holds 132 bytes or more."""
    if head[128:132] == b"DICM":
        return "DICOM"
    lower = name.lower()
    return next((kind for end, kind in KNOWN_UNREAD.items() if lower.endswith(end)), None)


def decode_content(content: bytes) -> NDArray[Any]:
    """The decoder is chosen by the first bytes: what a file is called is not what it is."""
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return decode_tiff(content)
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[24] == 16:
        return decode_deep_png(content)
    if content[:2] in (b"P5", b"P6", b"P2", b"P3") and deep_pnm(content):
        return from_opencv(content)
    return decode_pillow(content)


def decode_pillow(content: bytes) -> NDArray[Any]:
    """Everything of eight bits: Pillow says what a file holds, and refuses a truncated one."""
    with Image.open(io.BytesIO(content), formats=PILLOW_FORMATS) as image:
        image.load()
        turn = image.getexif().get(TIFF_ORIENTATION, 1)  # after load(): Pillow turns a TIFF by itself
        if image.mode in {"LA", "La"}:
            array = np.asarray(image)[..., 0]
        elif image.mode == "1":
            array = np.asarray(image.convert("L"))
        elif image.mode in {"L", "RGB", "F", "I"} or image.mode.startswith("I;16"):
            array = np.asarray(image)  # never .convert() here: it clips 16 bits to 255
        else:
            array = np.asarray(image.convert("RGB"))
    return turned(array, turn)


def decode_deep_png(content: bytes) -> NDArray[Any]:
    """PNG of 16 bits, which Pillow would cut to 8 where it has color."""
    array = from_opencv(content)
    if content[25] == 4:  # gray and alpha, which OpenCV spreads over four channels
        array = array[..., 0]
    turn = 1
    if b"eXIf" in content:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            turn = image.getexif().get(TIFF_ORIENTATION, 1)
    return turned(array, turn)


def deep_pnm(content: bytes) -> bool:
    """True where a PNM header names a largest value above 255."""
    words = b" ".join(line.split(b"#")[0] for line in content[:512].split(b"\n")).split()
    return len(words) > 3 and words[3].isdigit() and int(words[3]) > 255


def from_opencv(content: bytes) -> NDArray[Any]:
    """OpenCV's exact reading, as gray or RGB; alpha dropped."""
    array: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise Unreadable("the file is damaged")
    return array if array.ndim == 2 else array[..., 2::-1]  # BGR(A) -> RGB


def decode_tiff(content: bytes) -> NDArray[Any]:
    """TIFF: bands and depth by tifffile; eight-bit kinds that need a color rule by Pillow."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        pages = len(file.pages)
        if page.photometric in (3, 5, 6) and pages == 1 and (page.bitspersample or 0) <= 8:
            return decode_pillow(content)  # palette, CMYK, YCbCr
        series = file.series[0]
        try:
            array = bands_last(series.asarray(), series.axes)
        except (ValueError, ImportError, KeyError) as error:  # a compression that tifffile cannot undo
            if "imagecodecs" not in str(error) and "compression" not in str(error).lower():
                raise
            if pages > 1 or page.samplesperpixel not in (1, 3, 4):
                raise Unreadable(
                    f"TIFF of several bands under compression {page.compression!r}; save without"
                ) from error
            array = from_opencv(content)
        else:
            alpha = sum(int(extra) in (1, 2) for extra in page.extrasamples or ())
            if alpha and array.ndim == 3:
                array = array[..., :-alpha]
        if page.photometric == 0 and array.dtype.kind in "bu":  # white is zero
            top = True if array.dtype == bool else np.iinfo(array.dtype).max
            array = top ^ array if array.dtype == bool else top - array
        turn = page.tags.valueof(TIFF_ORIENTATION, default=1)
    return turned(array, int(turn))


def bands_last(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """(H, W) or (H, W, C) from tifffile's axes: one axis beside Y and X is that of the bands."""
    keep = [position for position, axis in enumerate(axes) if axis in "YX" or array.shape[position] > 1]
    kept = "".join(axes[position] for position in keep)
    array = array.reshape([array.shape[position] for position in keep])
    if len(kept) > 3 or "Y" not in kept or "X" not in kept:
        raise Unreadable(f"TIFF with axes {axes} of {array.shape}; expected one picture, or pages as bands")
    if len(kept) == 3:
        band = next(position for position, axis in enumerate(kept) if axis not in "YX")
        array = np.moveaxis(array, band, -1)
    return array


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The array as it is meant to be seen, by the EXIF orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def standard(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, C) of any type -> (H, W, C) in a depth of ours, contiguous."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise Unreadable(f"an array of shape {array.shape}; expected (H, W) or (H, W, C) of one pixel or more")
    return np.ascontiguousarray(standard_depth(array))


def standard_depth(array: NDArray[Any]) -> NDArray[Any]:
    """The same values as uint8, uint16 or float32; what is not finite takes the lowest finite value."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if kind in "iu":
        # int16 has one answer for a whole set: CT values are negative in one slice and not in the next
        fits = size > 2 and array.size > 0 and int(array.min()) >= 0 and int(array.max()) <= 65535
        return array.astype(np.uint16 if fits else np.float32)
    if kind != "f":
        raise Unreadable(f"pixels of type {array.dtype}; expected integers or real numbers")
    finite = np.isfinite(array)
    if not finite.all():
        if not finite.any():
            raise Unreadable("no pixel is a finite number")
        array = np.where(finite, array, array[finite].min())
    with np.errstate(over="ignore"):
        clipped: NDArray[Any] = np.clip(array, *FLOAT32).astype(np.float32, copy=False)
    return clipped


FLOAT32 = (np.finfo(np.float32).min, np.finfo(np.float32).max)


def reason_of(error: Exception) -> str:
    """A decoder's error as a reason: its own words where they are for people."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, struct.error | IndexError | KeyError | AssertionError):
        return "the file is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS} pixels"
    return str(error) or type(error).__name__
