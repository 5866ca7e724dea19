"""One file to one array at its true bit depth: (H, W, C) in uint8, uint16 or float32.

The named rules, the same in every format and under every compression (data/decoding has a file a format): turns
(EXIF, TIFF) are applied; a palette, CMYK and YCbCr become RGB; white is the largest value; alpha is dropped and not
multiplied in; gamma and color profiles are not applied; fewer than eight bits are spread over 0 to 255; int16 becomes
float32; wider integers become uint16 where they fit and float32 elsewhere; pixels that are not finite stay so, and
masked ones (`numpy.ma`, of a TIFF with GDAL's tag) stay masked, until an image is packed; further samples and the
pages of a TIFF are bands; of an animation the first picture is taken.
Damage that a format can show (checksums, sizes) makes an image unreadable.
"""

import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from ssl_app.data.decoding.limits import MAX_IMAGE_MB, Limit, unread
from ssl_app.data.decoding.limits import Unreadable as Unreadable  # who decodes finds it here
from ssl_app.data.decoding.pillow import decode_pillow
from ssl_app.data.decoding.png import SIGNATURE, decode_png
from ssl_app.data.decoding.pnm import decode_deep_pnm, deep_pnm
from ssl_app.data.decoding.tiff import MAGIC, decode_tiff
from ssl_app.foreign import foreign

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
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), "JPEG 2000"),
    ".jxl": "JPEG XL",
    ".jxr": "JPEG XR",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".tga": "TGA",
    ".pcx": "PCX",
    ".psd": "Photoshop",
    ".svg": "SVG",
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"), "camera raw"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".wmv"), "video"),
    ".avif": "AVIF",
    ".exr": "OpenEXR",
    ".svs": "whole-slide",
    ".ndpi": "whole-slide",
    ".czi": "CZI",
    ".nd2": "ND2",
    ".lif": "LIF",
}
HEAD = 512  # bytes that tell what a file is
STARTS = {b"\xff\xd8\xff": "JPEG", SIGNATURE: "PNG", b"GIF8": "GIF", **dict.fromkeys(MAGIC, "TIFF")}  # of a file


def decode(data: bytes | Path, name: str, max_image_mb: int = MAX_IMAGE_MB) -> NDArray[Any]:
    """The picture in a file or in its bytes: (H, W, C) uint8, uint16 or float32.

    Raises Unreadable; TooLarge, before anything is unfolded, where it takes more than `max_image_mb` megabytes;
    NotNow where its bytes cannot be had at this moment. MemoryError says nothing of the file, and is raised as it is.
    """
    with Limit(max_image_mb) as limit:
        content = read_bytes(data, limit)
        if not content:
            raise Unreadable("the file is empty")
        unread = unread_kind(name, content)
        if unread is not None:
            raise Unreadable(f"{unread} is not read yet")
        try:
            array = decode_content(content, limit)
        except (Unreadable, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise Unreadable(unknown(content)) from error
        except Exception as error:  # decoders raise anything on broken files
            raise Unreadable(reason_of(error)) from error
        del content  # of a large file half of what is held
        return standard(array)


def read_bytes(data: bytes | Path, limit: Limit) -> bytes:
    """The bytes of a file. Raises Unreadable."""
    try:
        if isinstance(data, bytes):
            content = data
        else:
            if data.exists() and not data.is_file():
                raise Unreadable("it is no regular file")  # to read a pipe is to wait for somebody to write
            limit.admit_bytes(data.stat().st_size)
            content = data.read_bytes()
    except OSError as error:
        raise unread(error) from error
    limit.admit_bytes(len(content))
    return content


def unread_kind(name: str, head: bytes) -> str | None:
    """The format's name where it is one that is known and not read yet; head holds 132 bytes or more."""
    if head[128:132] == b"DICM":
        return "DICOM"
    lower = name.lower()
    return next((kind for end, kind in KNOWN_UNREAD.items() if lower.endswith(end)), None)


def unknown(content: bytes) -> str:
    """What a file is that no decoder knows, with its cure where it is something else."""
    found = foreign(content[:HEAD])
    return "not an image of a known format" if found is None else f"it is {found[0]}; {found[1].words}"


def picture_format(head: bytes) -> str | None:
    """The format of a picture by its first bytes, whatever its file is called; None for what is none of those."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in STARTS.items() if head.startswith(start)), None)


def decode_content(content: bytes, limit: Limit) -> NDArray[Any]:
    """The decoder is chosen by the first bytes: what a file is called is not what it is."""
    if content[:4] in MAGIC:
        return decode_tiff(content, limit)
    if content[:8] == SIGNATURE:
        return decode_png(content, limit)
    header = deep_pnm(content)
    if header is not None:
        return decode_deep_pnm(content, header, limit)
    return decode_pillow(content, limit)


def standard(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) or (H, W, C) of any type -> (H, W, C) in a depth of ours, contiguous."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise Unreadable(f"an array of shape {array.shape}; expected (H, W) or (H, W, C) of one pixel or more")
    found = standard_depth(array)
    if isinstance(found, np.ma.MaskedArray):  # whose mask numpy's own functions lose
        return np.ma.MaskedArray(np.ascontiguousarray(found.data), np.ascontiguousarray(np.ma.getmaskarray(found)))
    return np.ascontiguousarray(found)


def standard_depth(array: NDArray[Any]) -> NDArray[Any]:
    """The same values as uint8, uint16 or float32; what is not finite stays so, for data/nodata.py."""
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
    if size <= 4:
        return array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        clipped: NDArray[Any] = np.clip(array, *FLOAT32, where=np.isfinite(array), out=array.copy())
        return clipped.astype(np.float32)


FLOAT32 = (np.finfo(np.float32).min, np.finfo(np.float32).max)


def reason_of(error: Exception) -> str:
    """A decoder's error as a reason: its own words where they are for people."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, struct.error | zlib.error | lzma.LZMAError | IndexError | KeyError | AssertionError):
        return "the file is damaged"
    return str(error) or type(error).__name__
