"""What lies in a folder: the files of every kind, by name or first bytes, and what the names of folders mean."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ssl_app.data.companions import AUTO, NOTHING, Companions, companions
from ssl_app.data.images import EXTENSIONS, picture_format, unread_kind
from ssl_app.errors import DataError, Fix, Notice, Set, of_count

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
# `train_images`, `Training set`, `imgs-val`, `test `
PART = re.compile(rf"(?:(?:images?|imgs?|data)[ _-])?({'|'.join(SPLITS)})(?:[ _-]?(?:images?|imgs?|set|data|split))?")
NUMBERED = re.compile(r"(\D*)\d{2,}")
TABLES_OF_IMAGES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face; a kind of its own
SHOWN = 5  # classes named in a remark
MANY_FOLDERS, FEW_EACH = 12, 8  # folders, of so few images on average, that are hardly classes
NUMBERED_EACH = 50  # where all of them are numbers, or one word with numbers: P001, P002
HEAD = 512  # bytes that tell a kind
IMAGES = "image"
HIDDEN = "hidden or of the system"
# folders and files that systems make, never classes or images, beside all whose name begins with a dot
SYSTEM = frozenset(
    {
        "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__", "Thumbs.db",
        "ehthumbs.db", "desktop.ini", "Icon\r", "RECYCLER",
    }
)  # fmt: skip
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
TO_PNG, TO_FRAMES = "convert them to PNG or TIFF", "write their frames as PNG"
CURES = {
    "NRRD": "convert them to NIfTI",
    "MetaImage": "convert them to NIfTI",
    "whole-slide": "cut them into tiles of TIFF",
    "video": TO_FRAMES,
}


class FileKind(Protocol):
    """What a survey asks of a kind of file."""

    kind: str

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """Whether a file is of this kind, by its name or its first 512 bytes."""
        ...


@dataclass
class Survey:
    """Files below a folder as sorted paths with slashes: those that are read, by kind, and all others in counts."""

    files: dict[str, list[str]] = field(default_factory=dict)  # by kind; "image": one picture, or a TIFF
    unread: Counter[str] = field(default_factory=Counter)  # files of known kinds that nothing reads
    misnamed: list[str] = field(default_factory=list)  # pictures by their content, with another ending
    archives: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)  # all others, by ending; hidden and system ones in one
    beside_others: Companions = Companions({})  # masks and thumbnails that are left out
    folders: list[str] = field(default_factory=list)  # all of them, those without a file that is read too
    tables: list[str] = field(default_factory=list)  # tables of images, each of which could be read alone
    omitted: int | None = None  # files that the user leaves out; None where there are no patterns

    @property
    def leading(self) -> str | None:
        """The kind with most files, which is the one that is read; of equals, pictures."""
        return max(self.files, key=lambda kind: (len(self.files[kind]), kind == IMAGES), default=None)

    def add(self, kind: str, path: str) -> None:
        """Take note of one more file."""
        self.files.setdefault(kind, []).append(path)

    def without(self, omit: tuple[str, ...]) -> "Survey":
        """What is left without masks and thumbnails (unless `none` is given), and without what matches a pattern."""
        files = {kind: left_after(paths, omit) for kind, paths in self.files.items()}
        gone = sum(map(len, self.files.values())) - sum(map(len, files.values()))
        found: dict[str, dict[str, str]] = {}
        if NOTHING not in omit:
            for kind, paths in files.items():
                aside = companions(paths)
                for what, of in aside.of.items():
                    found.setdefault(what, {}).update(of)
                files[kind] = [path for path in paths if path not in aside.paths]
        files = {kind: paths for kind, paths in files.items() if paths}
        return replace(
            self, files=files, beside_others=Companions(found), omitted=gone if patterns_of(omit) else None
        )

    def beside(self, read: str) -> list[Notice]:
        """All that is not read: files of other kinds than the one that is, each kind with its count and its cure."""
        others = sorted((kind, len(paths)) for kind, paths in self.files.items() if kind != read)
        alone = (Set("data", "with a folder of them alone"), Fix("list both in a manifest"))
        them = "pictures" if read == IMAGES else f"{read} files"
        found = self.beside_others.notices(left_out=True)
        if self.omitted is not None:
            found.append(Notice(omitted(self.omitted, "file")))
        found += [
            Notice(f"{counted(n, kind)} found, not read beside {len(self.files.get(read, ()))} {them}", fixes=alone)
            for kind, n in others
        ]
        found += [
            Notice(f"{counted(n, kind)} found, not read yet", fixes=(of_count(n, CURES.get(kind, TO_PNG)),))
            for kind, n in sorted(self.unread.items())
        ]
        if self.misnamed:
            each = [of_count(len(self.misnamed), words) for words in ("rename them", "list them in a manifest")]
            what = f"{first_of(self.misnamed, 'file is a picture', 'files are pictures')} by content and not by name"
            found.append(Notice(what, fixes=tuple(each)))
        if self.archives:
            what = f"{first_of(self.archives, 'archive', 'archives')} found, not opened"
            found.append(Notice(what, fixes=(of_count(len(self.archives), "unpack them"),)))
        if below := [key for key in self.tables if "/" in key]:  # those at the top have a hint of their own
            use = Set("data", "with its folder to use one")
            what = first_of(below, "table of images", "tables of images")
            found.append(Notice(f"{what} found in a folder below, not used", fixes=(use,)))
        if self.passed:
            kinds = ", ".join(
                f"{n} {kind}" for kind, n in sorted(self.passed.items(), key=lambda one: (-one[1], one))
            )
            files = "1 other file" if self.passed.total() == 1 else f"{self.passed.total()} other files"
            found.append(Notice(f"{files} passed over: {kinds}"))
        return found


def first_of(paths: list[str], one: str, several: str) -> str:
    """`2 archives (a.zip the first)`."""
    return f"1 {one} ({paths[0]})" if len(paths) == 1 else f"{len(paths)} {several} ({min(paths)} the first)"


def patterns_of(omit: tuple[str, ...]) -> list[str]:
    """The patterns among what is to be left out."""
    return [pattern for pattern in omit if pattern not in (AUTO, NOTHING)]


def omitted(count: int, noun: str) -> str:
    """How many files or rows match the patterns, in words."""
    if not count:
        return f"no {noun} matches the patterns to leave out"
    return f"{count} {noun}{'s' * (count > 1)} left out, as requested"


def left_after(paths: list[str], omit: tuple[str, ...]) -> list[str]:
    """The paths that match none of the patterns, by the whole path or by the name of the file."""
    patterns = [re.compile(translate(pattern)) for pattern in patterns_of(omit)]
    return [
        path for path in paths if not any(one.match(path) or one.match(path.rpartition("/")[2]) for one in patterns)
    ]


def counted(count: int, kind: str) -> str:
    """`1 DICOM file`, `2 pictures`."""
    noun = "picture" if kind == IMAGES else f"{kind} file"
    return f"{count} {noun}{'s' * (count > 1)}"


@lru_cache(maxsize=1)  # each kind of data asks for the same one; open_source forgets it
def survey(root: str, kinds: tuple[type[FileKind], ...]) -> Survey:
    """All files below root: those that are an image or of a known kind, and a count of what is passed over."""
    found = Survey()
    seen: set[str] = set()
    for folder, below, files in os.walk(root, onerror=refuse_folder, followlinks=True):
        real, inside = os.path.realpath(folder), Path(folder).relative_to(root)
        if inside.parts:
            found.folders.append(inside.as_posix())
        found.passed[HIDDEN] += sum(map(of_the_system, below))
        below[:] = sorted(name for name in below if not of_the_system(name))
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        for name in files:
            path, key = Path(folder) / name, (inside / name).as_posix()
            if name.lower() in TABLES_OF_IMAGES:
                found.tables.append(key)
            if of_the_system(name):
                found.passed[HIDDEN] += 1
            elif (kind := kind_of(path, kinds)) is not None:
                found.add(kind, key)
            elif unread := unread_file(path):
                found.unread[unread] += 1
            elif name.lower().endswith(ARCHIVES):
                if inside.parts or ".tar" not in name.lower():  # those at the top have a hint of their own
                    found.archives.append(key)
            elif picture_format(head_of(path)):
                found.misnamed.append(key)
            elif inside.parts or name not in MANIFESTS:
                found.passed[path.suffix.lower() or "without an ending"] += 1
    found.passed = +found.passed
    found.folders.sort()
    for paths in (*found.files.values(), found.misnamed, found.archives, found.tables):
        paths.sort()
    return found


def of_the_system(name: str) -> bool:
    """Whether a folder or file is hidden, or made by a system for itself."""
    return name.startswith((".", "__MACOSX")) or name in SYSTEM


def hints(folder: Path) -> list[Notice]:
    """Tables and archives at the top of a folder that could be named instead of it."""
    found = [
        Notice(f"{name} lies in {folder}", fixes=(Set("data", f"{folder / name} to use it"),))
        for name in MANIFESTS
        if (folder / name).is_file()
    ]
    for name in sorted(path.name for path in folder.glob("*") if path.name.lower() in TABLES_OF_IMAGES):
        expected = "a header with file_name, or one JSON object with file_name a line, in a file of lower case"
        found.append(Notice(f"{name} lies in {folder} and cannot be used", fixes=(Fix(f"write it with {expected}"),)))
    if tars := len(list(folder.glob("*.tar*"))):
        lie, them = ("file lies", "it") if tars == 1 else ("files lie", "them")
        use = Set("data", f"'{folder}/*.tar*' to use {them}")
        found.append(Notice(f"{tars} tar {lie} in {folder}", fixes=(use,)))
    return found


def kind_of(path: Path, kinds: Iterable[type[FileKind]]) -> str | None:
    """The kind of a file: `image` by its extension, else the first of `kinds` that recognizes it.

    Without an extension, or with a number in its place, a picture is one by its first bytes.
    """
    ending = path.suffix.lower()
    if ending in EXTENSIONS:
        return IMAGES
    head = head_of(path)
    if picture_format(head) and (not ending or ending[1:].isdecimal()):
        return IMAGES
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


def split_of(folder: str) -> str | None:
    """The part of a split that a folder's name stands for."""
    found = PART.fullmatch(folder.strip().lower())
    return None if found is None else SPLITS[found[1]]


