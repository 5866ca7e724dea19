"""Tiny DICOM and NIfTI files, written by the attributes that a test names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra medical is not installed")
nibabel = pytest.importorskip("nibabel", reason="the extra medical is not installed")

MR, CT, SR, DIRECTORY = (
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.1.3.10",
)
EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def dataset(stored: np.ndarray | None, sop: str = MR, **attributes: Any) -> Any:
    """An object of these stored values, (H, W), (N, H, W) or (H, W, 3); attributes beat what the values say."""
    found = pydicom.Dataset()
    found.SOPClassUID, found.SOPInstanceUID = sop, "1.2.3"
    found.PatientID, found.StudyInstanceUID, found.SeriesInstanceUID = "P1", "1.2.1", "1.2.1.1"
    if stored is not None:
        color = stored.ndim == 3 and stored.shape[-1] == 3
        found.Rows, found.Columns = stored.shape[:2] if color else stored.shape[-2:]
        if stored.ndim == 3 and not color:
            found.NumberOfFrames = len(stored)
        found.SamplesPerPixel, found.PhotometricInterpretation = (3, "RGB") if color else (1, "MONOCHROME2")
        if color:
            found.PlanarConfiguration = 0
        bits = 8 * stored.itemsize
        found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
        found.PixelRepresentation = int(stored.dtype.kind == "i")
        found.PixelData = stored.tobytes()
    for name, value in attributes.items():
        setattr(found, name, value)
    return found


def write_dicom(path: Path, stored: np.ndarray | None, sop: str = MR, **attributes: Any) -> None:
    """A DICOM file with its mark, whatever it is called."""
    found = dataset(stored, sop, **attributes)
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = EXPLICIT
    found.file_meta.MediaStorageSOPClassUID, found.file_meta.MediaStorageSOPInstanceUID = sop, found.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> None:
    """A volume; without an affine the axes run to the right, the front and the head."""
    image = nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
