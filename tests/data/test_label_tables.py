"""A table of labels names images by their paths, or the file whose slices, frames or pages they are."""

from dataclasses import replace
from pathlib import Path

import pytest

from ssl_app.data.label_tables import read_labels
from ssl_app.data.members import file_of
from ssl_app.data.opened import labeled_by
from ssl_app.data.sources.base import Columns
from ssl_app.data.sources.manifest import separator
from ssl_app.errors import DataError
from tests import toys

KEYS = ("a.nii.gz#0", "a.nii.gz#1", "b.nii.gz#0", "c#1.png", "d.png")
REAL = ("c#1.png", "Lot #3/d.png", "#.png", "d.png", "#3")  # files, each of one image


def test_a_file_labels_all_its_images_and_an_image_beats_its_file(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.nii.gz,x\na.nii.gz#1,y\nc#1.png,z\nother.nii,x\n")
    labels = read_labels(table, KEYS)[0]
    assert labels.of(KEYS) == [["x", "y", None, "z", None]]
    assert labels.unmatched(KEYS) == ["other.nii"]


def test_a_table_that_names_no_image_shows_how_they_are_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nscan.nii,x\n")
    with pytest.raises(DataError, match=r"its first path is 'scan\.nii', theirs 'a\.nii\.gz#0'"):
        read_labels(table, KEYS)[0].of(KEYS)


def test_the_name_of_a_file_is_not_cut_at_its_mark() -> None:
    assert [file_of(key) for key in KEYS[:2]] == ["a.nii.gz", "a.nii.gz"]
    assert [file_of(key) for key in REAL] == list(REAL)


def test_bare_names_that_are_each_of_one_image_are_taken(tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", ["Lot 1/a.png", "Lot 2/b.png", "Lot 2/v.tif#0", "Lot 2/v.tif#1"]
    table.write_text("path,label\nb.png,x\na.png,y\nv.tif,z\ngone.png,x\n")
    labels, notes = read_labels(table, keys)
    assert labels.of(keys) == [["y", "x", "z", "z"]]
    assert labels.unmatched(keys) == ["gone.png"]
    (bare,) = map(str, notes)
    assert bare == f"3 bare names of files are taken for the one image of that name in a folder ({table})"
    whole, nothing = read_labels(table, ["a.png", "Lot 2/b.png"])  # one is a path already
    assert nothing == []
    assert whole.of(["a.png", "Lot 2/b.png"]) == [["y", None]]


def test_a_bare_name_of_two_images_is_refused_with_the_path_of_one(tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", ["Lot 0/scan.png", "Lot 1/b.png", "Lot 2/b.png"]
    table.write_text("path,label\nb.png,x\n")
    with pytest.raises(DataError, match=r"has 'b\.png', and 2 files are called so, 'Lot 1/b\.png' the first; "):
        read_labels(table, keys)


@pytest.mark.parametrize(
    "listed",
    ["{root}/{file}", "scans/{file}", "data/scans/{file}", "./data/../data/scans/{file}", "scans/{stem}"],
)
@pytest.mark.parametrize("header", ["path,label", "file,class"])
def test_paths_from_another_folder_are_taken_for_the_images_that_they_lead_to(
    listed: str, header: str, tmp_path: Path
) -> None:
    root, keys = tmp_path / "data" / "scans", ["a/1.png", "a/2.png", "b/1.png", "v.tif#0", "v.tif#1"]
    files = {"a/1.png": "x", "b/1.png": "y", "v.tif": "z"}
    rows = [
        f"{listed.format(root=root, file=file, stem=file.rpartition('.')[0])},{name}" for file, name in files.items()
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join([header, *rows]))
    found, notes = read_labels(table, keys, root=root)
    assert found.of(keys) == [["x", None, "y", "z", "z"]]
    assert str(notes[-1]).startswith("3 paths are taken for the one image whose path ends alike")
    assert found.unmatched(keys) == []


def test_two_paths_of_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\nscans/1.png,x\ndata/scans/1.png,y\n")
    with pytest.raises(DataError, match=r"names 1.png twice, as 'scans/1.png' too; remove one of"):
        read_labels(tmp_path / "labels.csv", ["1.png", "2.png"], root=tmp_path / "data" / "scans")


def test_rows_that_name_folders_hold_for_their_images(tmp_path: Path) -> None:
    keys = ["P1/a.png", "P1/b.png", "x/P2/c.tif#0", "x/P2/c.tif#1", "x/P3/d.png"]
    (tmp_path / "labels.csv").write_text("patient_id,diagnosis\nP1,ill\nP2,well\nP9,ill\n")
    found, notes = read_labels(tmp_path / "labels.csv", keys, grouped=False)
    assert found.of(keys) == [["ill", "ill", "well", "well", None]]
    assert found.unmatched(keys) == ["P9"]
    assert str(notes[-1]).startswith("2 rows name folders, and hold for all their images")


def test_a_column_of_groups_in_a_table_of_labels_is_not_used_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label,patient\na.png,x,1\nb.png,y,1\nc.png,y,2\n")
    keys = ["a.png", "b.png", "c.png"]
    (note,) = map(str, read_labels(tmp_path / "labels.csv", keys, grouped=False)[1])
    assert "column patient of" in note
    assert "has 2 values, and is not used: images of one may be in test and train" in note
    assert read_labels(tmp_path / "labels.csv", keys)[1] == []


@pytest.mark.parametrize("listed", ["other/a/1.png", "/elsewhere/scans/a/1.png", "train/1.png"])
def test_paths_of_other_folders_are_none_of_these_images(listed: str, tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", ["a/1.png", "b/2.png"]
    table.write_text(f"path,label\n{listed},x\n")
    found, notes = read_labels(table, keys, root=tmp_path / "data" / "scans")
    assert notes == []
    with pytest.raises(DataError, match="names none of 2 images"):
        found.of(keys)


def test_a_folder_above_the_data_is_known_whatever_the_data_are(tmp_path: Path) -> None:
    dataset = replace(toys.dataset(["p", "q"]), keys=("a/1.png", "a/2.png"), name=str(tmp_path / "set" / "m.csv"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "m.csv").write_text("path\na/1.png\na/2.png\n")
    (tmp_path / "labels.csv").write_text("path,label\nset/a/2.png,x\nset/a/1.png,y\n")
    assert labeled_by(dataset, tmp_path / "labels.csv", Columns())[0].labels.tolist() == [1, 0]


def test_a_separator_is_known_by_the_header_whatever_its_names(tmp_path: Path) -> None:
    for header, found in (("Datei;Los", ";"), ("Datei", ","), ("a\tb\tc", "\t"), ("path;a,b", ";"), ("a,b", ",")):
        (tmp_path / "a.csv").write_text(header + "\n")
        assert separator(tmp_path / "a.csv") == found


def test_rows_of_images_that_cannot_be_read_are_said_to_be_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = replace(toys.dataset([None] * 3), unreadable=(("broken.png", "cut"), ("cut.png", "cut")))
    table = tmp_path / "labels.csv"
    rows = "".join(f"{key},{label}\n" for key, label in zip(dataset.keys, "aba", strict=True))
    table.write_text(f"path,label\n{rows}broken.png,a\ncut.png,b\ngone.png,b\n")
    with caplog.at_level("INFO"):
        labeled_by(dataset, table, Columns())
    assert f"note: in {table} 2 rows name images that could not be read, the first is 'broken.png'" in caplog.messages
    assert f"note: 1 of 6 rows of {table} name no image, the first is 'gone.png'" in caplog.messages


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("filename,class\nlot/a.png,x\nlot/b.png,y\n", {"path": "filename", "label": "class"}),
        ("dx,file\nx,lot/a.png\ny,lot/b.png\n", {"path": "file", "label": "dx"}),
        ("age,Path,Label\n30,lot/a.png,x\n40,lot/b.png,y\n", {"path": "Path", "label": "Label"}),
        ("id,label,age\na,x,3\nb,y,4\n", {"path": "id"}),  # names without ending
        ("path,species\na.png,x\nb.png,y\n", {"label": "species"}),
    ],
)
def test_columns_of_other_names_are_taken_where_it_is_clear_which_they_are(text, columns, tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", ["lot/a.png", "lot/b.png", "lot/c.png"]
    table.write_text(text)
    found, notes = read_labels(table, keys)
    assert found.of(keys) == [["x", "y", None]]
    taken = [str(note) for note in notes if "is taken for it" in str(note)]
    assert taken == [
        f"{table} has no column {name}; its column {column} is taken for it" for name, column in columns.items()
    ]


def test_classes_that_are_called_as_files_are_no_paths(tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", [f"pix/{i}.png" for i in range(20)]
    table.write_text("file_path,target\n" + "".join(f"pix/{i}.png,{i % 2}\n" for i in range(20)))
    assert read_labels(table, keys)[0].of(keys) == [[str(i % 2) for i in range(20)]]
    table.write_text("number,target\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    assert read_labels(table, keys)[0].of(keys) == [[str(i % 2) for i in range(20)]]
    table.write_text("target,file\n" + "".join(f"{i},{i}.png\n" for i in range(20)))
    assert read_labels(table, keys)[0].of(keys) == [[str(i) for i in range(20)]], "a name of a file is surer"


def test_the_column_of_the_labels_may_be_named(tmp_path: Path) -> None:
    table, keys = tmp_path / "labels.csv", ["lot/a.png", "lot/b.png"]
    table.write_text("path,label,sex\nlot/a.png,x,f\nlot/b.png,y,m\n")
    assert read_labels(table, keys, "sex")[0].of(keys) == [["f", "m"]]
    found, notes = read_labels(table, keys, "kind")
    assert found.of(keys) == [["x", "y"]]
    assert list(map(str, notes)) == [f"{table} has no column kind; its column label is taken for it"]


@pytest.mark.parametrize(
    "text",
    [
        "file,mask,label\nlot/a.png,lot/b.png,x\nlot/b.png,lot/a.png,x\n",  # both name images
        "file,label\nelsewhere/a.png,x\nlot/z.png,y\n",  # no column does
        "path,age,sex\nlot/a.png,3,f\nlot/b.png,4,m\n",  # which of them holds classes?
        "path,class,category\nlot/a.png,3,f\nlot/b.png,4,m\n",
    ],
)
def test_columns_that_are_not_clear_are_refused(text: str, tmp_path: Path) -> None:
    (table := tmp_path / "labels.csv").write_text(text)
    with pytest.raises(
        DataError,
        match=r"expected path and label, or path and cluster; rename its columns",
    ):
        read_labels(table, ["lot/a.png", "lot/b.png"])
