"""Sets that would be read as something else than they are: each is reported with its cure, or refused."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_app import config
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.errors import DataError


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (12, 12), dtype=np.uint8))
    return path


def tree(root: Path, *folders: str) -> Source:
    for number, folder in enumerate(folders):
        picture(root / folder / "1.png", number)
    return open_source(str(root), Columns())


def notes(source: Source) -> str:
    return "\n".join(note.sentence(config.flag) for note in source.notes)


# parts of a split


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "test_images", "val_images"),
        ("Training set", "Testing set"),
        ("imgs-train", "imgs-dev"),
        ("train ", " TEST"),
    ],
)
def test_folders_that_are_called_after_a_split_are_one(names: tuple[str, ...], tmp_path: Path) -> None:
    source = tree(tmp_path, *(f"{name}/{label}" for name in names for label in "ab"))
    assert set(source.labels or ()) == {"a", "b"}
    assert len(set(source.splits or ())) == len(names)


@pytest.mark.parametrize("other", ["extra", "README", "unlabeled", "test_time"])
def test_a_split_beside_another_folder_is_pointed_out(other: str, tmp_path: Path) -> None:
    source = tree(tmp_path, "train/a", "train/b", "test/a", "test/b", f"{other}/a")
    said = f"test and train look like parts of a split, and {other} does not; move {other} elsewhere, or type --label"
    assert said in notes(source)


@pytest.mark.parametrize("names", [("test", "control"), ("train", "bus", "car"), ("a", "b")])
def test_classes_are_no_split(names: tuple[str, ...], tmp_path: Path) -> None:
    assert "look like parts" not in notes(tree(tmp_path, *names))


# classes without an image


def empty(root: Path) -> None:
    (root / "c").mkdir()


def of_another_format(root: Path) -> None:
    (root / "c").mkdir()
    (root / "c" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")


def linked_twice(root: Path) -> None:
    (root / "c").symlink_to(root / "a", target_is_directory=True)


@pytest.mark.parametrize("make", [empty, of_another_format, linked_twice])
def test_a_class_without_an_image_is_missed(make, tmp_path: Path) -> None:
    tree(tmp_path, "a", "b")
    make(tmp_path)
    said = "1 sub-folder holds no image that is read, and is no class: c"
    assert said in notes(open_source(str(tmp_path), Columns()))


def test_below_a_split_a_class_is_missed_where_no_part_has_it(tmp_path: Path) -> None:
    tree(tmp_path, "train/a", "train/b", "test/a")
    for folder in ("test/b", "train/c"):
        (tmp_path / folder).mkdir()
    said = "1 sub-folder holds no image that is read, and is no class: c"
    assert said in notes(open_source(str(tmp_path), Columns()))


def test_masks_and_deeper_folders_are_no_missed_classes(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.png")
    tree(tmp_path, "images", "other", "masks", "other/deep")
    (tmp_path / "other" / "empty").mkdir()
    assert "no image that is read" not in notes(open_source(str(tmp_path), Columns()))


# columns that are not used


def manifest(root: Path, header: str, *rows: str) -> Source:
    for number in range(len(rows)):
        picture(root / f"{number}.png", number)
    lines = [f"path,{header}", *(f"{number}.png,{row}" for number, row in enumerate(rows))]
    (root / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return open_source(str(root / "list.csv"), Columns())


@pytest.mark.parametrize("column", ["set", "Subset", "fold", "usage"])
def test_a_split_in_a_column_of_another_name_is_pointed_out(column: str, tmp_path: Path) -> None:
    source = manifest(tmp_path, f"label,{column}", "a,train", "b,Train", "a,test", "b,test")
    said = f"column {column} marks test and train, and is not used; type --split {column}"
    assert said in notes(source)


@pytest.mark.parametrize("column", ["PatientID", "patient_no", "Subject", "lot id", "StudyUID", "case"])
def test_groups_in_a_column_of_another_name_are_pointed_out(column: str, tmp_path: Path) -> None:
    source = manifest(tmp_path, f"label,{column}", "a,1", "b,1", "a,2", "b,2")
    assert f"column {column} has 2 values, and is not used: images of one may be in test and train" in notes(source)


@pytest.mark.parametrize("columns", [Columns(split="none", group="none"), Columns(split="set", group="patient")])
def test_columns_that_are_settled_are_not_pointed_out(columns: Columns, tmp_path: Path) -> None:
    manifest(tmp_path, "label,set,patient", "a,train,1", "b,train,1", "a,test,2", "b,test,2")
    assert "not used" not in notes(open_source(str(tmp_path / "list.csv"), columns))


def test_a_column_with_a_value_for_each_image_is_no_group(tmp_path: Path) -> None:
    assert "not used" not in notes(manifest(tmp_path, "label,case,note", "a,1,x", "b,2,x", "a,3,x"))


@pytest.mark.parametrize("pair", [("1", "1.0"), ("0.0", "0"), ("-2", "-2.00")])
def test_a_number_with_and_without_a_point_is_one_spelling(pair: tuple[str, str], tmp_path: Path) -> None:
    assert "1 class has several spellings" in notes(manifest(tmp_path, "label", pair[0], pair[1], "7"))
    assert len(set(open_source(str(tmp_path / "list.csv"), Columns(one_spelling=True)).labels or ())) == 2


@pytest.mark.parametrize("label", ["1.5", "01", "1.0.0", "v1.0"])
def test_other_numbers_are_classes_of_their_own(label: str, tmp_path: Path) -> None:
    assert "spellings" not in notes(manifest(tmp_path, "label", "1", label))


# what is no table


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04" + bytes(40), "is an Excel workbook or another ZIP archive by its content, and no text"),
        (b"\xd0\xcf\x11\xe0" + bytes(40), "is an old Excel workbook by its content, and no text"),
        (b"\xff\xfe" + "path,label\n".encode("utf-16-le"), "is no UTF-8 text"),
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_workbook_that_is_called_a_table(content: bytes, what: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"list{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{what}; save it as CSV UTF-8"):
        open_source(str(path), Columns())


@pytest.mark.parametrize("address", ["https://example.org/1.png", "s3://bucket/1.png", "gs://b/1.png"])
def test_addresses_are_no_paths(address: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{address},a\n")
    with pytest.raises(DataError, match=f"row 2 has the address {address}; download its images"):
        open_source(str(tmp_path / "list.csv"), Columns())


# channels before height and width


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_with_channels_first_are_refused(channels: int, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, channels, 12, 14), np.uint8))
    source = open_source(str(tmp_path / "x.npy"), Columns())
    found = [str(reason) for _, reason in source.each(lambda array: array)]
    assert found == [
        f"an array of shape (5, {channels}, 12, 14), channels first; expected (N, H, W, C): "
        "save numpy.moveaxis(array, 1, -1)"
    ]


def test_three_gray_images_that_may_be_one_of_color_are_pointed_out(tmp_path: Path) -> None:
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.zeros((3, 12, 14), np.uint8))
    said = "2 of 2 .npy files: 3 gray images each; if the first axis is color, save numpy.moveaxis(array, 0, -1)"
    assert said in notes(open_source(str(tmp_path), Columns()))


# shards


def png(seed: int = 0) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (12, 12), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def shard(root: Path, members: dict[str, bytes]) -> Source:
    with tarfile.open(root / "set.tar", "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return open_source(str(root / "set.tar"), Columns())


PAIR = {"0.png": png(), "0.cls": b"a", "1.png": png(1), "1.cls": b"b"}


@pytest.mark.parametrize("name", ["0.seg.png", "0_mask.png", "masks/0.png", "0-thumb.png"])
def test_masks_in_a_shard_are_pointed_out(name: str, tmp_path: Path) -> None:
    source = shard(tmp_path, PAIR | {name: png(2)})
    assert f"listed and taken as images (set.tar/{name} of set.tar/0.png); write the shards without them" in notes(
        source
    )


@pytest.mark.parametrize("name", ["__MACOSX/0.png", "._0.png", "a/.hidden/0.png", "@eaDir/0.png"])
def test_what_a_system_puts_into_a_shard_is_no_image(name: str, tmp_path: Path) -> None:
    source = shard(tmp_path, PAIR | {name: png(2)})
    assert source.keys == ("set.tar/0.png", "set.tar/1.png")
    assert "1 other member passed over: 1 hidden or of the system" in notes(source)


def test_other_members_of_a_shard_are_counted(tmp_path: Path) -> None:
    source = shard(tmp_path, PAIR | {"0.json": b"{}", "1.json": b"{}", "README": b"x", "0.PNG.bak": b"x"})
    assert "4 other members passed over: 2 .json, 1 .bak, 1 without an ending" in notes(source)


def test_classes_that_are_no_utf_8_stay_two(tmp_path: Path) -> None:
    source = shard(tmp_path, PAIR | {"0.cls": "ä".encode("latin-1"), "1.cls": "ö".encode("latin-1")})
    assert len(set(source.labels or ())) == 2


# Parquet


def parquet(root: Path, **columns: object) -> Source:
    pq.write_table(pa.table({name: pa.array(cells) for name, cells in columns.items()}), root / "set.parquet")
    return open_source(str(root / "set.parquet"), Columns())


PICTURES = [png(number) for number in range(4)]


@pytest.mark.parametrize("other", ["mask", "a_thumbnail", "depth"])
def test_of_several_columns_of_pictures_the_image_is_read(other: str, tmp_path: Path) -> None:
    source = parquet(tmp_path, **{other: PICTURES[::-1], "image": PICTURES, "label": list("abab")})
    assert f"the columns image, {other} hold pictures, and image is read" in notes(source)
    assert np.array_equal(source.read(0)[..., 0], cv2.imdecode(np.frombuffer(PICTURES[0], np.uint8), 0))


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("patient_id", [1, 1, 2, 2], "column patient_id has 2 values, and is not used"),
        ("Subject", ["a", "a", "b", None], "column Subject has 2 values, and is not used"),
        ("set", ["train", "train", "test", "test"], "column set marks test and train, and is not used"),
    ],
)
def test_groups_and_splits_of_parquet_are_pointed_out(column: str, cells: list, said: str, tmp_path: Path) -> None:
    assert said in notes(parquet(tmp_path, image=PICTURES, label=list("abab"), **{column: cells}))


def test_a_number_that_is_none_is_no_class(tmp_path: Path) -> None:
    source = parquet(tmp_path, image=PICTURES, label=[0.0, 1.0, float("nan"), 1.0])
    assert source.labels == ("0.0", "1.0", None, "1.0")


@pytest.mark.parametrize(
    "kept",
    [b"", b"[1", b"{}", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": 7}}}}', b"\xff\xfe"],
)
def test_metadata_of_another_shape_names_no_class(kept: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": PICTURES, "label": [0, 1, 0, 1]}).replace_schema_metadata({b"huggingface": kept})
    pq.write_table(table, tmp_path / "set.parquet")
    assert open_source(str(tmp_path / "set.parquet"), Columns()).labels == ("0", "1", "0", "1")


# tables of Hugging Face


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '[{"file_name": "0.png", "label": "a"}]'),
        ("Metadata.csv", "file_name,label\n0.png,a\n"),
        ("metadata.csv", ""),
        ("metadata.csv", "name,label\n0.png,a\n"),
    ],
)
def test_a_table_that_cannot_be_used_is_pointed_out(name: str, content: str, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / name).write_text(content)
    said = notes(open_source(str(tmp_path), Columns()))
    assert f"{name} lies in {tmp_path} and cannot be used; write it with a header with file_name" in said
