"""Damaged files and size lies are read, or listed with a reason: the small version of benchmarks/mutants.py."""

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.mutants import forget_peak, mutants, peak_mb, read
from ssl_app.data.decoding.limits import Limit
from tests.bombs import bombs, npy_header, png, sizes, zeros
from tests.medical import pydicom, write_dicom, write_nifti

HANGS = 60  # seconds of CPU time; how fast each one is, the benchmark tells


def test_mutants_are_read_or_listed(tmp_path: Path) -> None:
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF
        for name, content in mutants(400, seed=1):
            result, reason, seconds = read(name, content, tmp_path)
            assert seconds < HANGS, name
            assert "\n" not in reason, name
            results.append(result)
    assert results.count("read") > 40
    assert results.count("listed") > 100


def test_size_lies_take_no_memory(tmp_path: Path) -> None:
    count = 0
    for name, content in bombs(large=False):
        forget_peak()
        before = peak_mb()
        _, _, seconds = read(name, content, tmp_path)
        assert seconds < HANGS, name
        assert peak_mb() - before < 200, name
        count += 1
    assert count > 300
    assert Limit.held == 0  # else large images wait for ever


def dicom_of_other_sides(path: Path) -> None:
    """Two gigabytes by its header, in 200 bytes."""
    write_dicom(path, np.zeros((10, 10), np.uint16))
    found = pydicom.dcmread(path)
    found.Rows, found.Columns = 32_000, 32_000
    found.save_as(path)


def dicom_of_other_sides_within(path: Path) -> None:
    """A JPEG of 30,000 x 30,000 pixels in a DICOM of 10 x 10."""
    write_dicom(path, np.zeros((10, 10), np.uint8))
    found = pydicom.dcmread(path)
    jpeg = next(content for name, content in sizes(30_000, 30_000) if name == "gray.jpg")
    found.PixelData = pydicom.encaps.encapsulate([jpeg])
    found["PixelData"].VR = "OB"
    found.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    found.save_as(path)


def parquet_of_a_bomb(path: Path) -> None:
    """A PNG that unfolds to 64 MB under 24 x 20 pixels, and one of 30,000 x 30,000, in cells."""
    bombs = [png(24, 20, 8, 0, zeros(64)), png(30_000, 30_000, 8, 0, zlib.compress(bytes(99)))]
    pq.write_table(pa.table({"image": pa.array(bombs, pa.binary())}), path)


def stack_of_a_terabyte(path: Path) -> None:
    path.write_bytes(npy_header((10**6, 1024, 1024), False) + bytes(4096))


def volume_of_a_terabyte(path: Path) -> None:
    write_nifti(path, np.zeros((4, 4, 4), np.uint8))
    content = bytearray(path.read_bytes())
    struct.pack_into("<8h", content, 40, 3, 32_000, 32_000, 1000, 1, 1, 1, 1)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (dicom_of_other_sides, "a.dcm"),
        (dicom_of_other_sides_within, "a.dcm"),
        (parquet_of_a_bomb, "a.parquet"),
        (stack_of_a_terabyte, "a.npy"),
        (volume_of_a_terabyte, "a.nii"),
    ],
)
def test_size_lies_of_files_of_several_images_are_listed(
    make: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    forget_peak()
    before = peak_mb()
    (tmp_path / "read").mkdir()
    result, reason, seconds = read(name, (tmp_path / name).read_bytes(), tmp_path / "read")
    assert result == "listed", reason
    assert seconds < HANGS
    assert peak_mb() - before < 400
    assert Limit.held == 0
