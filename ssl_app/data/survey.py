"""What lies in a folder: the files of every kind, by name or first bytes, and what the names of folders mean."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ssl_app.data.images import EXTENSIONS, unread_kind
from ssl_app.errors import DataError, Fix, Notice, Set

# Never opened to look for DICOM, which often has no extension
PLAIN = frozenset({".csv", ".tsv", ".txt", ".json", ".md", ".xml", ".html", ".pdf", ".parquet", ".zip", ".py"})
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
MANIFESTS = ("manifest.csv", "manifest.tsv", "manifest.parquet")
SHOWN = 5  # classes named in a remark
HEAD = 512  # bytes that tell a kind
IMAGES = "image"


class FileKind(Protocol):
    """What a survey asks of a kind of file."""

    kind: str

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """Whether a file is of this kind, by its name or its first 512 bytes."""
        ...


@dataclass
class Survey:
    """Files below a folder as sorted paths with slashes."""

    files: dict[str, list[str]] = field(default_factory=dict)  # by kind; "image": one picture, or a TIFF
    unread: Counter[str] = field(default_factory=Counter)  # files of known kinds that nothing reads

    @property
    def leading(self) -> str | None:
        """The kind with most files, which is the one that is read; of equals, pictures."""
        return max(self.files, key=lambda kind: (len(self.files[kind]), kind == IMAGES), default=None)

    def add(self, kind: str, path: str) -> None:
        """Take note of one more file."""
        self.files.setdefault(kind, []).append(path)

    def beside(self, read: str) -> list[Notice]:
        """The files of other kinds than the one that is read, each kind with its count."""
        others = sorted((kind, len(paths)) for kind, paths in self.files.items() if kind != read)
        alone = (Set("data", "with a folder of them alone"), Fix("list both in a manifest"))
        them = "pictures" if read == IMAGES else f"{read} files"
        found = [
            Notice(f"{counted(n, kind)} found, not read beside {len(self.files[read])} {them}", fixes=alone)
            for kind, n in others
        ]
        return found + [Notice(f"{counted(n, kind)} found, not read yet") for kind, n in sorted(self.unread.items())]


def counted(count: int, kind: str) -> str:
    """`1 DICOM file`, `2 pictures`."""
    noun = "picture" if kind == IMAGES else f"{kind} file"
    return f"{count} {noun}{'s' * (count > 1)}"


@lru_cache(maxsize=1)  # each kind of data asks for the same one; open_source forgets it
def survey(root: str, kinds: tuple[type[FileKind], ...]) -> Survey:
    """All files below root that are an image, or of a known kind; names that begin with a dot are passed over."""
    found = Survey()
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
            path = Path(folder) / name
            if (kind := kind_of(path, kinds)) is not None:
                found.add(kind, (inside / name).as_posix())
            elif unread := unread_file(path):
                found.unread[unread] += 1
    for paths in found.files.values():
        paths.sort()
    return found


def hints(folder: Path) -> list[Notice]:
    """Tables and archives at the top of a folder that could be named instead of it."""
    found = [
        Notice(f"{name} lies in {folder}", fixes=(Set("data", f"{folder / name} to use it"),))
        for name in MANIFESTS
        if (folder / name).is_file()
    ]
    if tars := len(list(folder.glob("*.tar*"))):
        lie, them = ("file lies", "it") if tars == 1 else ("files lie", "them")
        use = Set("data", f"'{folder}/*.tar*' to use {them}")
        found.append(Notice(f"{tars} tar {lie} in {folder}", fixes=(use,)))
    return found


def kind_of(path: Path, kinds: Iterable[type[FileKind]]) -> str | None:
    """The kind of a file: `image` by its extension, else the first of `kinds` that recognizes it."""
    if path.suffix.lower() in EXTENSIONS:
        return IMAGES
    head = head_of(path)
    return next((kind.kind for kind in kinds if kind.recognizes(path.name, head)), None)


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file; of any other, and of one with the ending of a text, none."""
    if path.suffix.lower() in PLAIN:
        return b""
    try:
        if not path.is_file():  # a pipe, which would be waited for
            return b""
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def refuse_folder(error: OSError) -> None:
    """A folder that may not be opened: passed over in silence, its images would be missing unnoticed."""
    raise DataError(
        f"the folder {error.filename} cannot be opened ({error.strerror}); fix its permissions, or list the images "
        f"in a manifest"
    ) from error


def unread_file(path: Path) -> str | None:
    """The kind of a file that is known and not read yet."""
    return None if path.suffix.lower() in PLAIN else unread_kind(path.name, head_of(path))


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
