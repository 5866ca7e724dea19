"""Parquet files that hold the images themselves, as Hugging Face saves sets: a column of bytes, and one of labels.

One file, or a folder of them; a file whose name has train, val or test as a word gives its rows that split. Numbers
of a column of class labels become the names that the file's schema gives.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_app.data import unused_columns
from ssl_app.data.files import file_kinds
from ssl_app.data.images import Unreadable, decode
from ssl_app.data.sources.base import SPLITS, UNUSED, Columns, Source, file_stamp, in_order
from ssl_app.data.survey import survey
from ssl_app.data.table_columns import PATH
from ssl_app.errors import DataError, Fix, Notice, Set, nearest

T = TypeVar("T")
ENDING = ".parquet"
BYTES = "bytes"  # the field of an image column that holds the encoded picture
FILE_NAMES = "file names"
USUAL = {"label": ("label", "labels"), "group": ("group",), "split": ("split",)}
IMAGE_NAMES = ("image", "img", "picture", "pixel_values")  # of a column, where several hold pictures
AT_ONCE = 64  # rows read at a time


class Parquet(Source):
    """Images in the rows of Parquet files, read a few rows at a time."""

    def __init__(self, data: str, columns: Columns) -> None:
        self.name = data
        self.files = files_of(data)
        schemas = [pq.read_schema(path) for path in self.files]
        found = [image_columns(schema) for schema in schemas]
        self.image = next(iter(found[0]), None)
        if not all(schema.equals(schemas[0]) for schema in schemas):
            odd = next(
                path for path, schema in zip(self.files, schemas, strict=True) if not schema.equals(schemas[0])
            )
            raise DataError(f"{odd} has other columns than {self.files[0]}", expected="files of one set")
        chosen = {kind: column_for(data, schemas[0], kind, getattr(columns, kind)) for kind in USUAL}
        self.starts = [0]
        values: dict[str, list[str | None]] = {kind: [] for kind in USUAL}
        keys: list[str] = []
        for path in self.files:
            table = read_columns(path, [name for name in chosen.values() if name is not None])
            count = pq.read_metadata(path).num_rows
            keys += [f"{path.name}#{row}" for row in range(count)]
            self.starts.append(len(keys))
            for kind, name in chosen.items():
                values[kind] += [None] * count if name is None else texts(table, schemas[0], name)
        if not keys:
            raise DataError(f"{data} holds no rows")
        self.keys = tuple(keys)
        self.file_names = tuple(key.rpartition("#")[0] for key in keys)
        self.labels, self.groups = (
            tuple(values[kind]) if chosen[kind] is not None else None for kind in ("label", "group")
        )
        self.set_splits(chosen, values["split"], columns)
        if len(found[0]) > 1:
            several = f"the columns {', '.join(found[0])} hold pictures, and {self.image} is read"
            self.notes += (Notice(several, fixes=(Fix("write a file without the others to read another"),)),)
        others = [name for name in schemas[0].names if name not in {*found[0], *chosen.values()}]
        self.unused = tuple(others)
        self.notes += tuple(
            unused_columns.notices(
                self.worth(others, schemas[0]),
                *(chosen[kind] is not None or getattr(columns, kind) is not None for kind in ("group", "split")),
            )
        )
        if chosen["label"] is None and columns.label is None and others:
            only = f"{data} has no column label; its other columns: {', '.join(others)}"
            self.notes += (Notice(only, fixes=(Set("label", "COLUMN to name one of them"),)),)

    def worth(self, names: list[str], schema: pa.Schema) -> dict[str, list[str]]:
        """The values of columns that may be groups or a split: short texts and whole numbers."""
        kinds = {name: schema.field(name).type for name in names}
        flat = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_integer(kind)]
        found: dict[str, list[str]] = {name: [] for name in flat}
        for path in self.files if flat else ():
            table = read_columns(path, flat)
            for name in flat:
                found[name] += [value or "" for value in texts(table, schema, name)]
        return found

    def set_splits(self, chosen: dict[str, str | None], found: list[str | None], columns: Columns) -> None:
        """The split column, else the word in the files' names."""
        origin = chosen["split"]
        if origin is None and columns.split is None:
            words = [split_of(path.name) for path in self.files]
            sizes = [stop - start for start, stop in zip(self.starts, self.starts[1:], strict=False)]
            found = [word for word, size in zip(words, sizes, strict=True) for _ in range(size)]
            origin = FILE_NAMES if all(words) and len(set(words)) > 1 else None
        elif origin is not None:
            strange = Counter(value for value in found if value is not None and value.lower() not in SPLITS)
            if strange:
                raise DataError(f"column {origin} holds '{next(iter(strange))}'", expected="train, val or test")
            found = [None if value is None else SPLITS[value.lower()] for value in found]
        self.splits = None if origin is None else tuple(found)
        self.columns = Columns(chosen["label"], chosen["group"], origin)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is such a file, or a folder of such files and of no images; a table of paths is a manifest."""
        try:
            found = files_of(data)
            schema = pq.read_schema(found[0]) if found else None
        except (OSError, ValueError, pa.ArrowException):  # a name that is no UTF-8 is a ValueError
            return False
        if schema is None or PATH in schema.names or not image_columns(schema):
            return False
        return Path(data).is_file() or survey(data, file_kinds()).leading is None

    def read(self, i: int) -> NDArray[Any]:
        """Image i: (H, W, C). Raises Unreadable."""
        number = next(n for n, stop in enumerate(self.starts[1:]) if i < stop)
        row = i - self.starts[number]
        for start, contents in self.contents(number):
            if row < start + len(contents):
                return decoded(contents[row - start], self.keys[i], self.max_image_mb)
        raise Unreadable("the file has changed")

    def each(self, work: Callable[[NDArray[Any]], T]) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) in order: the files are read as streams, images decoded in threads."""

        def rows() -> Iterator[tuple[int, bytes | None]]:
            for number in range(len(self.files)):
                for start, contents in self.contents(number):
                    yield from enumerate(contents, start=self.starts[number] + start)

        def done(item: tuple[int, bytes | None]) -> tuple[int, T | Unreadable]:
            i, content = item
            try:
                return i, work(decoded(content, self.keys[i], self.max_image_mb))
            except Unreadable as reason:
                return i, reason

        return in_order(done, rows())

    def contents(self, number: int) -> Iterator[tuple[int, list[bytes | None]]]:
        """(first row, encoded pictures) of a file, a few rows at a time. Raises DataError where it is damaged."""
        assert self.image is not None
        start = 0
        try:
            with pq.ParquetFile(self.files[number]) as file:
                for batch in file.iter_batches(AT_ONCE, columns=[self.image]):
                    column = batch.column(0)
                    if pa.types.is_struct(column.type):
                        column = column.field(BYTES)
                    yield start, column.to_pylist()
                    start += len(column)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.files[number]} is damaged after row {start} ({error})") from error

    def stamps(self) -> Iterator[str]:
        """(N,) path, size and time of change of the file, and the row."""
        stamps = [file_stamp(path.resolve()) for path in self.files]
        spans = zip(stamps, self.starts, self.starts[1:], strict=False)
        return (f"{stamp}|{row}" for stamp, start, stop in spans for row in range(stop - start))


