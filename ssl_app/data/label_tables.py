"""A table of labels that lies apart from the images: path and label, or path and the clusters of `ssl-app label`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ssl_app.data.dataset import in_class_order
from ssl_app.data.members import file_of
from ssl_app.data.sources.base import Columns, Source, name_classes
from ssl_app.data.sources.manifest import KINDS, paths, read_table
from ssl_app.data.table_columns import LABEL, PATH, label_column, path_column, taken, values
from ssl_app.data.unused_columns import means_group
from ssl_app.errors import DataError, Fix, Notice, Set, count_of

CLUSTERS = re.compile(r"cluster(_\d+)?")


@dataclass(frozen=True)
class LabelFile:
    """Labels by the name of an image, in one column or, from several heads, in several."""

    path: Path
    rows: dict[str, int]  # by path, normalized
    columns: dict[str, list[str]]  # text; empty where not known

    def of(self, keys: Sequence[str]) -> list[list[str | None]]:
        """Each column's labels of these images, None where the file has none.

        Raises DataError where it names none of them.
        """
        rows = [self.row_of(key) for key in keys]
        if keys and all(row is None for row in rows):
            names = {name_of(key): key for key in reversed(keys)}
            alike = next(((row, names[name_of(row)]) for row in self.rows if name_of(row) in names), None)
            theirs, ours = alike or (next(iter(self.rows)), keys[0])
            first = "its first path" if theirs == next(iter(self.rows)) else "one of its paths"
            raise DataError(
                f"{self.path} names none of {len(keys)} images: {first} is '{theirs}', theirs '{ours}'",
                expected="paths as the data list them",
                fix=Fix(f"write '{ours}' there"),
            )
        return [[None if row is None else (column[row] or None) for row in rows] for column in self.columns.values()]

    def row_of(self, key: str) -> int | None:
        """The row of an image: its own, or that of the file whose frame, slice or page it is."""
        row = self.rows.get(key)
        return self.rows.get(file_of(key)) if row is None else row

    def by_ends(self, keys: Sequence[str], root: Path | None = None) -> "tuple[LabelFile, list[Notice]]":
        """The table with the data's own paths where it has others of the same files; a line on that.

        Bare names of files, paths from another folder above or below `root`, where the data lie, and whole ones,
        perhaps all without their ending: each an end of one file's whole path. As it is where one of its paths is
        that of an image. Raises DataError for an end that several files have.
        """
        if any(self.row_of(key) is not None for key in keys):
            return self, []
        files, depths = sorted(set(map(file_of, keys))), {row.count("/") + 1 for row in self.rows}
        shared: DataError | None = None
        for ending in ("", " without ending"):
            ends: dict[str, list[str]] = {}
            for file in files:
                whole = (file if root is None else (root / file).as_posix()).split("/")
                name = [*whole[:-1], stem_of(whole[-1]) if ending else whole[-1]]
                for depth in depths:
                    if depth <= len(name):
                        ends.setdefault("/".join(name[-depth:]), []).append(file)
            met = {row: ends[row] for row in self.rows if row in ends}
            several = next(((row, of) for row, of in met.items() if len(of) > 1), None)
            if several is not None:
                row, of = several
                shared = shared or DataError(
                    f"{self.path} has '{row}', and {len(of)} files are called so, '{of[0]}' the first",
                    expected="paths as the data list them",
                    fix=Fix(f"write '{of[0]}' or that of another there"),
                )
            elif met:
                found = {row: of[0] for row, of in met.items()}
                if twice := sorted(found.keys() - {file: row for row, file in found.items()}.values()):
                    raise DataError(
                        f"{self.path} names {found[twice[0]]} twice, as '{twice[0]}' too",
                        fix=Fix("remove one of them"),
                    )
                rows = {found.get(row, row): place for row, place in self.rows.items()}
                return replace(self, rows=rows), [Notice(f"{_ends(found, ending)} ({self.path})")]
        if shared is not None:
            raise shared
        return self._of_folders(files)

    def _of_folders(self, files: Sequence[str]) -> "tuple[LabelFile, list[Notice]]":
        """The table with a row for each file, where it names the files' folders: patients, scans."""
        rows: dict[str, int] = {}
        found = set()
        for file in files:
            above = file.split("/")[:-1]
            named = next((name for name in ("/".join(above), *reversed(above)) if name in self.rows), None)
            if named is not None:
                found.add(named)
                rows[file] = self.rows[named]
        if not found:
            return self, []
        names = "1 row names a folder" if len(found) == 1 else f"{len(found)} rows name folders"
        its = (
            f"{names}, and holds for all images in it"
            if len(found) == 1
            else f"{names}, and hold for all their images"
        )
        rest = {row: place for row, place in self.rows.items() if row not in found}
        cure = Fix("list all images in a manifest with a column of folders as group")
        note = Notice(f"{its} ({self.path}); those of one may be in test and train", fixes=(cure,))
        return replace(self, rows=rest | rows), [note]

    def unmatched(self, keys: Sequence[str]) -> list[str]:
        """Paths that are none of these images, nor their files."""
        return sorted(self.rows.keys() - set(keys) - set(map(file_of, keys)))