def arrangement(
    folders: list[tuple[str, ...]],
) -> tuple[tuple[str, ...] | None, tuple[str | None, ...] | None, list[Notice]]:
    """Splits, labels and remarks from the folders of every image below the root."""
    splits: tuple[str, ...] | None = None
    parts = [split_of(path[0]) if path else None for path in folders]
    if all(parts):
        splits = tuple(part for part in parts if part is not None)
        folders = [path[1:] for path in folders]
    everything, remarks = folders, list[Notice]()
    if splits is not None:
        folders, remarks = in_classes(splits, folders)
    loose = sum(not path for path in folders)
    classes = sorted({path[0] for path in folders if path})
    if not classes:
        return splits, None, []
    if loose:
        lie = "1 image lies" if loose == 1 else f"{loose} images lie"
        return splits, None, [Notice(f"unlabeled: {lie} beside the folders, not in one of them")]
    if len(classes) == 1:
        return splits, None, [Notice(f"unlabeled: all images lie in one folder, {classes[0]}")]
    remarks.insert(0, Notice(f"{len(classes)} sub-folders taken as classes: {shown(classes)}"))
    each = len(folders) / len(classes)
    if len(classes) >= MANY_FOLDERS and each < (NUMBERED_EACH if numbered(classes) else FEW_EACH):
        what = f"{len(classes)} folders of {each:.1f} images each may be patients or lots, not classes"
        cures = (
            Fix("list path, label and patient in a manifest"),
            Set("label", "none where they are no classes"),
        )
        remarks.append(Notice(what, fixes=cures))
    like = [name for name in classes if split_of(name) is not None]
    if splits is None and len({split_of(name) for name in like}) > 1:
        others = shown([name for name in classes if name not in like])
        cures = (Fix(f"move {others} elsewhere"), Set("label", "none"))
        remarks.append(Notice(f"{' and '.join(like)} look like parts of a split, and {others} does not", fixes=cures))
    labels = {path[0] for path in folders}
    return splits, tuple(path[0] if path and path[0] in labels else None for path in everything), remarks


