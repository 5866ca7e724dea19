"""A Hugging Face image folder: metadata.csv, .jsonl or .parquet with file_name and the images' labels.

One such table lies at the top, or one in each folder named train, val or test, whose name is then the split. Any
others are counted.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_app.data.files import file_kinds
from ssl_app.data.sources.base import SPLITS, Columns
from ssl_app.data.sources.manifest import Manifest, read_table
from ssl_app.data.survey import IMAGES, first_of, survey
from ssl_app.data.table_columns import PATH
from ssl_app.errors import DataError, Fix, Notice

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
SPLIT = "split"


class HuggingFace(Manifest):
    """The images that the tables list; others in the folder are counted."""

    last_resort = False

    def __init__(self, data: str, columns: Columns) -> None:
        self.name = data
        root = Path(data)
        found = tables(root)
        listed = pd.concat([rows(path, root) for path in found], ignore_index=True).fillna("")
        if all(path.parent.name.lower() in SPLITS for path in found) and SPLIT not in listed.columns:
            listed[SPLIT] = [SPLITS[name.partition("/")[0].lower()] for name in listed[PATH]]
        self.fill(listed, columns, root.resolve())
        files = survey(data, file_kinds())
        read = [path.relative_to(root).as_posix() for path in found]
        if more := sorted(set(files.tables) - set(read)):
            what = (
                f"{first_of(more, 'more table of images', 'more tables of images')} found, not read beside {read[0]}"
            )
            self.notes += (Notice(what, fixes=(Fix("put all rows into one table"), Fix("remove what is not meant"))),)
        pictures = files.files.get(IMAGES, [])
        if others := len(set(pictures) - set(listed[PATH])):
            self.notes += (Notice(f"{others} of {len(pictures)} pictures are not in {found[0].name}, and left out"),)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a folder with such a table."""
        return Path(data).is_dir() and bool(tables(Path(data)))


def tables(root: Path) -> list[Path]:
    """The tables of a folder: that at its top, else those of its splits."""
    try:
        splits = [path for path in sorted(root.iterdir()) if path.name.lower() in SPLITS and path.is_dir()]
    except OSError:
        return []
    at_top = [root / name for name in NAMES if (root / name).is_file()]
    below = [path / name for path in splits for name in NAMES if (path / name).is_file()]
    return [path for path in at_top[:1] or below if FILE_NAME in columns_of(path)]


def columns_of(path: Path) -> list[str]:
    """The columns of a table, or none where it has none."""
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                first = json.loads(file.readline())
            return list(first) if isinstance(first, dict) else []
        return list(read_table(path).columns)
    except (DataError, OSError, ValueError):
        return []


def rows(path: Path, root: Path) -> pd.DataFrame:
    """One table as text, with the column path, below root, instead of file_name. Raises DataError."""
    table = pd.DataFrame(list(lines(path))) if path.suffix == ".jsonl" else read_table(path)
    if FILE_NAME not in table.columns or not len(table):
        raise DataError(f"{path} has no column {FILE_NAME}", expected="a row for each image")
    below = path.parent.relative_to(root).as_posix()
    table[PATH] = [name if below == "." or not name else f"{below}/{name}" for name in map(str, table[FILE_NAME])]
    return table.drop(columns=FILE_NAME)


def lines(path: Path) -> Iterator[dict[str, str]]:
    """Each line of a .jsonl as text by column; an absent value is empty. Raises DataError."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path} line {number} is no JSON ({error})") from error
            if not isinstance(found, dict) or not found.get(FILE_NAME):
                raise DataError(f"{path} line {number} has no {FILE_NAME}; fill it in or remove the line")
            yield {str(name): text_of(value) for name, value in found.items()}


def text_of(value: Any) -> str:
    """A value of JSON as a label: text as it is, a list or a table as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