def files_of(data: str) -> list[Path]:
    """The Parquet files that what was typed names, sorted; of a folder all at its top, or in its folder data."""
    path = Path(data)
    if path.is_file():
        return [path] if path.suffix.lower() == ENDING else []
    for folder in (path, path / "data"):
        found = sorted(folder.glob(f"*{ENDING}")) if folder.is_dir() else []
        if found:
            return found
    return []


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns of encoded pictures, of bytes or of a table with the field bytes: the one that is read first."""
    found: list[str] = []
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index(BYTES) >= 0:
            kind = kind.field(BYTES).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found.append(str(field.name))
    return sorted(found, key=lambda name: name.lower() not in IMAGE_NAMES)


def column_for(data: str, schema: pa.Schema, kind: str, requested: str | None) -> str | None:
    """The column of labels, groups or splits: the one requested, else the usual one. Raises DataError."""
    if requested == UNUSED:
        return None
    if requested is None:
        return next((name for name in USUAL[kind] if name in schema.names), None)
    if requested not in schema.names:
        raise DataError(f"{data} has no column '{requested}'{nearest(requested, schema.names)}")
    return requested


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Some columns of a file. Raises DataError."""
    try:
        return pq.read_table(path, columns=names, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error


def texts(table: pa.Table, schema: pa.Schema, name: str) -> list[str | None]:
    """A column as text; numbers of class labels by their names, None where it is empty or -1 there."""
    names = class_names(schema, name)
    found: list[str | None] = []
    for value in table.column(name).to_pylist():
        if names and isinstance(value, int):
            found.append(names[value] if 0 <= value < len(names) else None)
        elif value is None or (isinstance(value, float) and not math.isfinite(value)):
            found.append(None)
        else:
            found.append(str(value).strip() or None)
    return found


def class_names(schema: pa.Schema, name: str) -> list[str]:
    """The names that Hugging Face keeps in a schema for a column of class numbers."""
    try:
        kept = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][name]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(one) for one in kept] if isinstance(kept, list) else []


def decoded(content: bytes | None, key: str, max_image_mb: int) -> NDArray[Any]:
    """The picture of a row. Raises Unreadable, for an empty one too."""
    if not content:
        raise Unreadable("the row holds no picture")
    return decode(content, key, max_image_mb)


def split_of(name: str) -> str | None:
    """The split that a file's name gives: `test` of `test-00000-of-00001.parquet`."""
    words = [SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS]
    return words[0] if words else None