def numbered(names: list[str]) -> bool:
    """Whether all names are numbers of two digits or more, or one word with such numbers."""
    found = [NUMBERED.fullmatch(name) for name in names]
    return None not in found and len({one[1] for one in found if one is not None}) == 1


def in_classes(splits: tuple[str, ...], folders: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[Notice]]:
    """The folders of the parts that have classes, and a remark on the parts that have none.

    A part is without classes, beside others of two classes or more, where its images lie in no folder, or all in one
    that is no class of another part (`test/images`).
    """
    inside = {
        part: {path[:1] for path, own in zip(folders, splits, strict=True) if own == part} for part in set(splits)
    }
    several = {part for part, found in inside.items() if len(found) > 1}
    known = set().union(*(inside[part] for part in several))
    without = {part for part in inside.keys() - several if not inside[part] & known}
    if not several or not without:
        return folders, []
    counts = Counter(part for part in splits if part in without)
    remarks = []
    for part, count in sorted(counts.items()):
        lie = "1 image" if count == 1 else f"{count} images"
        remarks.append(Notice(f"unlabeled: {lie} marked {part} by folder names, in no class"))
    return [path for path, part in zip(folders, splits, strict=True) if part not in without], remarks


def shown(names: list[str]) -> str:
    """The names, the first few of many."""
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def empty_classes(found: Survey, labels: Iterable[str | None], below_splits: bool) -> list[Notice]:
    """A remark on folders that stand where the classes do, and hold no image of the set."""
    known, aside = set(labels), found.beside_others.paths
    paths = [path.split("/") for path in found.folders if path.count("/") == below_splits]
    empty = sorted({path[-1] for path in paths} - known)
    empty = [name for name in empty if not any(f"/{name}/" in f"/{path}" for path in aside)]
    if empty:  # a folder of images that are in no class is not empty
        held = found.files.get(str(found.leading), ())
        empty = sorted(set(empty) - {path.split("/")[below_splits] for path in held if "/" in path})
    if not empty:
        return []
    hold = "sub-folder holds" if len(empty) == 1 else "sub-folders hold"
    are = "is no class" if len(empty) == 1 else "are no classes"
    return [Notice(f"{len(empty)} {hold} no image that is read, and {are}: {shown(empty)}")]
