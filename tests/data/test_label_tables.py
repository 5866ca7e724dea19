"""A table of labels names images by their paths, or the file whose slices, frames or pages they are."""

from pathlib import Path

import pytest

from ssl_app.data.label_tables import read_labels
from ssl_app.data.members import file_of
from ssl_app.errors import DataError

KEYS = ("a.nii.gz#0", "a.nii.gz#1", "b.nii.gz#0", "c#1.png", "d.png")
REAL = ("c#1.png", "Lot #3/d.png", "#.png", "d.png", "#3")  # files, each of one image


def test_a_file_labels_all_its_images_and_an_image_beats_its_file(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na.nii.gz,x\na.nii.gz#1,y\nc#1.png,z\nother.nii,x\n")
    labels = read_labels(table)
    assert labels.of(KEYS) == [["x", "y", None, "z", None]]
    assert labels.unmatched(KEYS) == ["other.nii"]


def test_a_table_that_names_no_image_shows_how_they_are_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nscan.nii,x\n")
    with pytest.raises(DataError, match=r"its first path is 'scan\.nii', theirs 'a\.nii\.gz#0'"):
        read_labels(table).of(KEYS)


def test_the_name_of_a_file_is_not_cut_at_its_mark() -> None:
    assert [file_of(key) for key in KEYS[:2]] == ["a.nii.gz", "a.nii.gz"]
    assert [file_of(key) for key in REAL] == list(REAL)
