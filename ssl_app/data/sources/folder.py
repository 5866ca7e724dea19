"""A folder of images, at any depth and of mixed formats; its sub-folders are classes.

The rule: top folders named only train, val or test are a split. Below the root, or below the split,
the first folder is the class, where every image lies in one and there are two or more of them.
Elsewhere the images are unlabeled.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ssl_app.data.images import EXTENSIONS, KNOWN_UNREAD, decode, unread_kind
from ssl_app.data.sources.base import FOLDER_NAMES, SPLITS, UNUSED, Columns, Source, file_stamp, only_in_manifests
from ssl_app.errors import DataError, Notice, Set

SHOWN = 5  # classes named in a remark
MANIFESTS = ("manifest.csv", "manifest.tsv", "manifest.parquet")
# Never opened to look for DICOM, which often has no extension
PLAIN = frozenset({".csv", ".tsv", ".txt", ".json", ".md", ".xml", ".html", ".pdf", ".parquet", ".zip", ".py"})


class Folder(Source):
    """Images in a folder."""

    last_resort = True

    def __init__(self, data: str, columns: Columns) -> None:
        only_in_manifests(data, columns, "the folder")
        self.name = data
        self.root = Path(data)
        found, unread = survey(self.root)
        unknown = [f"{n} {kind} file{'s' * (n > 1)} found, not read yet" for kind, n in sorted(unread.items())]
        hints = [
            Notice(f"{name} lies in {data}", fixes=(Set("data", f"{self.root / name} to use it"),))
            for name in MANIFESTS
            if (self.root / name).is_file()
        ]
        if tars := len(list(self.root.glob("*.tar*"))):
            lie, them = ("file lies", "it") if tars == 1 else ("files lie", "them")
            use = Set("data", f"'{self.root}/*.tar*' to use {them}")
            hints.append(Notice(f"{tars} tar {lie} in {data}", fixes=(use,)))
        if not found:
            more = "".join(f"; {sentence}" for sentence in [*unknown, *(hint.found for hint in hints)])
            raise DataError(
                f"no images found in {data}{more}",
                expected=f"{', '.join(sorted(EXTENSIONS))} at any depth",
                fix=[fix for hint in hints for fix in hint.fixes],
            )
        self.keys = tuple(found)
        self.splits, labels, remark = arrangement([tuple(key.split("/")[:-1]) for key in found])
        if columns.split == UNUSED:
            self.splits = None
        self.labels = None if columns.label == UNUSED else labels
        self.columns = Columns(
            label=FOLDER_NAMES if self.labels else None, split=FOLDER_NAMES if self.splits else None
        )
        remarks = [remark] if remark and columns.label != UNUSED else []
        self.notes = (*map(Notice, remarks), *map(Notice, unknown), *hints)

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a folder."""
        return Path(data).is_dir()

    def read(self, i: int) -> NDArray[Any]:
        """Image i: (H, W, C). Raises Unreadable."""
        return decode(self.root / self.keys[i], self.keys[i], self.max_image_mb)

    def stamps(self) -> list[str]:
        """(N,) path, size and time of change."""
        root = self.root.resolve()
        return [file_stamp(root / key) for key in self.keys]


def survey(root: Path) -> tuple[list[str], Counter[str]]:
    """Images below root as sorted paths with slashes, and how many files of each known, unread kind."""
    found: list[str] = []
    unread: Counter[str] = Counter()
    seen: set[str] = set()
    for folder, below, files in os.walk(root, onerror=refuse_folder, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        inside = Path(folder).relative_to(root)
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in EXTENSIONS:
                found.append((inside / name).as_posix())
            elif kind := unread_file(Path(folder) / name):
                unread[kind] += 1
    return sorted(found), unread


def refuse_folder(error: OSError) -> None:
    """A folder that may not be opened: passed over in silence, its images would be missing unnoticed."""
    raise DataError(
        f"the folder {error.filename} cannot be opened ({error.strerror}); fix its permissions, or list the images "
        f"in a manifest"
    ) from error


def unread_file(path: Path) -> str | None:
    """The kind of a file that is known and not read yet: by name, or DICOM by its mark."""
    suffix = path.suffix.lower()
    if suffix in PLAIN:
        return None
    if suffix in KNOWN_UNREAD:
        return KNOWN_UNREAD[suffix]
    try:
        if not path.is_file():  # a pipe, which would be waited for
            return None
        with path.open("rb") as file:
            return unread_kind(path.name, file.read(132))
    except OSError:
        return None


def arrangement(
    folders: list[tuple[str, ...]],
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, str | None]:
    """Splits, labels and a remark from the folders of every image below the root."""
    splits: tuple[str, ...] | None = None
    if all(path and path[0].lower() in SPLITS for path in folders):
        splits = tuple(SPLITS[path[0].lower()] for path in folders)
        folders = [path[1:] for path in folders]
    loose = sum(not path for path in folders)
    classes = sorted({path[0] for path in folders if path})
    if not classes:
        return splits, None, None
    if loose:
        lie = "1 image lies" if loose == 1 else f"{loose} images lie"
        return splits, None, f"unlabeled: {lie} beside the folders, not in one of them"
    if len(classes) == 1:
        return splits, None, f"unlabeled: all images lie in one folder, {classes[0]}"
    named = ", ".join(classes[:SHOWN]) + (" ..." if len(classes) > SHOWN else "")
    return splits, tuple(path[0] for path in folders), f"{len(classes)} sub-folders taken as classes: {named}"
