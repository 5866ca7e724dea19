"""Images to label next: a table of labels to be filled in, and an offline page to fill it in on.

The page holds the pictures themselves, so that it can be sent to whoever knows the classes.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs, tables
from ssl_app.report import page

TABLE, PAGE = "suggested.csv", "suggested.html"


@dataclass(frozen=True)
class Row:
    """One image of the table."""

    path: str
    label: str  # empty where it is not known
    stands_for: int | None  # training images that it is nearest to, of all suggested or labeled; None: not suggested
    group: str  # empty where it has none


@dataclass(frozen=True)
class Suggestion:
    """What is suggested, and what is labeled already: the table needs both, since one file is all that is read."""

    run: str  # its name
    identity: str  # under which the browser keeps the names: they outlive a move of the run
    data: str  # as typed
    suggested: Sequence[Row]  # the most important first
    labeled: Sequence[Row]
    group: str | None  # the column of the groups, where the data have one

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return ["path", "label", "stands_for", *(["group"] if self.group else [])]

    def cells(self, rows: Sequence[Row]) -> list[list[str]]:
        """The rows as text, a cell a column."""
        found = [
            [row.path, row.label, "" if row.stands_for is None else str(row.stands_for), row.group] for row in rows
        ]
        return [cells[: len(self.columns)] for cells in found]


def write_table(path: Path, suggestion: Suggestion) -> None:
    """CSV: path, label, images that it stands for, group; suggested images first, then those labeled already."""
    tables.write(path, suggestion.columns, suggestion.cells([*suggestion.suggested, *suggestion.labeled]))


def write_page(path: Path, suggestion: Suggestion, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """The page, in one file. pictures (H, W, 1 or 3) are those of the suggested images, in their order."""
    runs.write_bytes(path, page.filled(PAGE, content(suggestion, pictures)).encode())


def content(suggestion: Suggestion, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """What the page knows, as plain JSON values."""
    return {
        "run": suggestion.run,
        "identity": suggestion.identity,
        "data": suggestion.data,
        "group": suggestion.group,
        "columns": suggestion.columns,
        "suggested": suggestion.cells(suggestion.suggested),
        "labeled": suggestion.cells(suggestion.labeled),
        "pictures": [base64.b64encode(page.jpeg(picture)).decode() for picture in pictures],
    }
