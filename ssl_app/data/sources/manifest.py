"""A table (.csv, .tsv, .parquet) that lists images: path, and label, group, split where it has them.

A row may name a file of several images, which then have its label, group and split; or one of them, by `#`.
"""

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ssl_app.data import unused_columns
from ssl_app.data.companions import NOTHING, companions
from ssl_app.data.files import kind_for, looks
from ssl_app.data.members import MARK, Listed, Look, Members, several_notice
from ssl_app.data.sources.base import SPLITS, UNUSED, Columns
from ssl_app.data.survey import left_after, omitted, patterns_of
from ssl_app.data.table_columns import PATH, path_column, taken, values
from ssl_app.errors import DataError, Fix, Mistakes, Notice, Set, nearest

KINDS = (".csv", ".tsv", ".parquet")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # https://, s3://, gs://
BOOKS = {b"PK\x03\x04": "an Excel workbook or another ZIP archive", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}


class Manifest(Members):
    """Images listed in a table; every value is text, and an empty one means unknown."""

    last_resort = True  # after the tables that hold the images themselves

    def __init__(self, data: str, columns: Columns) -> None:
        self.name = data
        table = read_table(Path(data))
        root = Path(data).resolve().parent
        column = path_column(table, lambda cell: is_file(root / cell))
        if column is None:
            raise DataError(
                f"{data} has no column 'path' with the images' paths; its columns: {', '.join(table.columns)}",
                fix=(
                    Fix("call the one that holds them path"),
                    Set("labels", f"{data} with the folder of the images as the data"),
                ),
            )
        self.notes += tuple(taken(data, column, PATH))
        self.fill(table.rename(columns={column: PATH}), columns, root)

    def fill(self, table: pd.DataFrame, columns: Columns, root: Path) -> None:
        """Make the images of a table with the column path those of the source; paths begin at root."""
        data, mistakes = self.name, Mistakes()
        found: dict[str, str | None] = {}
        for name in ("label", "group", "split"):
            with mistakes.collected():
                found[name] = chosen(data, table, name, getattr(columns, name))
        self.columns = Columns(found.get("label"), found.get("group"), found.get("split"), columns.axis)
        kept = left_after(values(table, PATH), columns.omit)
        if patterns_of(columns.omit):
            self.notes += (Notice(omitted(len(table) - len(kept), "row")),)
            table = table[table[PATH].str.strip().isin(set(kept))]
        others = [name for name in table.columns if name not in {PATH, *vars(self.columns).values()}]
        self.unused = tuple(others)
        if self.columns.label is None and columns.label is None and others:
            only = f"{data} has no column label; its other columns: {', '.join(others)}"
            self.notes += (Notice(only, fixes=(Set("label", "COLUMN to name one of them"),)),)
        grouped = columns.group is not None or self.columns.group is not None
        split = columns.split is not None or self.columns.split is not None
        self.notes += tuple(unused_columns.notices({one: values(table, one) for one in others}, grouped, split))
        keys: tuple[str, ...] = ()
        with mistakes.collected():
            keys = paths(data, root, values(table, PATH))
        with mistakes.collected():
            read_splits(of_rows(table, self.columns.split), self.columns.split)
        mistakes.refuse()
        listed = looks(list(named(root, keys)), columns)
        parents = self.take([in_a_table(file) for file in listed])

        def known(column: str | None) -> tuple[str | None, ...] | None:
            rows = of_rows(table, column)
            return None if rows is None else tuple(rows[parent] for parent in parents)

        self.labels, self.groups = known(self.columns.label), known(self.columns.group)
        self.splits = read_splits(known(self.columns.split), self.columns.split)
        if self.groups is None:
            self.set_groups(listed, parents, columns)
        self.notes += tuple(several_notice(listed))
        if NOTHING not in columns.omit:
            self.notes += tuple(companions(self.keys).notices(left_out=False))

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a file with the ending of a table."""
        return Path(data).suffix.lower() in KINDS and Path(data).is_file()


def is_file(path: Path) -> bool:
    """Whether a file lies there; none where a path cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def named(root: Path, keys: Sequence[str]) -> Iterator[Listed]:
    """The files that a table's paths name; of `volume.nii.gz#12`, where no file is called so, one image of it."""
    for key in keys:
        path, mark, within = (root / key).as_posix().rpartition(MARK)
        if mark and not (root / key).exists() and (kind := kind_for(Path(path))) is not None:
            yield Listed(key.rpartition(MARK)[0], Path(path), kind, within)
        else:
            yield Listed(key, root / key, kind_for(root / key))


