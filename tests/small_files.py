"""A small file of every kind that is read, for tests that damage them."""

import bz2
import gzip
import io
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from tests.tiffs import Form, write

rng = np.random.default_rng(0)
GRAY = rng.integers(0, 256, (20, 24), dtype=np.uint8)
RGB = np.stack([GRAY, GRAY // 2, 255 - GRAY], -1)
DEEP = GRAY.astype(np.uint16) * 200
CUBE = np.stack([GRAY] * 3)


def by_pillow(array: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_tifffile(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def npz(save: object = np.savez, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)  # type: ignore[operator]
    return buffer.getvalue()


def by_numpy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def parquet(columns: dict[str, list[object]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


@cache
def small_files() -> dict[str, bytes]:
    """Name and content of each."""
    return {**pictures(), **tiffs(), **sets(), **medical()}


def pictures() -> dict[str, bytes]:
    """Everything but TIFF."""
    import cv2

    exif = Image.Exif()
    exif[274] = 6
    palette, alpha = Image.fromarray(RGB).convert("P"), Image.fromarray(np.dstack([RGB, GRAY]))
    ascii_pnm = b"P2\n# a comment\n3 2\n1000\n0 1 2 3 400 1000\n"
    return {
        "gray.png": by_pillow(GRAY, "PNG"), "rgb.png": by_pillow(RGB, "PNG", exif=exif),
        "rgba.png": by_pillow(alpha, "PNG"), "palette.png": by_pillow(palette, "PNG", transparency=3),
        "bits.png": by_pillow(GRAY > 99, "PNG"), "deep.png": by_pillow(DEEP, "PNG"),
        "deep-rgb.png": cv2.imencode(".png", np.dstack([DEEP] * 3))[1].tobytes(),
        "moving.png": by_pillow(alpha, "PNG", save_all=True, append_images=[alpha]),
        "gray.jpg": by_pillow(GRAY, "JPEG"), "rgb.jpg": by_pillow(RGB, "JPEG", exif=exif),
        "progressive.jpg": by_pillow(RGB, "JPEG", progressive=True),
        "cmyk.jpg": by_pillow(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        "palette.gif": by_pillow(palette, "GIF"),
        "moving.gif": by_pillow(palette, "GIF", save_all=True, append_images=[palette]),
        "rgb.bmp": by_pillow(RGB, "BMP"), "palette.bmp": by_pillow(palette, "BMP"),
        "bits.bmp": by_pillow(GRAY > 99, "BMP"), "rgba.bmp": by_pillow(alpha, "BMP"),
        "lossy.webp": by_pillow(RGB, "WEBP"), "alpha.webp": by_pillow(alpha, "WEBP", exif=exif),
        "lossless.webp": by_pillow(RGB, "WEBP", lossless=True),
        "moving.webp": by_pillow(alpha, "WEBP", save_all=True, append_images=[alpha.rotate(90)]),
        "gray.pgm": by_pillow(GRAY, "PPM"), "rgb.ppm": by_pillow(RGB, "PPM"), "bits.pbm": by_pillow(GRAY > 99, "PPM"),
        "deep.pgm": b"P5 24 20 65535\n" + DEEP.astype(">u2").tobytes(), "plain.pgm": ascii_pnm,
        "plain.ppm": b"P3\n1 2\n255\n1 2 3\n4 5 6\n",
    }  # fmt: skip


def tiffs() -> dict[str, bytes]:
    """Every compression, cut and kind of sample."""
    gray, rgb = GRAY[..., None], np.dstack([RGB, GRAY])
    found = {}
    for name in ("none", "lzw", "packbits", "deflate", "lzma"):
        form = Form(compression=name, rows=7)
        found[f"{name}-gray.tif"] = write(gray, form)
        found[f"{name}-white.tif"] = write(DEEP[..., None], replace(form, photometric=0, bits=16, order=">"))
        found[f"{name}-rgba.tif"] = write(rgb, replace(form, photometric=2, extra=(2,), planar=True))
        found[f"{name}-tiles.tif"] = write(rgb, replace(form, photometric=5, tile=(16, 16)))
        found[f"{name}-bits.tif"] = write(gray & 15, replace(form, bits=4, orientation=6))
    for name in ("lzw", "deflate"):
        form = Form(compression=name, rows=7)
        found[f"{name}-predicted.tif"] = write(gray, replace(form, predictor=2))
        found[f"{name}-float.tif"] = write(gray / 7, replace(form, bits=32, kind="f", predictor=3))
    palette = tuple(range(0, 65536, 256)) * 3
    jpeg = Image.fromarray(RGB)
    return found | {
        "fax.tif": write(gray > 99, Form(0, 1, compression="fax", rows=20)),
        "palette.tif": write(gray, Form(3, colors=palette)),
        "jpeg.tif": by_pillow(jpeg, "TIFF", compression="jpeg"),
        "zstd.tif": by_pillow(jpeg, "TIFF", compression="zstd"),
        "ycbcr.tif": by_pillow(jpeg.convert("YCbCr"), "TIFF"),
        "pages.tif": by_tifffile(np.stack([DEEP] * 3)),
        "imagej.tif": by_tifffile(np.stack([DEEP] * 3), imagej=True),
        "ome.tif": by_tifffile(np.stack([DEEP] * 3), ome=True, compression="zlib"),
        "big.tif": by_tifffile(DEEP, bigtiff=True),
    }


def sets() -> dict[str, bytes]:
    """Archives and arrays."""
    images, labels = np.stack([GRAY] * 3), np.array(["a", "b", "c"])
    members = {"0.png": by_pillow(GRAY, "PNG"), "0.cls": b"1", "1.jpg": by_pillow(RGB, "JPEG"), "a" * 120: b"x"}
    return {
        "plain.npz": npz(images=images, labels=labels),
        "deflated.npz": npz(np.savez_compressed, images=images.astype(np.int32), labels=labels),
        "parts.npz": npz(train_images=images, test_images=images, train_labels=labels, test_labels=labels),
        "plain.tar": tar(members),
        "gzip.tar.gz": gzip.compress(tar(members)),
        "bzip2.tar": bz2.compress(tar(members)),
        "stack.npy": by_numpy(images), "deep.npy": by_numpy(DEEP), "reals.npy": by_numpy(images / 7),
        "pictures.parquet": parquet({"picture": [members["0.png"], members["1.jpg"]], "label": ["a", "b"]}),
        "of-files.parquet": parquet({"path": ["0.png", "1.png"], "label": ["a", "b"]}),
        "of-files.csv": b"path,label,group\n0.png,a,x\n1.png,b,y\n",
    }  # fmt: skip


def medical() -> dict[str, bytes]:
    """DICOM and NIfTI, where what reads them is installed."""
    try:
        import nibabel
        import pydicom  # noqa: F401

        from tests.medical import write_dicom
    except ImportError:
        return {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        found = {}
        for name, stored in (
            ("gray", DEEP),
            ("signed", GRAY.astype(np.int16) - 99),
            ("color", RGB),
            ("frames", CUBE),
        ):
            write_dicom(path, stored, **({"RescaleSlope": 2, "RescaleIntercept": -9} if name == "signed" else {}))
            found[f"{name}.dcm"] = path.read_bytes()
        for name, voxels in (("deep.nii", CUBE.astype(np.int16)), ("reals.nii.gz", CUBE / 7)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), Path(folder) / name)
            found[name] = (Path(folder) / name).read_bytes()
    return found
