"""DICOM: pixels in modality units by hand, what is left out and why, groups, series, windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app.data.images import Unreadable
from ssl_app.data.packing import pack
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import DataError
from tests.medical import BIG_ENDIAN, CT, DIRECTORY, EXPLICIT, SR, dataset, pydicom, write_dicom, write_nifti

rng = np.random.default_rng(0)
TWELVE_BITS = rng.integers(0, 4096, (6, 5), dtype=np.uint16)


def opened(data: Path, **columns: str) -> Source:
    return open_source(str(data), Columns(**columns))


def notes(source: Source) -> list[str]:
    return [str(note) for note in source.notes]


def images(source: Source) -> list[np.ndarray | str]:
    return [str(found) if isinstance(found, Unreadable) else found[..., 0] for _, found in source.each(lambda a: a)]


def one(path: Path, stored: np.ndarray, **attributes: Any) -> np.ndarray:
    write_dicom(path, stored, **attributes)
    source = opened(path)
    (found,) = images(source)
    assert isinstance(found, np.ndarray), found
    assert np.array_equal(found, source.read(0)[..., 0])
    return found


def test_stored_values_become_modality_units(tmp_path: Path) -> None:
    signed = TWELVE_BITS.astype(np.int16) - 2000
    assert np.array_equal(one(tmp_path / "a", signed), signed.astype(np.float32))
    found = one(tmp_path / "b", TWELVE_BITS, RescaleSlope=0.5, RescaleIntercept=-1024)
    assert np.array_equal(found, (TWELVE_BITS * 0.5 - 1024).astype(np.float32))


def test_twelve_bits_without_a_scale_stay_integers(tmp_path: Path) -> None:
    found = one(tmp_path / "a", TWELVE_BITS, BitsStored=12, HighBit=11)
    assert found.dtype == np.uint16
    assert np.array_equal(found, TWELVE_BITS)
    assert one(tmp_path / "b", TWELVE_BITS.astype(np.uint8)).dtype == np.uint8


def test_white_is_zero_is_inverted_within_the_bits_stored(tmp_path: Path) -> None:
    white = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    assert np.array_equal(one(tmp_path / "a", TWELVE_BITS, **white), 4095 - TWELVE_BITS)
    found = one(tmp_path / "b", TWELVE_BITS, **white, RescaleSlope=2, RescaleIntercept=-10)
    assert np.array_equal(found, ((4095.0 - TWELVE_BITS) * 2 - 10).astype(np.float32))


def test_bits_above_those_stored_are_no_pixels_and_signs_are_extended(tmp_path: Path) -> None:
    overlay = TWELVE_BITS | np.uint16(0b1010 << 12)
    assert np.array_equal(one(tmp_path / "a", overlay, BitsStored=12, HighBit=11), TWELVE_BITS)
    assert np.array_equal(one(tmp_path / "b", overlay << 2, BitsStored=12, HighBit=13), TWELVE_BITS & 0xFFF)
    values = np.array([[-1, -2048], [2047, 5]])
    kept = (values & 0xFFF).astype(np.uint16).view(np.int16)
    assert np.array_equal(one(tmp_path / "c", kept, BitsStored=12, HighBit=11), values)


def test_an_old_modality_table_is_looked_up(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 0, 8], "US"
    table.add_new("LUTData", "US", [10, 20, 30, 255])
    stored = np.array([[0, 1], [2, 3]], np.uint8)
    assert one(tmp_path / "a", stored, ModalityLUTSequence=[table]).tolist() == [[10, 20], [30, 255]]
    white = {"PhotometricInterpretation": "MONOCHROME1"}
    assert one(tmp_path / "b", stored, ModalityLUTSequence=[table], **white).tolist() == [[245, 235], [225, 0]]


def test_the_scale_of_a_frame_may_lie_in_its_functional_group(tmp_path: Path) -> None:
    groups = []
    for slope in (1.0, 3.0):
        scale, group = pydicom.Dataset(), pydicom.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 7.0, "US"
        group.PixelValueTransformationSequence = [scale]
        groups.append(group)
    stored = np.stack([TWELVE_BITS, TWELVE_BITS])
    write_dicom(tmp_path / "a", stored, PerFrameFunctionalGroupsSequence=groups)
    first, second = images(opened(tmp_path))
    assert np.array_equal(first, (TWELVE_BITS + 7.0).astype(np.float32))
    assert np.array_equal(second, (TWELVE_BITS * 3.0 + 7).astype(np.float32))


def test_a_frame_is_an_image_with_a_stable_name_and_one_group(tmp_path: Path) -> None:
    stored = np.stack([TWELVE_BITS, TWELVE_BITS + 1, TWELVE_BITS + 2])
    write_dicom(tmp_path / "cine.dcm", stored, PatientID="", StudyInstanceUID="")
    source = opened(tmp_path)
    assert source.keys == ("cine.dcm#0", "cine.dcm#1", "cine.dcm#2")
    assert source.groups == ("cine.dcm",) * 3
    assert np.array_equal(source.read(2)[..., 0], stored[2])
    assert all(np.array_equal(found, frame) for found, frame in zip(images(source), stored, strict=True))


def test_files_are_found_by_content_and_what_is_no_gray_image_is_counted(tmp_path: Path) -> None:
    write_dicom(tmp_path / "IM1", TWELVE_BITS)
    write_dicom(tmp_path / "deep" / "x.bin", TWELVE_BITS)
    write_dicom(tmp_path / "report", None, SR)
    write_dicom(tmp_path / "DICOMDIR", None, DIRECTORY)
    write_dicom(tmp_path / "capture", np.zeros((4, 4, 3), np.uint8))
    write_dicom(tmp_path / "state", None, "1.2.840.10008.5.1.4.1.1.11.1")
    write_dicom(tmp_path / "mask", np.zeros((4, 4), np.uint8), "1.2.840.10008.5.1.4.1.1.66.4")
    write_dicom(tmp_path / "map", np.zeros((4, 4), np.uint8), "1.2.840.10008.5.1.4.1.1.66.7")
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "a.nii").write_bytes(b"x")
    source = opened(tmp_path)
    assert source.keys == ("IM1", "deep/x.bin")
    assert (
        "6 DICOM files left out: 1 Comprehensive SR (no pixels), 1 DICOMDIR (an index), 1 Grayscale Softcopy "
        "Presentation State (no pixels), 1 Label Map Segmentation (a mask), 1 RGB (color), 1 Segmentation (a mask)"
    ) in notes(source)
    assert (
        "1 NIfTI file found, not read beside 8 DICOM files; type data with a folder of them alone, or list both in a "
        "manifest"
    ) in notes(source)


def test_a_set_of_color_alone_is_read_in_color(tmp_path: Path) -> None:
    stored = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    write_dicom(tmp_path / "a", stored)
    write_dicom(tmp_path / "b", None, SR)
    source = opened(tmp_path)
    assert source.keys == ("a",)
    assert np.array_equal(source.read(0), stored)


def test_the_group_is_the_patient_or_the_study_where_that_is_blank(tmp_path: Path) -> None:
    for name, patient, study in (("a", "P1", "1.1"), ("b", " ", "1.2"), ("c", "", "1.2"), ("d", "", "")):
        write_dicom(tmp_path / name, TWELVE_BITS, PatientID=patient, StudyInstanceUID=study, InstanceNumber=ord(name))
    source = opened(tmp_path)
    assert dict(zip(source.keys, source.groups or (), strict=True)) == {"a": "P1", "b": "1.2", "c": "1.2", "d": None}
    assert (source.columns.group, source.columns.group_origin) == ("patient", "PatientID")
    assert notes(source) == [
        "2 of 4 DICOM files: PatientID is blank; StudyInstanceUID is the group",
        "1 of 4 DICOM files: PatientID is blank; the file is a group of its own",
    ]
    assert opened(tmp_path, group="none").groups is None
    by_study = opened(tmp_path, group="study")
    assert (set(by_study.groups or ()), by_study.columns.group) == ({"1.1", "1.2", None}, "study")
    with pytest.raises(DataError, match="DICOM files have no group 'patent'; did you mean 'patient'"):
        opened(tmp_path, group="patent")


def test_one_patient_alone_is_told(tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(tmp_path / str(number), TWELVE_BITS)
    assert notes(opened(tmp_path)) == [
        "all 2 images are of one patient, and cannot be split by it; type group study, series or none"
    ]


def test_a_series_is_in_the_order_of_its_numbers_and_positions(tmp_path: Path) -> None:
    turned = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for name, series, number, height in (("a", 2, 1, 0), ("b", 1, 10, 0), ("c", 1, 9, 5), ("d", 1, 9, -5)):
        write_dicom(
            tmp_path / name,
            TWELVE_BITS,
            SeriesInstanceUID=f"1.{series}",
            InstanceNumber=number,
            ImagePositionPatient=[0, 0, height],
            **turned,
        )
    assert opened(tmp_path).keys == ("d", "c", "b", "a")
    assert opened(tmp_path).keys == opened(tmp_path).keys


def test_folders_of_one_patient_each_are_no_classes_and_others_are(tmp_path: Path) -> None:
    for number in range(4):
        write_dicom(tmp_path / "by_patient" / f"p{number}" / "1", TWELVE_BITS, PatientID=f"P{number}")
        write_dicom(tmp_path / "by_class" / f"c{number % 2}" / str(number), TWELVE_BITS, PatientID=f"P{number}")
    source = opened(tmp_path / "by_patient")
    assert source.labels is None
    assert notes(source) == ["unlabeled: each of 4 folders is one patient, and no class"]
    for group in ("none", "study", "series"):
        assert opened(tmp_path / "by_patient", group=group).labels is None
    assert opened(tmp_path / "by_class").labels == ("c0", "c1", "c0", "c1")
    assert opened(tmp_path / "by_class", label="none").labels is None


def test_a_label_may_be_an_attribute(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", TWELVE_BITS, BodyPartExamined="CHEST", PatientID="P1")
    write_dicom(tmp_path / "b", TWELVE_BITS, PatientID="P2")
    assert opened(tmp_path, label="BodyPartExamined").labels == ("CHEST", None)
    with pytest.raises(DataError, match="DICOM has no attribute 'body'; expected one such as Modality"):
        opened(tmp_path, label="body")


def test_the_type_is_that_of_the_whole_set(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", TWELVE_BITS)
    write_dicom(tmp_path / "b", TWELVE_BITS, CT, RescaleSlope=1, RescaleIntercept=-1024)
    source = opened(tmp_path)
    assert [found.dtype for found in images(source) if isinstance(found, np.ndarray)] == [np.float32, np.float32]
    assert source.value_units == "modality"


def test_what_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", TWELVE_BITS)
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-20])
    (tmp_path / "text.dcm").write_bytes(b"no DICOM at all, but a text that is long enough to be looked at")
    (tmp_path / "empty.dcm").write_bytes(b"")
    write_dicom(tmp_path / "many.dcm", TWELVE_BITS, NumberOfFrames=10**9)
    write_dicom(tmp_path / "large.dcm", TWELVE_BITS, Rows=65535, Columns=65535)
    (tmp_path / "unknown.dcm").write_bytes(content.replace(EXPLICIT.encode(), EXPLICIT.encode()[:-1] + b"9"))
    found = dict(zip(opened(tmp_path).keys, images(opened(tmp_path)), strict=True))
    assert isinstance(found.pop("a.dcm"), np.ndarray)
    assert "bytes of pixel data is less than expected" in str(found.pop("cut.dcm"))
    assert str(found.pop("unknown.dcm")).startswith("compressed as 1.2.840.10008.1.2.9, cannot be decoded (")
    assert "frames in a file of" in str(found.pop("many.dcm"))
    assert found == {
        "text.dcm": "it is no DICOM file, or its header is damaged",
        "empty.dcm": "the file is empty",
        "large.dcm": "65535 x 65535 x 1 values of 2 bytes need 8192 MB, 512 are allowed",
    }


def test_a_folder_of_reports_says_what_it_holds(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", None, SR)
    with pytest.raises(DataError) as raised:
        opened(tmp_path)
    assert str(raised.value) == (
        f"no images found in {tmp_path}; 1 DICOM file left out: 1 Comprehensive SR (no pixels); expected DICOM files "
        "with images"
    )


def test_a_file_without_a_preamble_is_read(tmp_path: Path) -> None:
    old = dataset(TWELVE_BITS)
    old.save_as(tmp_path / "old.dcm", implicit_vr=True, little_endian=True)
    (found,) = images(opened(tmp_path))
    assert np.array_equal(found, TWELVE_BITS)


PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"  # those that lie in its wheel


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian"])
def test_a_compressed_file_has_the_pixels_of_the_plain_one(name: str) -> None:
    plain, packed = (opened(PYDICOM / f"{one}.dcm") for one in ("MR_small", f"MR_small_{name}"))
    assert np.array_equal(plain.read(0), packed.read(0))


def by_hand(path: Path) -> np.ndarray | None:
    """The first gray frame of an uncompressed file, from its bytes; None for others."""
    header = pydicom.dcmread(path, force=True)
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax not in (EXPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2") or "PixelData" not in header:
        return None
    order = ">" if syntax == BIG_ENDIAN else "<"
    dtype = np.dtype(f"{order}{'i' if header.PixelRepresentation else 'u'}{header.BitsAllocated // 8}")
    frame = np.frombuffer(header.PixelData, dtype, header.Rows * header.Columns).astype(np.int64)
    frame &= 2**header.BitsStored - 1
    if header.PixelRepresentation:
        frame = np.where(frame >= 2 ** (header.BitsStored - 1), frame - 2**header.BitsStored, frame)
    if header.PhotometricInterpretation == "MONOCHROME1":
        frame = 2**header.BitsStored - 1 - frame
    scaled = frame * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    return scaled.reshape(header.Rows, header.Columns).astype(np.float32)


def test_pydicoms_own_files_are_read_or_have_a_reason() -> None:
    source = opened(PYDICOM)
    found = dict(zip(source.keys, images(source), strict=True))
    reasons = {key: reason for key, reason in found.items() if isinstance(reason, str)}
    assert set(reasons) <= {
        "no_meta.dcm", "MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "JPEG-lossy.dcm",
        "JPGExtended.dcm",
    }  # fmt: skip
    left = next(note for note in notes(source) if "left out" in note)
    assert all(why in left for why in ("CT Image (no pixels)", "DICOMDIR (an index)", "Basic Text SR (no pixels)"))
    compared = 0
    for key, pixels in found.items():
        expected = None if key in reasons else by_hand(PYDICOM / key.partition("#")[0])
        if expected is not None:
            assert np.array_equal(pixels, expected), key
            compared += 1
    assert compared >= 30


def test_a_manifest_lists_dicom_files_frames_and_pictures(tmp_path: Path) -> None:
    write_dicom(tmp_path / "one", TWELVE_BITS, PatientID="P1")
    write_dicom(tmp_path / "two.dcm", np.stack([TWELVE_BITS, TWELVE_BITS + 1]), PatientID="P2")
    write_dicom(tmp_path / "report", None, SR)
    table = tmp_path / "m.csv"
    table.write_text("path,label\none,a\ntwo.dcm#1,b\nreport,a\ngone.dcm,b\n")
    source = opened(table)
    assert source.keys == ("one", "two.dcm#1", "report", "gone.dcm")
    assert source.labels == ("a", "b", "a", "b")
    assert source.groups == ("P1", "P2", None, None)
    assert source.columns.group_origin == "PatientID"
    first, second, *others = images(source)
    assert np.array_equal(first, TWELVE_BITS)
    assert np.array_equal(second, TWELVE_BITS + 1)
    assert others == ["no image of the set: Comprehensive SR (no pixels)", "the file is missing"]
    table.write_text("path,label\ntwo.dcm,b\n")
    assert (opened(table).keys, opened(table).labels) == (("two.dcm#0", "two.dcm#1"), ("b", "b"))
    table.write_text("path\ntwo.dcm#7\none#0\n")
    assert opened(table).keys == ("two.dcm#7", "one#0")
    assert images(opened(table)) == [
        "the file has no image #7; its images are #0 to #1",
        "the file has no image #0; it holds one image",
    ]
    table.write_text("path\ntwo.dcm\ntwo.dcm#1\n")
    with pytest.raises(DataError, match=r"lists two\.dcm#1 twice"):
        opened(table)


def test_windows_of_the_files_scale_each_image_by_its_own(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", TWELVE_BITS, WindowCenter=[2000, 5], WindowWidth=[1001, 9])
    white = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    write_dicom(tmp_path / "b", TWELVE_BITS, WindowCenter=100, WindowWidth=50, VOILUTFunction="LINEAR_EXACT", **white)
    source = opened(tmp_path)
    assert source.windows == ((1499.5, 2499.5), (4095 - 125.0, 4095 - 75.0))
    packed = pack(source, PixelSpec(5, intensity="file-window"), tmp_path / "cache")
    square = TWELVE_BITS[:5].astype(np.float64)
    assert packed.images.dtype == np.float32
    assert np.allclose(packed.images[0, ..., 0], np.clip((square - 1499.5) / 1000, 0, 1), atol=1e-6)
    assert np.allclose(packed.images[1, ..., 0], np.clip((4095 - square - 3970) / 50, 0, 1), atol=1e-6)


def test_windowed_images_are_kept_apart_from_plain_ones(tmp_path: Path) -> None:
    found = []
    for center in (0, 500):
        write_dicom(tmp_path / "d" / "a", TWELVE_BITS, RescaleIntercept=-1024, WindowCenter=center, WindowWidth=401)
        for intensity in ("range", "file-window"):
            packed = pack(opened(tmp_path / "d"), PixelSpec(5, intensity=intensity), tmp_path / "cache")
            found.append((packed.key, float(packed.images.max())))
    assert len({key for key, _ in found}) == 3
    assert found[0] == found[2]
    assert found[0][1] > 1 == found[1][1] == found[3][1]


def test_a_file_without_a_window_is_refused_where_windows_are_requested(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a", TWELVE_BITS, WindowCenter=1, WindowWidth=2)
    write_dicom(tmp_path / "b", TWELVE_BITS)
    with pytest.raises(DataError) as raised:
        pack(opened(tmp_path), PixelSpec(5, intensity="file-window"), tmp_path / "cache")
    assert str(raised.value) == (
        "1 of 2 images have no window in their file, first b; give DICOM files that have one, or type ssl-app "
        "pretrain --intensity range"
    )


def test_without_the_extra_one_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    write_dicom(tmp_path / "d" / "a", TWELVE_BITS)
    write_nifti(tmp_path / "n" / "a.nii", TWELVE_BITS[..., None])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for folder, kind, package in (("d", "DICOM", "pydicom"), ("n", "NIfTI", "nibabel")):
        with pytest.raises(DataError) as raised:
            opened(tmp_path / folder)
        assert str(raised.value) == (
            f'1 {kind} file found, and {package} is not installed; type pip install "ssl-app[medical]"'
        )


def test_one_study_packs_to_the_same_pixels_as_dicom_png_and_nifti(tmp_path: Path) -> None:
    import cv2

    slices = rng.integers(0, 4096, (5, 40, 40), dtype=np.uint16)
    (tmp_path / "png").mkdir()
    for number, stored in enumerate(slices):
        write_dicom(tmp_path / "dicom" / f"IM{number}", stored, BitsStored=12, HighBit=11, InstanceNumber=number)
        cv2.imwrite(str(tmp_path / "png" / f"{number}.png"), stored)
    # a slice's rows run to the back and its columns to the left; a volume's axes to the right, the front, the head
    write_nifti(tmp_path / "nifti" / "a.nii.gz", slices.transpose(2, 1, 0)[::-1, ::-1], np.diag([1, 1, 3, 1]))
    for side in (32, 40):
        packs = [
            pack(opened(tmp_path / kind), PixelSpec(side, pack_side=side), tmp_path / "cache")
            for kind in ("dicom", "png", "nifti")
        ]
        assert all(np.array_equal(packs[0].images, other.images) for other in packs)
        assert packs[0].key == packs[1].key == packs[2].key
        assert packs[0].images.dtype == np.uint16


LIMIT, TWELVE = "PixelPaddingRangeLimit", {"BitsStored": 12, "HighBit": 11}
WHITE = {"PhotometricInterpretation": "MONOCHROME1"}


@pytest.mark.parametrize(
    ("stored", "attributes", "padded"),
    [
        (np.array([[0, 7], [9, 4095]], np.uint16), {"PixelPaddingValue": 0}, {0}),
        (np.array([[0, 7], [9, 4095]], np.uint16), {"PixelPaddingValue": 8, LIMIT: 5000}, {9, 4095}),
        (np.array([[0, 7], [9, 20]], np.uint16), {"PixelPaddingValue": 9, LIMIT: 7}, {7, 9}),
        (np.array([[-2000, 7], [9, 20]], np.int16), {"PixelPaddingValue": -2000, "RescaleSlope": 2}, {-2000}),
        # written as if it were unsigned, in files of GE; and with twelve bits stored, the others zero
        (np.array([[-2000, 7], [9, 20]], np.int16), {"PixelPaddingValue": -2000 + 65536}, {-2000}),
        (np.array([[2096, 7], [9, 20]], np.int16), {"PixelPaddingValue": -2000, **TWELVE}, {2096}),
        # above all that twelve bits can hold; 2096 is the same in its lowest twelve, and a value
        (np.array([[63536, 2096], [9, 20]], np.uint16), {"PixelPaddingValue": 63536, **TWELVE}, {63536}),
        (np.array([[0, 7], [9, 255]], np.uint8), {"PixelPaddingValue": 255, **WHITE}, {255}),
        (np.array([[0, 7], [9, 20]], np.uint16), {"PixelPaddingValue": 8}, set()),
        (np.array([[0, 7], [9, 20]], np.uint16), {}, set()),
    ],
)  # fmt: skip
def test_padding_holds_nothing(stored: np.ndarray, attributes: dict, padded: set[int], tmp_path: Path) -> None:
    """Whatever its sign and bits; a set in which a file declares padding is of real numbers."""
    wide = {name: value for name, value in attributes.items() if value <= 32767} if stored.dtype.kind == "i" else {}
    write_dicom(tmp_path / "a.dcm", stored, **(wide if stored.dtype.kind == "i" else attributes))
    if wide != attributes and stored.dtype.kind == "i":
        file = pydicom.dcmread(tmp_path / "a.dcm")
        file.add_new(0x00280120, "US", attributes["PixelPaddingValue"])
        file.save_as(tmp_path / "a.dcm")
    source = open_source(str(tmp_path), Columns())
    image = source.read(0)[..., 0]
    np.testing.assert_array_equal(np.isnan(image), np.isin(stored, list(padded)))
    said = any("pixels of PixelPaddingValue hold nothing" in str(note) for note in source.notes)
    assert said == ("PixelPaddingValue" in attributes)
    if said:
        assert image.dtype == np.float32


def test_padding_takes_the_mean_of_the_other_pixels(tmp_path: Path) -> None:
    """The range of a set is that of what was measured; an image of padding alone has nothing to read."""
    body = np.full((20, 20), 100, np.int16)
    body[:, 10:] = 300
    body[:3] = -2000
    for number in range(3):
        write_dicom(tmp_path / f"{number}.dcm", body, CT, PixelPaddingValue=-2000, RescaleIntercept=-50)
    write_dicom(tmp_path / "empty.dcm", np.full((20, 20), -2000, np.int16), CT, PixelPaddingValue=-2000)
    source = open_source(str(tmp_path), Columns())
    packed = pack(source, PixelSpec(20), tmp_path / "cache", max_unreadable=1)
    assert packed.unreadable == (("empty.dcm", "no pixel has a value"),)
    assert packed.images.min() == 50
    assert packed.images.max() == 250
    assert packed.images[0, 0, 0, 0] == 150
