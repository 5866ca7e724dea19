"""DICOM and NIfTI from the command line to predictions, with labels from a table."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app import checkpoints
from tests.medical import write_dicom, write_nifti

rng = np.random.default_rng(0)
ONE_STEP = ("--method", "rotnet", "--epochs", 1, "--steps-per-epoch", 1, "--batch-size", 8, "--test-fraction", 0.5)
HOUNSFIELD = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 patients of two slices as DICOM, and of one volume as NIfTI; every second one is bright at its left."""
    root = tmp_path_factory.mktemp("study")
    for patient in range(16):
        slices = rng.integers(0, 4096, (2, 16, 18), dtype=np.uint16)
        slices[..., :8] //= 1 + patient % 2 * 6
        for number, stored in enumerate(slices):
            path = root / "dicom" / f"p{patient:02d}" / f"IM{number}"
            write_dicom(path, stored, PatientID=f"P{patient}", InstanceNumber=number, **HOUNSFIELD)
        voxels = slices.transpose(2, 1, 0)[::-1, ::-1].astype(np.int16) - 1024
        write_nifti(root / "nifti" / f"p{patient:02d}.nii.gz", voxels, np.diag([1, 1, 5, 1]))
    for kind, name in (("dicom", "p{:02d}/IM{}"), ("nifti", "p{:02d}.nii.gz")):
        rows = [f"{name.format(patient, number)},{'ab'[patient % 2]}" for patient in range(16) for number in (0, 1)]
        (root / f"{kind}.csv").write_text("\n".join(["path,label", *dict.fromkeys(rows)]))
    return root


def rows_of(result: dict[str, Any]) -> list[dict[str, str]]:
    with Path(result["predictions"]).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def path_of(row: dict[str, str]) -> str:
    return row["path"]


def test_a_window_goes_from_pretraining_on_dicom_to_predictions(ssl, tiny, study: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path, "--json", *tiny)
    words = ("--data", study / "dicom", "--intensity", "window:-500.0,1500", "--name", "p")
    pretrained = ssl("pretrain", *words, *ONE_STEP, *out)
    assert "split by patient (PatientID), 50 % of groups, seed 0" in pretrained.err
    assert "unlabeled: each of 16 folders is one patient, and no class" in pretrained.err
    _, meta = checkpoints.read(Path(pretrained.result["checkpoint"]))
    kept = [meta["pixels"][name] for name in ("intensity", "low", "high", "dtype", "units")]
    assert kept == ["window:-500,1500", -500, 1500, "float32", "modality"]
    words = ("--labels", study / "dicom.csv", "--strategy", "two-stage", "--steps", 2, "--per-class", 2)
    assert ssl("finetune", *words, "--name", "f", *out).result["labels_used"] == 4
    refused = ssl("finetune", *words, "--intensity", "window:0,1", *out)
    assert "was pretrained on the intensity window:-500,1500, not window:0,1" in refused.error
    as_dicom, as_nifti = (
        sorted(rows_of(ssl("predict", "f", "--data", study / kind, *out[:3], "--threads", 1).result), key=path_of)
        for kind in ("dicom", "nifti")
    )
    assert [path_of(row) for row in as_dicom[:2]] == ["p00/IM0", "p00/IM1"]
    assert [path_of(row) for row in as_nifti[:2]] == ["p00.nii.gz#0", "p00.nii.gz#1"]
    assert [list(row.values())[1:] for row in as_dicom] == [list(row.values())[1:] for row in as_nifti]
    one = ssl("predict", "f", "--data", study / "dicom" / "p03" / "IM1", *out[:3], "--threads", 1)
    assert float(rows_of(one.result)[0]["p_a"]) == pytest.approx(float(as_dicom[7]["p_a"]), abs=1e-4)


@pytest.mark.slow
def test_a_sweep_takes_its_labels_by_patient_from_a_table(ssl, tiny, study: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path, "--json", *tiny)
    ssl("pretrain", "--data", study / "dicom", "--name", "p", *ONE_STEP, *out)
    words = ("--labels", study / "dicom.csv", "--strategy", "two-stage", "--steps", 2, "--per-class", 1)
    swept = ssl("sweep", *words, "--draws", 1, "--baseline", "none", "--jobs", 1, "--evaluate-on", "test", *out)
    assert [trial["strategy"] for trial in swept.result["trials"]] == ["two-stage"]


def test_the_axis_of_pretraining_is_that_of_every_later_verb(ssl, tiny, study: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path, "--json", *tiny)
    pretrained = ssl("pretrain", "--data", study / "nifti", "--axis", "sagittal", "--name", "p", *ONE_STEP, *out)
    assert "16 of 16 NIfTI files: cut into sagittal slices" in pretrained.err
    assert "split by volume (each NIfTI file)" in pretrained.err
    words = ("--labels", study / "nifti.csv", "--strategy", "two-stage", "--steps", 2, "--per-class", 2)
    tuned = ssl("finetune", *words, "--data", study / "nifti", "--name", "f", *out)
    assert "axis sagittal" in tuned.err
    assert "labels: 288 of 288 images, 2 classes" in tuned.err
    found = ssl("predict", "f", "--data", study / "nifti" / "p00.nii.gz", "--out", tmp_path, "--threads", 1, "--json")
    assert found.result["n"] == 18


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (
            "window:240,-160",
            "the intensity is 'window:240,-160'; expected two numbers, the lower one first, such as window:-160,240",
        ),
        (
            "window",
            "--intensity is 'window'; did you mean 'file-window'?",
        ),
    ],
)
def test_a_window_that_is_none_is_refused(ssl, study: Path, tmp_path: Path, typed: str, error: str) -> None:
    words = ("--data", study / "dicom", "--intensity", typed, "--out", tmp_path)
    assert ssl("pretrain", *words).error == error