def in_a_table(file: Listed) -> Listed:
    """A file that is listed is meant: where it holds no image, it is one that cannot be read."""
    why = file.look.left_out
    return file if why is None else replace(file, look=Look(unreadable=f"no image of the set: {why}"))


def read_table(path: Path) -> pd.DataFrame:
    """The table as text: nothing is taken for a number, and nothing for a missing value."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path).convert_dtypes()
            for column in table.columns:
                table[column] = table[column].astype("string").fillna("")
        else:
            refuse_workbook(path)
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
                refuse_twice(path, separator(path))
                table = pd.read_csv(
                    path,
                    sep=separator(path),
                    dtype=str,
                    keep_default_na=False,
                    encoding="utf-8-sig",
                    index_col=False,
                )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text; save it as CSV UTF-8") from error
    except (
        ValueError,
        OSError,
        ImportError,
        pd.errors.ParserWarning,
    ) as error:  # pandas' and pyarrow's errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a table ({reason}); expected a header with path, label, group, split"
        ) from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if table.empty:
        raise DataError(f"{path} lists no images; expected one row an image below the header")
    return table


def refuse_workbook(path: Path) -> None:
    """Raise DataError for a workbook that is called .csv: as text it is empty, or noise."""
    with path.open("rb") as file:
        what = BOOKS.get(file.read(4))
    if what is not None:
        raise DataError(f"{path} is {what} by its content, and no text", fix=Fix("save it as CSV UTF-8"))


def separator(path: Path) -> str:
    """Tab for .tsv; of .csv the comma, or what cuts a path out of its header, or else the most columns: tab, or some
    countries' semicolon.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    names = {between: names_of(path, between) for between in (",", ";", "\t")}
    return max(names, key=lambda between: (PATH in names[between], len(names[between])))  # the first of equals


def names_of(path: Path, between: str) -> list[str]:
    """The columns, if they are separated so."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next(csv.reader(file, delimiter=between), [])]


def refuse_twice(path: Path, between: str) -> None:
    """Raise DataError where two columns have one name: which one is meant, nobody knows."""
    for name, count in Counter(names_of(path, between)).items():
        if name and count > 1:
            raise DataError(f"{path} has {count} columns named {name}; rename or remove all but one")


def of_rows(table: pd.DataFrame, column: str | None) -> tuple[str | None, ...] | None:
    """The values of a column, None where a cell is empty; None without a column."""
    return None if column is None else tuple(value or None for value in values(table, column))


def chosen(data: str, table: pd.DataFrame, default: str, requested: str | None) -> str | None:
    """The column to use: the one requested for, else the default where it is present."""
    if requested == UNUSED:
        return None
    if requested is None:
        return default if default in table.columns else None
    if requested not in table.columns:
        raise DataError(f"{data} has no column '{requested}'{nearest(requested, table.columns)}")
    return requested


def paths(data: str, root: Path, listed: list[str]) -> tuple[str, ...]:
    """The column path, normalized. Raises DataError for an empty one and for one that is listed twice."""
    rows: dict[str, int] = {}
    keys = []
    for row, path in enumerate(listed, start=2):  # as a spreadsheet counts, the header being row 1
        if not path:
            raise DataError(f"{data} row {row} has no path; fill it in or remove the row")
        if ADDRESS.match(path):
            raise DataError(f"{data} row {row} has the address {path}; download its images, and list their paths")
        if "\0" in path:
            raise DataError(f"{data} row {row} has a NUL byte in its path; fix the table")
        if "\\" in path and os.sep == "/" and not (root / path).exists():
            raise DataError(f"{data} row {row} has the path {path}; expected / between folders: replace every \\")
        key = os.path.normpath(path).replace(os.sep, "/")
        full = os.path.normpath(root / key)
        if full in rows:
            raise DataError(f"{data} lists {path} twice (rows {rows[full]} and {row}); remove one of them")
        rows[full] = row
        keys.append(key)
    return tuple(keys)


def read_splits(found: tuple[str | None, ...] | None, column: str | None) -> tuple[str | None, ...] | None:
    """train, val or test, by their usual names. Raises DataError for any other value."""
    if found is None:
        return None
    strange = Counter(value for value in found if value is not None and value.lower() not in SPLITS)
    if strange:
        value, count = min(strange.items(), key=lambda item: (-item[1], item[0]))
        raise DataError(
            f"column {column} holds '{value}' ({count} row{'s' * (count > 1)})",
            expected="train, val or test",
            fix=(Fix("fix it"), Set("split", UNUSED)),
        )
    return tuple(None if value is None else SPLITS[value.lower()] for value in found)
