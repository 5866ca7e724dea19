"""CSV that a spreadsheet shows and does not compute, and that is read as it was written."""

import csv
import errno
from pathlib import Path

import pytest

from ssl_app import tables
from ssl_app.data.sources.manifest import read_table
from ssl_app.data.table_columns import values

# what a class or a file may be called, and what a spreadsheet makes of it
COMPUTED = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("x","y")',
    "'=1",
    "''+a",
]
SHOWN = [
    "-3",
    "+5",
    "-1.5e-3",
    ".5",
    "a=b",
    "'",
    "'a",
    " =1",
    "",
    "a,b",
    'a"b',
    "a\nb",
    "cat",
    "äöü",
    "a\udcffb",
    "1-2",
]


@pytest.mark.parametrize("text", [*COMPUTED, *SHOWN])
def test_a_name_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    tables.write(tmp_path / "t.csv", ["path", text], [[text, 1], ["b", None]])
    assert tables.read(tmp_path / "t.csv") == (["path", text], [[text, "1"], ["b", ""]])


@pytest.mark.parametrize("text", COMPUTED)
def test_no_cell_begins_a_formula(text: str, tmp_path: Path) -> None:
    tables.write(tmp_path / "t.csv", ["path"], [[text]])
    with (tmp_path / "t.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) == 2
    assert cells[1].startswith("'")


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    tables.write(tmp_path / "t.csv", ["path", "margin"], [["-3", -0.5], ["a", -1]])
    assert (tmp_path / "t.csv").read_text() == "path,margin\n-3,-0.5\na,-1\n"


@pytest.mark.parametrize("text", [*COMPUTED[:4], COMPUTED[7], "'=1", "-3", "cat"])
def test_a_table_of_ours_is_a_manifest_with_the_same_names(text: str, tmp_path: Path) -> None:
    tables.write(tmp_path / "t.csv", ["path", "label"], [["a.png", text]])
    assert values(read_table(tmp_path / "t.csv"), "label") == [text]


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows():
        yield ["a"]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as full:
        tables.write(tmp_path / "t.csv", ["path"], rows())
    assert full.value.filename == str(tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []
