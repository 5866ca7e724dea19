"""Tables of text as CSV, which a spreadsheet shows and does not compute.

A cell that begins with =, +, -, @, a tab or a line break is a formula to Excel and its like, unless it is a number:
names of files and classes come from anywhere. It is written with a ' before it, and read without.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl_app import runs

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
GUARDED = re.compile(r"'+[=+\-@\t\r\n]")
QUOTE, QUOTED = '"', re.compile(r'[",\r\n]')
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table in one step; None is an empty cell. Raises OSError."""
    with (
        runs.draft(path) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        file.write(line(header))
        file.writelines(map(line, rows))


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table, as they were given to `write`. Raises OSError, ValueError, csv.Error."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = [[plain(cell) for cell in row] for row in csv.reader(file, strict=True)] or [[]]
    return header, rows


def line(row: Sequence[object]) -> str:
    """A row as text. The csv module's writer quotes no carriage return where lines end otherwise (Python 3.11)."""
    cells = ["" if cell is None else str(guarded(cell)) for cell in row]
    quoted = [f'"{cell.replace(QUOTE, QUOTE + QUOTE)}"' if QUOTED.search(cell) else cell for cell in cells]
    return f"{','.join(quoted)}\n"


def guarded(cell: object) -> object:
    """A cell as it is written; numbers as they are."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def plain(cell: str) -> str:
    """A cell as it was before it was guarded."""
    return cell[1:] if GUARDED.match(cell) else cell
