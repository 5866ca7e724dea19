"""Which columns of a table hold the images' paths and their labels, where they are called otherwise."""

from collections.abc import Callable, Sequence

import pandas as pd

from ssl_app.errors import Notice
from ssl_app.tables import plain

PATH, LABEL = "path", "label"
ROWS = 200  # that are looked at: evenly from the whole table
MOST = 0.5  # of them, at least, must name images
CLASSES = {"label", "labels", "class", "classes", "category", "target", "diagnosis"}  # in any case


def values(table: pd.DataFrame, column: str) -> list[str]:
    """One column as stripped text, without the mark that keeps a spreadsheet from computing it."""
    return [plain(str(value).strip()) for value in table[column].tolist()]


def path_column(table: pd.DataFrame, *known: Callable[[str], bool]) -> str | None:
    """`path`, or else the one column most of whose values name images; None where there is no such one.

    Of several ways to name an image, the surest first, the first counts by which a column does. A class 0 may be
    called as the file 0.png is: what says the same of many rows names no images.
    """
    if PATH in table.columns:
        return PATH
    some = table.iloc[:: max(1, len(table) // ROWS)]
    cells = {name: values(some, name) for name in table.columns}
    cells = {name: found for name, found in cells.items() if len(set(found)) > MOST * len(found)}
    for way in known:
        found = [name for name, its in cells.items() if _share(its, way) > MOST]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def label_column(columns: Sequence[str]) -> str | None:
    """Of the columns beside the paths, the only one, or else the only one that is called like classes."""
    found = [name for name in columns if name.strip().lower() in CLASSES]
    return columns[0] if len(columns) == 1 else found[0] if len(found) == 1 else None


def taken(data: object, column: str, name: str) -> list[Notice]:
    """A line on a column that is called otherwise than expected; none where it is not."""
    return [] if column == name else [Notice(f"{data} has no column {name}; its column {column} is taken for it")]


def _share(cells: Sequence[str], known: Callable[[str], bool]) -> float:
    return sum(map(known, filter(None, cells))) / max(1, len(cells))
