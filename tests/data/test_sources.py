"""What can be named by --data, and what a person is told where it cannot be used."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssl_app.data import npz
from ssl_app.data.images import Unreadable
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.data.survey import refuse_folder
from ssl_app.errors import DataError

NONE = Columns()
rng = np.random.default_rng(0)


def notes_of(source: Source) -> tuple[str, ...]:
    return tuple(str(note) for note in source.notes)


def picture(number: int, size: int = 4) -> np.ndarray:
    return np.full((size, size), number, np.uint8)


def write(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number)).save(path)


def refusal(data: str | Path, columns: Columns = NONE) -> str:
    with pytest.raises(DataError) as raised:
        open_source(str(data), columns)
    return str(raised.value)


def opened(data: str | Path, columns: Columns = NONE) -> Source:
    return open_source(str(data), columns)


def values(source: Source) -> list[int | str]:
    return [str(a) if isinstance(a, Unreadable) else int(a[0, 0, 0]) for _, a in source.each(lambda array: array)]


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, "PNG")
    return buffer.getvalue()


# folders


@pytest.mark.parametrize(
    ("folders", "each", "name", "doubted"),
    [
        (20, 3, "kind {0}x", True),
        (12, 7, "kind {0}x", True),
        (11, 3, "PAT-{0:03d}", False),
        (20, 8, "kind {0}x", False),
        (20, 8, "PAT-{0:03d}", True),
        (20, 8, "{0:04d}", True),
        (12, 50, "PAT-{0:03d}", False),
    ],
)
def test_many_folders_of_few_images_may_be_patients(
    tmp_path: Path, folders: int, each: int, name: str, doubted: bool
) -> None:
    for folder in range(folders):
        for number in range(each):
            write(tmp_path / name.format(folder) / f"{number}.png", number)
    found = [note for note in notes_of(opened(tmp_path)) if "may be patients or lots, not classes" in note]
    assert bool(found) == doubted


def test_sub_folders_are_classes_at_any_depth_and_of_mixed_formats(tmp_path: Path) -> None:
    for number, name in enumerate(["a/1.png", "a/deep/2.bmp", "b/3.TIF"]):
        write(tmp_path / name, number)
    source = opened(tmp_path)
    assert source.keys == ("a/1.png", "a/deep/2.bmp", "b/3.TIF")
    assert source.labels == ("a", "a", "b")
    assert source.splits is None
    assert notes_of(source) == ("2 sub-folders taken as classes: a, b",)
    assert values(source) == [0, 1, 2]


def test_top_folders_named_train_and_test_are_a_split(tmp_path: Path) -> None:
    for name in ["train/a/1.png", "train/b/1.png", "Validation/a/1.png", "test/b/1.png"]:
        write(tmp_path / name)
    source = opened(tmp_path)
    assert source.splits == ("val", "test", "train", "train")
    assert source.labels == ("a", "b", "a", "b")
    assert source.columns == Columns("folder names", None, "folder names")
    assert opened(tmp_path, Columns(split="none")).splits is None
    assert opened(tmp_path, Columns(label="none")).labels is None


@pytest.mark.parametrize("test", ["test/1.png", "test/images/1.png", "test/test/1.png", "Test set/a b/1.png"])
def test_a_part_without_classes_beside_parts_that_have_them_is_unlabeled(test: str, tmp_path: Path) -> None:
    for name in ["train/a/1.png", "train/b/1.png", "train/b/2.png", "val/a/1.png", test]:
        write(tmp_path / name)
    source = opened(tmp_path)
    by_key = dict(zip(source.keys, zip(source.splits or (), source.labels or (), strict=True), strict=True))
    assert by_key == {
        "train/a/1.png": ("train", "a"), "train/b/1.png": ("train", "b"), "train/b/2.png": ("train", "b"),
        "val/a/1.png": ("val", "a"), test: ("test", None),
    }  # fmt: skip
    assert notes_of(source) == (
        "2 sub-folders taken as classes: a, b",
        "unlabeled: 1 image marked test by folder names, in no class",
    )


@pytest.mark.parametrize("loose", ["train/3.png", "test/3.png"])
def test_images_beside_class_folders_of_their_own_part_leave_the_set_unlabeled(loose: str, tmp_path: Path) -> None:
    for name in ["train/a/1.png", "train/b/1.png", "test/a/1.png", loose]:
        write(tmp_path / name)
    source = opened(tmp_path)
    assert source.labels is None
    assert notes_of(source) == ("unlabeled: 1 image lies beside the folders, not in one of them",)


def test_a_folder_without_classes_is_unlabeled_and_says_why(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "1.png")
    write(tmp_path / "one" / "all" / "1.png")
    write(tmp_path / "loose" / "a" / "1.png")
    write(tmp_path / "loose" / "b" / "1.png")
    write(tmp_path / "loose" / "1.png")
    assert notes_of(opened(tmp_path / "flat")) == ()
    assert notes_of(opened(tmp_path / "one")) == ("unlabeled: all images lie in one folder, all",)
    assert notes_of(opened(tmp_path / "loose")) == ("unlabeled: 1 image lies beside the folders, not in one of them",)
    assert all(opened(tmp_path / name).labels is None for name in ("flat", "one", "loose"))


def test_formats_not_read_yet_and_a_manifest_are_told(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png")
    (tmp_path / "a.nrrd").write_bytes(b"x")
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b.nii.gz").write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("path\n1.png\n")
    alone = "type data with a folder of them alone, or list both in a manifest"
    assert notes_of(opened(tmp_path)) == (
        f"2 DICOM files found, not read beside 3 pictures; {alone}",
        f"1 NIfTI file found, not read beside 3 pictures; {alone}",
        "1 NRRD file found, not read yet; convert it to NIfTI",
        f"manifest.csv lies in {tmp_path}; type data {tmp_path}/manifest.csv to use it",
    )
    assert opened(tmp_path).keys == ("0.png", "1.png", "2.png")


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"x")
    assert refusal(tmp_path) == (
        f"no images found in {tmp_path}; 1 NRRD file found, not read yet; expected .bmp, .gif, .jfif, .jpe, "
        ".jpeg, .jpg, .pbm, .pgm, .png, .pnm, .ppm, .tif, .tiff, .webp, or files of one other kind, at any depth"
    )


def test_a_column_of_a_folder_needs_a_manifest(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    assert refusal(tmp_path, Columns(group="patient")) == (
        f"the group is column patient, and the folder {tmp_path} has no columns; write a manifest (CSV with the "
        "columns path, label, patient), or type data manifest.csv"
    )


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert opened(tmp_path).keys == ("a/1.png",)


def test_a_folder_that_may_not_be_opened_is_told() -> None:
    with pytest.raises(DataError) as raised:
        refuse_folder(PermissionError(13, "Permission denied", "scans/a"))
    assert str(raised.value) == (
        "the folder scans/a cannot be opened (Permission denied); fix its permissions, or list the images "
        "in a manifest"
    )


def test_stamps_change_with_a_file(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    write(tmp_path / "2.png")
    before = opened(tmp_path).stamps()
    (tmp_path / "2.png").write_bytes(b"other")
    after = opened(tmp_path).stamps()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


# manifests


def manifest(tmp_path: Path, text: str, name: str = "m.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_manifest_without_a_column_label_names_those_it_has(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,diagnosis,patient\n1.png,a,p\n")
    told = f"{path} has no column label; its other columns: diagnosis; type label COLUMN to name one of them"
    assert notes_of(opened(path, Columns(group="patient"))) == (told,)
    assert notes_of(opened(path, Columns("diagnosis", "patient"))) == ()
    assert notes_of(opened(path, Columns("none"))) == ()


def test_a_manifest_is_text_and_what_is_empty_is_unknown(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"{number}.png", number)
    text = f"path,label,group,split\n1.png,007,NA,training\n{tmp_path}/2.png,,p,\n./3.png,None,p,dev\n"
    source = opened(manifest(tmp_path, text))
    assert source.keys == ("1.png", f"{tmp_path}/2.png", "3.png")
    assert source.labels == ("007", None, "None")
    assert source.groups == ("NA", "p", "p")
    assert source.splits == ("train", None, "val")
    assert source.columns == Columns("label", "group", "split")
    assert values(source) == [1, 2, 3]


@pytest.mark.parametrize(("name", "mark"), [("m.tsv", "\t"), ("m.csv", ";")])
def test_tabs_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path, name: str, mark: str) -> None:
    path = manifest(tmp_path, "\ufeffpath, label \n1.png,a\n".replace(",", mark), name)
    assert opened(path).keys == ("1.png",)
    assert opened(path).labels == ("a",)


def test_parquet_keeps_whole_numbers_whole(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["1.png", "2.png"], "label": [3.0, None], "patient": [1, 2]})
    table.to_parquet(tmp_path / "m.parquet")
    source = opened(tmp_path / "m.parquet", Columns(group="patient"))
    assert source.labels == ("3", None)
    assert source.groups == ("1", "2")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    assert values(opened(manifest(tmp_path, "path\ngone.png\n"))) == ["the file is missing"]


def test_columns_can_be_named_and_switched_off(tmp_path: Path) -> None:
    path = manifest(tmp_path, "path,label,subtype,patient,split\n1.png,a,b,c,odd\n")
    source = opened(path, Columns("subtype", "patient", "none"))
    assert (source.labels, source.groups, source.splits) == (("b",), ("c",), None)
    assert source.columns == Columns("subtype", "patient", None)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "path,patient\n1.png,a\n",
            Columns(group="patent"),
            "{m} has no column 'patent'; did you mean 'patient'?",
        ),
        (
            "file,label\n1.png,a\n",
            NONE,
            "{m} has no column 'path' with the images' paths; its columns: file, label; call the one that holds them "
            "path, or type labels {m} with the folder of the images as the data",
        ),
        ("path,label,label\n1.png,a,b\n", NONE, "{m} has 2 columns named label; rename or remove all but one"),
        ("path\nx\\1.png\n", NONE, "{m} row 2 has the path x\\1.png; expected / between folders: replace every \\"),
        ("path\na\0.png\n", NONE, "{m} row 2 has a NUL byte in its path; fix the table"),
        ("path\n1.png\n./1.png\n", NONE, "{m} lists ./1.png twice (rows 2 and 3); remove one of them"),
        ("path,label\n,a\n", NONE, "{m} row 2 has no path; fill it in or remove the row"),
        ("path\n", NONE, "{m} lists no images; expected one row an image below the header"),
        (
            "path,split\n1.png,fold1\n2.png,fold1\n3.png,test\n",
            NONE,
            "column split holds 'fold1' (2 rows); expected train, val or test; fix it, or type split none",
        ),
        (
            "",
            NONE,
            "{m} cannot be read as a table (No columns to parse from file); expected a header with path, label, "
            "group, split",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_says_what_to_type(
    tmp_path: Path, text: str, columns: Columns, message: str
) -> None:
    path = manifest(tmp_path, text)
    assert refusal(path, columns) == message.format(m=path)


def test_a_table_in_another_encoding_says_what_to_save_it_as(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("path,label\n1.png,Riß\n".encode("latin-1"))
    assert refusal(path) == f"{path} is no UTF-8 text; save it as CSV UTF-8"


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_csv_may_be_separated_as_spreadsheets_do(tmp_path: Path, between: str) -> None:
    source = opened(manifest(tmp_path, f'path{between}"a, label"\n1.png{between}b\n'), Columns(label="a, label"))
    assert (source.keys, source.labels) == (("1.png",), ("b",))


def test_a_row_longer_than_the_header_is_not_cut_silently(tmp_path: Path) -> None:
    assert "cannot be read as a table" in refusal(manifest(tmp_path, "path,label\n1.png,a,b\n2.png,a,b\n"))


# arrays


def test_arrays_of_two_layouts(tmp_path: Path) -> None:
    images = np.stack([picture(n) for n in range(4)])
    np.savez(tmp_path / "a.npz", x=images, y=np.array([[1], [0], [1], [10]]), groups=list("aabb"))
    source = opened(tmp_path / "a.npz")
    assert source.labels == ("1", "0", "1", "10")
    assert source.groups == ("a", "a", "b", "b")
    assert source.columns == Columns("y", "group", None)
    assert values(source) == [0, 1, 2, 3]
    np.savez(
        tmp_path / "m.npz", train_images=images, train_labels=np.zeros((4, 1), int), test_images=images[:1],
        test_labels=np.ones((1, 1), int),
    )  # fmt: skip
    medmnist = opened(tmp_path / "m.npz")
    assert medmnist.splits == ("train",) * 4 + ("test",)
    assert medmnist.labels == ("0", "0", "0", "0", "1")
    assert medmnist.keys[-1] == "test/0"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((1, 2, 2))}, "{a} holds pixels; expected images (or x), and labels (or y)"),
        ({"x": np.float32(1)}, "{a} holds images of shape (); expected (N, H, W) or (N, H, W, C)"),
        (
            {"x": np.zeros((2, 8, 8), np.uint8), "y": np.array([0, np.inf])},
            "{a} holds an infinite label; expected numbers, or nan where it is unknown",
        ),
        (
            {"x": np.zeros((1, 8, 8), np.uint8), "y": np.array([b"Ri\xdf"])},
            "{a} holds a label that is no UTF-8 text; save it as an array of str",
        ),
        ({"x": np.zeros((2, 2))}, "{a} holds images of shape (2, 2); expected (N, H, W) or (N, H, W, C)"),
        (
            {"x": np.zeros((2, 3, 8, 8), np.uint8)},
            "{a} holds images of shape (2, 3, 8, 8), channels first; expected (N, H, W, C): "
            "save numpy.moveaxis(images, 1, -1)",
        ),
        (
            {"x": np.zeros((2, 8, 8), np.uint8), "y": np.zeros((2, 5))},
            "{a} holds a label array of shape (2, 5); expected (2,), one an image",
        ),
        (
            {"x": np.array([None])},
            "{a} cannot be read (it holds Python objects); expected plain arrays saved by numpy.savez: images, "
            "labels",
        ),
    ],
)
def test_arrays_that_cannot_be_used_say_so(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert refusal(tmp_path / "a.npz") == message.format(a=tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_one_image_after_the_other_in_any_order_and_depth(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    images = rng.integers(0, 4096, (7, 5, 4, 3))
    for stored in (images, np.asfortranarray(images), images.astype(">u2"), images - 1, images.astype(np.float64)):
        save(tmp_path / "a.npz", images=stored)
        source = opened(tmp_path / "a.npz")
        found = [array for _, array in source.each(lambda array: array)]
        assert len(found) == 7
        assert all(array.dtype == (np.uint16 if stored.min() >= 0 and stored.dtype.kind != "f" else np.float32)
                   for array in found)  # fmt: skip
        assert np.array_equal(np.stack(found), stored)
        assert np.array_equal(source.read(4), stored[4])


def test_parts_of_a_split_share_one_depth(tmp_path: Path) -> None:
    first, second = np.zeros((2, 3, 3), np.uint8), np.full((1, 3, 3), 300, np.uint16)
    np.savez(tmp_path / "a.npz", train_images=first, test_images=second)
    assert values(opened(tmp_path / "a.npz")) == [0, 0, 300]
    assert opened(tmp_path / "a.npz").read(0).dtype == np.uint16
    np.savez(tmp_path / "a.npz", train_images=first, test_images=second[:, :2])
    assert "holds parts of shapes (2, 3, 3), (1, 2, 3)" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_that_is_cut_or_changed_is_never_a_smaller_set(tmp_path: Path, save: Callable[..., None]) -> None:
    images = rng.integers(0, 256, (9, 6, 6), dtype=np.uint8)
    save(tmp_path / "a.npz", images=images, labels=np.arange(9))
    whole = (tmp_path / "a.npz").read_bytes()

    def read() -> list[np.ndarray]:
        source = opened(tmp_path / "a.npz")
        assert source.labels == tuple("012345678")
        return [array for _, array in source.each(lambda array: array)]

    assert np.array_equal(np.stack(read())[..., 0], images)
    for end in range(0, len(whole), 25):
        (tmp_path / "a.npz").write_bytes(whole[:end])
        with pytest.raises(DataError, match="cut short"):
            read()
    start = whole.index(b"images.npy") + 200
    for at in range(start, start + 200, 11):
        (tmp_path / "a.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError):
            read()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((10**6, 64, 64), "images promises 4096000000 bytes of (1000000, 64, 64), and holds 36"),
        ((1, 6, 5), "images promises 30 bytes of (1, 6, 5), and holds 36"),
        ((-1, 6, 6), "images promises -36 bytes of (-1, 6, 6), and holds 36"),
    ],
)
def test_a_header_that_lies_is_not_believed(tmp_path: Path, shape: tuple[int, ...], reason: str) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(36))
    assert f"cannot be read ({reason})" in refusal(tmp_path / "a.npz")


def test_a_large_array_stored_by_columns_says_what_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MOST_WHOLE", 100)
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(rng.integers(0, 256, (9, 6, 6), dtype=np.uint8)))
    with pytest.raises(DataError, match=r"save numpy\.ascontiguousarray\(images\)"):
        opened(tmp_path / "a.npz").read(0)


# shards


def shards(tmp_path: Path) -> Path:
    tar(tmp_path / "x-train-0.tar.gz", {"1.cls": b"1\n", "1.png": png(1), "2.png": png(2), "2.cls": b"0"})
    tar(tmp_path / "x-test-0.tar", {"._1.png": b"x", "1.png": png(3), "1.cls": b"0", "2.jpg": b"broken"})
    return tmp_path


def test_shards_are_pairs_with_the_split_in_their_name(tmp_path: Path) -> None:
    source = opened(shards(tmp_path))
    assert source.keys == (
        "x-test-0.tar/1.png", "x-test-0.tar/2.jpg", "x-train-0.tar.gz/1.png", "x-train-0.tar.gz/2.png",
    )  # fmt: skip
    assert source.labels == ("0", None, "1", "0")
    assert source.splits == ("test", "test", "train", "train")
    assert values(source) == [3, "not an image of a known format", 1, 2]
    assert int(source.read(3)[0, 0, 0]) == 2
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert opened(tmp_path).labels == ("cat", None, "dog", "cat")
    assert opened(tmp_path / "*train*").keys == source.keys[2:]
    assert opened(tmp_path / "x-test-0.tar").keys == source.keys[:2]


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    path = shards(tmp_path) / "x-train-0.tar.gz"
    path.write_bytes(path.read_bytes()[:-60])
    assert refusal(path).startswith(f"{path} is damaged")
    assert refusal(path).endswith("; fetch it again or remove it")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_shard_that_lost_or_changed_anything_is_refused(tmp_path: Path, name: str) -> None:
    tar(tmp_path / name, {f"{i}.png": png(i) for i in range(5)})
    whole = (tmp_path / name).read_bytes()
    assert len(opened(tmp_path / name).keys) == 5
    plain = name == "a.tar"
    ends = range(512, 512 * 10, 512) if plain else range(1, len(whole), 9)  # 5 headers and 5 files, a block each
    for end in ends:
        (tmp_path / name).write_bytes(whole[:end])
        assert f"{name} is damaged" in refusal(tmp_path / name), end
    for at in range(0, 512 * 10, 1024) if plain else range(len(whole) - 8, len(whole)):  # every header; the checksum
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / name).write_bytes(changed)
        assert f"{name} is damaged" in refusal(tmp_path / name), at
    (tmp_path / name).write_bytes(whole + whole)
    assert "it goes on after its end" in refusal(tmp_path / name)


def test_a_member_larger_than_an_image_may_be_is_unreadable_and_not_read(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar.gz", {"0.png": png(0), "1.png": bytes(2**20 + 1), "1.cls": b"x"})
    source = open_source(str(tmp_path / "a.tar.gz"), NONE, max_image_mb=1)
    assert values(source) == [0, "the file's 1048577 bytes need 2 MB, 1 are allowed"]
    tar(tmp_path / "b.tar", {"0.png": png(0), "0.cls": b"x" * 5000})
    assert refusal(tmp_path / "b.tar") == (
        f"{tmp_path / 'b.tar'} holds 0.cls of 5000 bytes; expected a class's name or number"
    )


def test_a_tar_beside_images_does_not_hide_them(tmp_path: Path) -> None:
    write(tmp_path / "1.png")
    tar(tmp_path / "backup.tar", {"1.png": png(1)})
    source = opened(tmp_path)
    assert source.keys == ("1.png",)
    assert notes_of(source) == (f"1 tar file lies in {tmp_path}; type data '{tmp_path}/*.tar*' to use it",)


def test_a_class_number_beyond_the_names_is_refused(tmp_path: Path) -> None:
    (shards(tmp_path) / "classes.txt").write_text("cat\n")
    assert refusal(tmp_path) == (
        f"{tmp_path}/classes.txt names 1 classes, and a .cls member holds 1; expected one line a class"
    )
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    assert refusal(tmp_path) == f"{tmp_path}/classes.txt names cat 2 times; expected each class once, a line each"
    (tmp_path / "classes.txt").write_bytes("Riß\ncat\n".encode("latin-1"))
    assert refusal(tmp_path).endswith("; save it as UTF-8")


def test_what_is_only_called_npz_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("path,label\n")
    assert refusal(tmp_path / "a.npz").startswith(
        f"{tmp_path / 'a.npz'} cannot be read (it is no .npz, or cut short)"
    )


# built in, and unknown


def test_digits_are_bytes_and_not_mirrored() -> None:
    source = opened("digits")
    assert len(source.keys) == 1797
    assert source.read(0).shape == (8, 8, 1)
    assert source.read(0).dtype == np.uint8
    assert max(int(source.read(i).max()) for i in range(20)) == 255
    assert not source.mirrors
    assert set(source.labels or ()) == set("0123456789")


def test_what_is_of_no_known_kind_says_what_is(tmp_path: Path) -> None:
    expected = (
        "expected a folder or file of images, a manifest (.csv, .tsv, .parquet), an .npz, tar shards or a built-in "
        "name (digits)"
    )
    assert refusal("nowhere") == f"nowhere does not exist; {expected}"
    (tmp_path / "a.xyz").write_text("")
    assert refusal(tmp_path / "a.xyz") == f"{tmp_path}/a.xyz is of no known kind; {expected}"
    write(tmp_path / "1.png")
    assert refusal(tmp_path / "1.png") == (
        f"{tmp_path}/1.png is one image; expected a set of them; type data {tmp_path}"
    )