def read_table_of_labels(path: Path) -> pd.DataFrame:
    """A .csv, .tsv or .parquet as text. Raises DataError."""
    if path.suffix.lower() not in KINDS or not path.is_file():
        found = "it is not a file" if not path.is_file() else "it is no table"
        raise DataError(
            f"the labels {path}: {found}", expected="a .csv, .tsv or .parquet with path and label, or cluster"
        )
    return read_table(path)


def read_labels(
    path: Path, keys: Sequence[str], label: str | None = None, root: Path | None = None, grouped: bool = True
) -> tuple[LabelFile, list[Notice]]:
    """The labels of a table for a set of these images: its column `label`, as named, or else its clusters.

    `root` is the folder that the keys are relative to, if it is known. Columns of other names are taken where it is
    clear which they are, with a line on that, and one on a column of groups where the images have none (`grouped`).
    Raises DataError.
    """
    table = read_table_of_labels(path)
    files = {file_of(key) for key in keys}
    names, stems = set(map(name_of, files)), {stem_of(name_of(file)) for file in files}
    folders = {part for file in files for part in file.split("/")[:-1]}
    paths_in = path_column(
        table,
        {*keys, *files}.__contains__,
        lambda cell: name_of(cell) in names,
        lambda cell: name_of(cell) in stems,
        folders.__contains__,
    )
    others = [name for name in table.columns if name != paths_in]
    clusters = [name for name in others if CLUSTERS.fullmatch(name)]
    usual = LABEL if LABEL in others else None if clusters else label_column(others)
    one = label if label in others else usual
    if paths_in is None or not (one or clusters):
        raise DataError(
            f"{path} has the columns {', '.join(table.columns)}",
            expected="path and label, or path and cluster",
            fix=Fix("rename its columns")
            if paths_in is None or len(others) < 2
            else (Fix("rename its columns"), Set("label", "COLUMN to name one of them")),
        )
    rows = {key: row for row, key in enumerate(paths(str(path), path.resolve().parent, values(table, paths_in)))}
    held = {name: values(table, name) for name in (clusters if one is None else [one])}
    found, bare = LabelFile(path, rows, held).by_ends(keys, root)
    other = taken(path, one, label or LABEL) if one is not None and one != label else []
    unused = (
        [] if grouped else groups_unused(path, {name: values(table, name) for name in others if name not in held})
    )
    return found, [*taken(path, paths_in, PATH), *other, *bare, *unused]


def groups_unused(path: Path, columns: Mapping[str, Sequence[str]]) -> list[Notice]:
    """A line on a column of a table of labels that says what must not be split, which only a manifest can use."""
    for column, cells in columns.items():
        known = [cell for cell in cells if cell]
        if means_group(column) and 1 < len(set(known)) < len(known):
            what = f"column {column} of {path} has {len(set(known))} values, and is not used: images of one may be in"
            cure = Fix(f"list all images in a manifest with that column, as the data with {column} as group")
            return [Notice(f"{what} test and train", fixes=(cure,))]
    return []


def name_of(key: str) -> str:
    """The name of a file without its folders."""
    return key.rpartition("/")[2]


def stem_of(name: str) -> str:
    """The name of a file without its ending."""
    return name.rpartition(".")[0] or name


def root_of(name: str) -> Path | None:
    """The folder that a set's keys are relative to, absolute: the set's own, or that of its manifest."""
    place = Path(name).absolute()
    return place if place.is_dir() else place.parent if place.is_file() else None


def _ends(found: dict[str, str], ending: str) -> str:
    """What was taken for what, in words."""
    row, file = next(iter(found.items()))
    are = "is" if len(found) == 1 else "are"
    if any("/" in row for row in found):
        alike = f"taken for the one image whose path ends alike{ending}, '{row}' for '{file}'"
        return f"{count_of(len(found), 'path')} {are} {alike}"
    names = "1 bare name of a file" if len(found) == 1 else f"{len(found)} bare names of files"
    names += f" ({ending.strip()})" if ending else ""
    return f"{names} {are} taken for the one image of that name in a folder"


def relabel(source: Source, path: Path, columns: Columns) -> None:
    """Give a source the labels of a table in place of its own, which were not read. Raises DataError."""
    table, notes = read_labels(path, source.keys, columns.label, root_of(source.name), source.groups is not None)
    source.notes += tuple(notes)
    column = next(iter(table.columns))
    source.labels = tuple(table.of(source.keys)[0])
    source.columns = replace(source.columns, label=column)
    known = sum(label is not None for label in source.labels)
    source.notes += (Notice(f"{known} of {len(source.keys)} images have a label in column {column} of {path}"),)
    if lost := table.unmatched(source.keys):
        source.notes += (Notice(f"{len(lost)} of {len(table.rows)} rows of {path} name no image, first '{lost[0]}'"),)
    name_classes(source, columns)


def numbered(labels: Sequence[str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Classes in their order, and each label's place among them; -1 where there is none."""
    classes = in_class_order({label for label in labels if label is not None})
    place = {name: number for number, name in enumerate(classes)}
    return classes, [-1 if label is None else place[label] for label in labels]
