"""Sets as Hugging Face saves them: a folder with metadata, and Parquet files that hold the images."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_app.data.images import Unreadable
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.errors import DataError


def opened(data: Path, **columns: str) -> Source:
    return open_source(str(data), Columns(**columns))


def notes(source: Source) -> list[str]:
    return [str(note) for note in source.notes]


def values(source: Source) -> list[Any]:
    found = source.each(lambda array: array)
    return [str(one) if isinstance(one, Unreadable) else int(one[0, 0, 0]) for _, one in found]


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number))


# folders


def test_metadata_gives_labels_and_groups_and_counts_what_it_does_not_list(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "a" / f"{number}.png", number)
    (tmp_path / "metadata.csv").write_text("file_name,label,patient\na/2.png,x,p\na/0.png,,q\n")
    source = opened(tmp_path, group="patient")
    assert (source.keys, source.labels, source.groups) == (("a/2.png", "a/0.png"), ("x", None), ("p", "q"))
    assert notes(source) == ["2 of 4 pictures are not in metadata.csv, and left out"]
    assert values(source) == [2, 0]


def test_metadata_in_lines_of_json_in_a_folder_of_each_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        write(tmp_path / split / "1.png", number)
        row = {"file_name": "1.png", "label": number, "boxes": [[1, 2]], "text": None}
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps(row) + "\n\n")
    source = opened(tmp_path)
    assert (source.keys, source.labels) == (("test/1.png", "train/1.png"), ("1", "0"))
    assert source.splits == ("test", "train")
    assert source.columns == Columns("label", None, "split")
    assert values(source) == [1, 0]


def test_metadata_in_parquet_and_a_picture_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "1.png", 7)
    table = pa.table({"file_name": ["1.png", "2.png"], "kind": ["x", "y"]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    source = opened(tmp_path, label="kind")
    assert source.labels == ("x", "y")
    assert values(source) == [7, "the file is missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "1.png"}\n{"file_name"', "line 2 is no JSON"),
        ('{"file_name": "1.png"}\n{"label": 1}', "line 2 has no file_name; fill it in or remove the line"),
        ('{"file_name": "1.png"}\n[1]', "line 2 has no file_name"),
        ('{"file_name": "1.png"}\n{"file_name": "./1.png"}', "lists ./1.png twice"),
    ],
)
def test_metadata_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "1.png", 1)
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_a_table_without_file_names_is_no_metadata(tmp_path: Path) -> None:
    write(tmp_path / "1.png", 1)
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    assert type(opened(tmp_path)).__name__ == "Folder"


# Parquet


def parquet(path: Path, rows: dict[str, list[Any]], names: list[str] | None = None) -> Path:
    images = [None if one is None else {"bytes": png(one), "path": None} for one in rows.pop("image")]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), **rows})
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return path


def test_rows_hold_the_images_and_numbers_have_names(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", {"image": [*range(100), None], "label": [0, 1, -1] + [1] * 98}, ["cat", "dog"]
    )
    source = opened(path)
    assert source.keys[:2] == ("a.parquet#0", "a.parquet#1")
    assert source.labels is not None
    assert source.labels[:4] == ("cat", "dog", None, "dog")
    assert values(source) == [*range(100), "the row holds no picture"]
    assert int(source.read(70)[0, 0, 0]) == 70
    assert len(set(source.stamps())) == 101


def test_files_of_a_folder_are_one_set_split_by_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        rows = {"image": [number, number + 10], "label": ["x", "y"], "lot": ["a", "b"]}
        parquet(tmp_path / "data" / f"{name}.parquet", rows)
    source = opened(tmp_path, group="lot")
    assert source.splits == ("test",) * 2 + ("train",) * 4
    assert source.labels == ("x", "y") * 3
    assert source.groups == ("a", "b") * 3
    assert values(source) == [2, 12, 0, 10, 1, 11]
    assert opened(tmp_path, split="none").splits is None


def test_plain_bytes_are_images_and_a_manifest_in_parquet_is_still_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [png(1), png(2)], "split": ["train", "test"]}), tmp_path / "a.parquet")
    source = opened(tmp_path / "a.parquet")
    assert (values(source), source.splits, source.labels) == ([1, 2], ("train", "test"), None)
    write(tmp_path / "1.png", 1)
    assert type(opened(tmp_path)).__name__ == "Folder"
    pq.write_table(pa.table({"path": ["1.png"], "embedding": [b"x"]}), tmp_path / "m.parquet")
    assert opened(tmp_path / "m.parquet").keys == ("1.png",)


def test_columns_and_schemas_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": [1], "label": ["x"]})
    with pytest.raises(DataError, match="has no column 'lable'; did you mean 'label'"):
        opened(path, label="lable")
    parquet(tmp_path / "b.parquet", {"image": [1]})
    with pytest.raises(DataError, match="has other columns than"):
        opened(tmp_path)
    odd = parquet(tmp_path / "c" / "c.parquet", {"image": [1], "split": ["fold1"]})
    with pytest.raises(DataError, match="column split holds 'fold1'; expected train, val or test"):
        opened(odd)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["metadata.jsonl"], "1 more table of images (metadata.jsonl) found, not read beside metadata.csv"),
        (["a/metadata.csv"], "1 more table of images (a/metadata.csv) found, not read beside metadata.csv"),
        (
            ["test/metadata.csv", "Metadata.parquet"],
            "2 more tables of images (Metadata.parquet the first) found, not read beside metadata.csv",
        ),
    ],
)
def test_a_second_table_is_said(more: list[str], words: str, tmp_path: Path) -> None:
    """One of another format, and those of folders below."""
    for number in range(4):
        write(tmp_path / "a" / f"{number}.png", number)
    for name in ("metadata.csv", *more):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(["file_name,label\n", *(f"a/{i}.png,x\n" for i in range(4))]))
    cures = "; put all rows into one table, or remove what is not meant"
    assert notes(opened(tmp_path)) == [words + cures]


def test_tables_in_folders_of_pictures_are_said(tmp_path: Path) -> None:
    """Where none lies at the top, the folders are classes and their tables are not used."""
    for number, name in enumerate(("cat", "dog")):
        write(tmp_path / name / "1.png", number)
        (tmp_path / name / "metadata.csv").write_text("file_name,breed\n1.png,x\n")
    found = "2 tables of images (cat/metadata.csv the first) found in a folder below, not used"
    assert any(note.startswith(found) for note in notes(opened(tmp_path)))
