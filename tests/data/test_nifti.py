"""NIfTI: slices lie as DICOM shows them, whatever the axes of the file; units, names, damage."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from ssl_app.data.images import Unreadable
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.errors import DataError
from tests.medical import nibabel, write_nifti

rng = np.random.default_rng(0)
# right, front and head are where the numbers grow; no two axes of one length
WORLD = rng.integers(0, 1000, (5, 6, 7), dtype=np.int16)
SHOWN = {  # what a reader of DICOM sees: the body's right at the left, its front or its head at the top
    "axial": lambda k: WORLD[::-1, ::-1, k].T,
    "coronal": lambda k: WORLD[::-1, k, ::-1].T,
    "sagittal": lambda k: WORLD[k, ::-1, ::-1].T,
}


def opened(data: Path, axis: str | None = None, **columns: str) -> Source:
    return open_source(str(data), Columns(**columns, axis=axis))


def notes(source: Source) -> list[str]:
    return [str(note) for note in source.notes]


def images(source: Source) -> list[np.ndarray | str]:
    return [str(found) if isinstance(found, Unreadable) else found[..., 0] for _, found in source.each(lambda a: a)]


@pytest.mark.parametrize("plane", SHOWN)
def test_a_slice_lies_as_dicom_shows_it_in_every_order_and_direction_of_axes(tmp_path: Path, plane: str) -> None:
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turned = WORLD.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
            affine = np.zeros((4, 4))
            affine[3, 3] = 1
            for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
                affine[world, axis] = sign
            write_nifti(tmp_path / "a.nii", turned, affine)
            found = images(opened(tmp_path / "a.nii", plane))
            along = order.index(("sagittal", "coronal", "axial").index(plane))
            expected = [SHOWN[plane](k) for k in range(WORLD.shape[order[along]])][:: signs[along]]
            assert len(found) == len(expected)
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_slices_are_those_of_acquisition_unless_another_axis_is_named(tmp_path: Path) -> None:
    for name, spacing, plane in (
        ("a", (1, 3, 1), "coronal"),
        ("b", (4, 1, 1), "sagittal"),
        ("c", (1, 1, 1), "axial"),
    ):
        write_nifti(tmp_path / f"{name}.nii.gz", WORLD, np.diag([*spacing, 1]))
        assert notes(opened(tmp_path / f"{name}.nii.gz"))[1] == f"1 of 1 NIfTI files: cut into {plane} slices"
    image = nibabel.Nifti1Image(WORLD, np.eye(4))
    image.header.set_dim_info(slice=0)
    nibabel.save(image, tmp_path / "d.nii")
    assert len(opened(tmp_path / "d.nii").keys) == 5
    assert len(opened(tmp_path / "d.nii", "coronal").keys) == 6


def test_values_are_in_the_units_of_the_header(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(WORLD, np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()[::-1, ::-1, 2].T
    source = opened(tmp_path)
    assert np.allclose(source.read(2)[..., 0], expected)
    assert (source.read(2).dtype, source.value_units) == (np.float32, "modality")
    write_nifti(tmp_path / "a.nii", WORLD.astype(np.uint16))
    assert opened(tmp_path).read(0).dtype == np.uint16


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_volume_is_the_group_and_a_slice_has_a_stable_name(tmp_path: Path, ending: str) -> None:
    for name in "ab":
        write_nifti(tmp_path / f"{name}{ending}", WORLD[..., :2])
    source = opened(tmp_path)
    assert source.keys == tuple(f"{name}{ending}#{k}" for name in "ab" for k in (0, 1))
    assert source.groups == (f"a{ending}",) * 2 + (f"b{ending}",) * 2
    assert (source.columns.group, source.columns.group_origin) == ("volume", "each NIfTI file")
    assert opened(tmp_path, group="none").groups is None
    assert all(np.array_equal(one, SHOWN["axial"](k)) for one, k in zip(images(source), (0, 1, 0, 1), strict=True))


def test_times_and_channels_are_images_of_their_own(tmp_path: Path) -> None:
    times = np.stack([WORLD[..., :2], WORLD[..., 2:4]], axis=-1)
    write_nifti(tmp_path / "a.nii.gz", times)
    source = opened(tmp_path, "axial")
    assert source.keys == ("a.nii.gz#0@0", "a.nii.gz#1@0", "a.nii.gz#0@1", "a.nii.gz#1@1")
    assert notes(source)[1] == "1 of 1 NIfTI files: cut into axial slices at each of 2 places of the other axes"
    assert all(np.array_equal(one, SHOWN["axial"](k)) for k, one in enumerate(images(source)))
    five = rng.integers(0, 9, (3, 4, 1, 2, 3), dtype=np.int16)
    write_nifti(tmp_path / "a.nii.gz", five)
    found = images(opened(tmp_path, "axial"))
    assert np.array_equal(found[1 + 2 * 2], five[::-1, ::-1, 0, 1, 2].T)


def test_an_oblique_volume_is_cut_along_the_nearest_axis(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.9, -0.436], [0.436, 0.9]]
    write_nifti(tmp_path / "a.nii", WORLD, turn)
    assert np.array_equal(opened(tmp_path, "axial").read(3)[..., 0], SHOWN["axial"](3))


def test_colors_are_bands(tmp_path: Path) -> None:
    colors = np.zeros((4, 5, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["G"] = rng.integers(0, 255, (4, 5, 1))
    write_nifti(tmp_path / "a.nii", colors)
    found = opened(tmp_path).read(0)
    assert (found.shape, found.dtype) == ((5, 4, 3), np.uint8)
    assert np.array_equal(found[..., 1], colors["G"][::-1, ::-1, 0].T)


def test_a_header_without_an_orientation_is_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(WORLD, None)
    nibabel.save(image, tmp_path / "a.nii")
    assert any("no orientation in the header" in note for note in notes(opened(tmp_path)))


def test_what_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", WORLD)
    packed = (tmp_path / "a.nii.gz").read_bytes()
    plain = gzip.decompress(packed)
    write_nifti(tmp_path / "b.nii.gz", rng.integers(0, 9999, (20, 20, 9), dtype=np.int16))
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "b.nii.gz").read_bytes()[:5000])
    write_nifti(tmp_path / "complex.nii", WORLD.astype(np.complex64))
    (tmp_path / "cut.nii").write_bytes(plain[:-100])
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "text.nii").write_bytes(b"no volume" * 60)
    source = opened(tmp_path)
    found = {key: str(one) for key, one in zip(source.keys, images(source), strict=True) if isinstance(one, str)}
    assert found.pop("cut.nii").startswith("the file is cut short: (5, 6, 7) voxels do not fit in its")
    assert "Compressed file ended" in found["cut.nii.gz#8"]
    assert found["complex.nii"] == "voxels of type complex64; expected real numbers or RGB"
    assert found["empty.nii"] == "the file is empty"
    assert "file" in found["text.nii"]


def test_a_folder_for_each_volume_is_no_class_and_an_axis_without_volumes_is_told(tmp_path: Path) -> None:
    for name in "ab":
        write_nifti(tmp_path / name / "t1.nii", WORLD)
        write_nifti(tmp_path / "labeled" / name / "t1.nii", WORLD)
        write_nifti(tmp_path / "labeled" / name / "t2.nii", WORLD)
    assert "2 sub-folders taken as classes: a, b" in notes(opened(tmp_path / "labeled"))
    for name in ("labeled/a/t1.nii", "labeled/a/t2.nii", "labeled/b/t1.nii", "labeled/b/t2.nii"):
        (tmp_path / name).unlink()
    assert "unlabeled: each of 2 folders is one volume, and no class" in notes(opened(tmp_path))
    np.save(tmp_path / "x.npy", WORLD)
    assert notes(opened(tmp_path / "x.npy", "axial"))[-1] == (
        f"{tmp_path / 'x.npy'} holds no volumes, and nothing is cut into axial slices"
    )


def test_a_manifest_lists_volumes_and_slices(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", WORLD)
    table = tmp_path / "m.csv"
    table.write_text("path,label,patient\na.nii.gz,x,P\n")
    assert opened(table, "sagittal").keys == tuple(f"a.nii.gz#{k}" for k in range(5))
    assert opened(table, "sagittal", group="patient").groups == ("P",) * 5
    table.write_text("path\ngone.nii#1\ngone.nii#2\n")
    assert images(opened(table)) == ["the file is missing"] * 2
    table.write_text("path,label\na.nii.gz#3,x\na.nii.gz#1,y\n")
    source = opened(table, "axial")
    assert (source.keys, source.labels) == (("a.nii.gz#3", "a.nii.gz#1"), ("x", "y"))
    assert source.groups == ("a.nii.gz", "a.nii.gz")
    assert np.array_equal(source.read(0)[..., 0], SHOWN["axial"](3))


def test_nibabels_own_files_are_read_or_have_a_reason(tmp_path: Path) -> None:
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    if not (folder / "anatomical.nii").is_file():
        pytest.skip("nibabel's test files are not in its wheel")
    source = opened(folder)
    found = dict(zip(source.keys, images(source), strict=True))
    reasons = {key for key, one in found.items() if isinstance(one, str)}
    assert reasons <= {"nifti1.hdr", "nifti2.hdr"}  # whose images are not there
    whole = nibabel.load(folder / "functional.nii").get_fdata()  # left, front, head
    expected = whole[:, ::-1, 1, 7].T
    assert np.allclose(found["functional.nii#1@7"], expected.astype(np.float32))


def test_a_folder_of_matrices_says_what_it_holds(tmp_path: Path) -> None:
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    if not (folder / "row_major.dconn.nii").is_file():
        pytest.skip("nibabel's test files are not in its wheel")
    (tmp_path / "a.dconn.nii").write_bytes((folder / "row_major.dconn.nii").read_bytes())
    with pytest.raises(DataError, match="1 NIfTI file left out: 1 Cifti2"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "compressed", "reason"),
    [
        ("a.nii", True, "it is compressed by gzip; rename it a.nii.gz"),
        ("a.NII", True, "it is compressed by gzip; rename it a.NII.gz"),
        ("a.nii.gz", False, "it is not compressed by gzip; rename it a.nii"),
    ],
)
def test_a_name_that_is_wrong_about_the_compression(name: str, compressed: bool, reason: str, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 4), np.int16), np.eye(4)), tmp_path / "whole.nii")
    content = (tmp_path / "whole.nii").read_bytes()
    (tmp_path / "whole.nii").unlink()
    (tmp_path / name).write_bytes(gzip.compress(content) if compressed else content)
    source = open_source(str(tmp_path), Columns())
    assert [str(found) for _, found in source.each(lambda array: array)] == [reason]
