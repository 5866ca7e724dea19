"""A kind of file that may hold several images, as a kind of data: a folder of such files, or one."""

import importlib.util
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import ClassVar

from ssl_app.data.decoding.limits import NotNow
from ssl_app.data.images import EXTENSIONS
from ssl_app.data.members import MARK, ONE, Listed, Look, Members, Read, out_of_memory, several_notice, unread_at
from ssl_app.data.sources.base import FOLDER_NAMES, UNUSED, Columns, file_stamp, in_order, kinds, only_in_manifests
from ssl_app.data.survey import Survey, arrangement, counted, empty_classes, head_of, hints, survey
from ssl_app.errors import DataError, Fix, Notice, Set


class Files(Members):
    """Files of one kind: those of a folder at any depth, or one.

    Such files are read where a manifest lists them, too. Classes and splits are the names of folders, by the rule of
    `Folder`, unless each folder is one group.
    """

    kind: ClassVar[str]  # for sentences: "DICOM"
    packages: ClassVar[tuple[str, ...]] = ()  # what reads it, of the extra
    extra: ClassVar[str] = "medical"
    among_pictures: ClassVar[bool] = False  # True: such files lie in folders of pictures, and are read with them
    group: ClassVar[str] = "file"  # what the groups are
    group_from: ClassVar[str] = "files of several images"
    groups_instead: ClassVar[str] = UNUSED  # what to type where all images are of one

    @classmethod
    @abstractmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """Whether a file is of this kind, by its name or its first 512 bytes."""

    @classmethod
    @abstractmethod
    def look(cls, path: Path, columns: Columns) -> Look:
        """What the file holds, without its pixels. May raise anything where it is damaged."""

    @classmethod
    @abstractmethod
    def opened(cls, path: Path, columns: Columns, max_image_mb: int) -> AbstractContextManager[Read]:
        """The file, to read its images by name: (H, W) or (H, W, C). May raise anything where it is damaged.

        Where `look` knows the size of an image, more than `max_image_mb` is refused before.
        """

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a file of this kind, or a folder with more of them than of others."""
        path = Path(data)
        if path.is_dir():
            return survey(data, file_kinds()).leading == cls.kind
        return path.is_file() and kind_for(path) is cls

    def __init__(self, data: str, columns: Columns) -> None:
        self.refuse_columns(data, columns)
        self.name = data
        path = Path(data).resolve()
        found = Survey({self.kind: [path.name]})
        if path.is_dir():
            found = survey(data, file_kinds()).without(columns.omit)
        root, keys = path if path.is_dir() else path.parent, found.files.get(self.kind, [])
        every = without_spares(looks([Listed(key, root / key, type(self)) for key in keys], columns))
        listed = sorted((file for file in every if file.look.left_out is None), key=lambda f: (f.look.place, f.key))
        left = left_out(self.kind, every)
        if not listed:
            raise DataError(f"no images found in {data}; {left}", expected=f"{self.kind} files with images")
        parents = self.take(listed)
        self.columns = Columns(axis=columns.axis)
        if len(listed) > 1 or self.group != "file":  # the images of one stack are all there is to split
            self.set_groups(listed, parents, columns)
        by_folders = self.set_labels(listed, parents, columns)
        counts = Counter(remark for file in listed for remark in file.look.remarks)
        remarks = [f"{count} of {len(listed)} {self.kind} files: {what}" for what, count in sorted(counts.items())]
        instead = hints(Path(data)) if path.is_dir() else []
        if self.columns.label == FOLDER_NAMES:
            by_folders += empty_classes(found, self.labels or (), self.splits is not None)
        sentences = [*by_folders, *map(Notice, [*([left] if left else []), *remarks])]
        self.notes = (*several_notice(listed), *sentences, *self.one_group(), *found.beside(self.kind), *instead)

    def refuse_columns(self, data: str, columns: Columns) -> None:
        """Raise DataError for columns that this kind has not."""
        only_in_manifests(data, columns, f"the {self.kind} data")

    def set_labels(self, listed: Sequence[Listed], parents: list[int], columns: Columns) -> list[Notice]:
        """Labels and splits by folders, or labels by `look`. -> remarks."""
        splits, labels, remarks = arrangement([tuple(file.key.split("/")[:-1]) for file in listed])
        if splits is not None and columns.split != UNUSED:
            self.splits = tuple(splits[parent] for parent in parents)
            self.columns = replace(self.columns, split=FOLDER_NAMES)
        if columns.label == UNUSED:
            return []
        if columns.label is not None:
            self.labels = tuple(listed[parent].look.label for parent in parents)
            self.columns = replace(self.columns, label=columns.label)
            return []
        if labels is None:
            return remarks
        owners = [file.look.owner or file.look.group or file.key for file in listed]
        if self.group != "file" and one_to_one(labels, owners):
            return [Notice(f"unlabeled: each of {len(set(labels))} folders is one {self.group}, and no class")]
        self.labels = tuple(labels[parent] for parent in parents)
        self.columns = replace(self.columns, label=FOLDER_NAMES)
        return remarks

    def one_group(self) -> list[Notice]:
        """Say it where all images are of one group: nothing can be split then."""
        if self.groups is None or len(self.keys) == 1 or len(set(self.groups)) > 1 or None in self.groups:
            return []
        noun = self.columns.group
        found = f"all {len(self.keys)} images are of one {noun}, and cannot be split by it"
        return [Notice(found, fixes=(Set("group", self.groups_instead if noun == self.group else UNUSED),))]


@cache
def file_kinds() -> tuple[type[Files], ...]:
    """Every kind of data that is a kind of file."""
    return tuple(kind for kind in kinds() if issubclass(kind, Files))


def kind_for(path: Path) -> type[Files] | None:
    """The kind that reads a file; None for a file of one picture, and for what is unknown."""
    head = b"" if path.suffix.lower() in EXTENSIONS else head_of(path)
    return next((kind for kind in file_kinds() if kind.recognizes(path.name, head)), None)


def looks(listed: Sequence[Listed], columns: Columns) -> list[Listed]:
    """The files with what each holds, looked at in threads. Raises DataError where the extra for it is absent."""
    counts = Counter(file.kind for file in listed if file.kind is not None)
    for kind, count in counts.items():
        if absent := [package for package in kind.packages if importlib.util.find_spec(package) is None]:
            raise DataError(
                f"{counted(count, kind.kind)} found, and {', '.join(absent)} is not installed",
                fix=Fix(f'type pip install "ssl-app[{kind.extra}]"'),
            )

    def look(file: Listed) -> Listed:
        if file.kind is None:
            return file
        found = looked(file.kind, file.path, file_stamp(file.path), columns)
        if file.kind.among_pictures and found.images == ONE:
            return replace(file, kind=None)  # a picture as others are
        return replace(file, look=found if file.only is None else the_one(found, file.only))

    return list(in_order(look, listed)) if counts else list(listed)


@lru_cache(maxsize=2**17)  # a verb opens its data more than once, and a header of DICOM takes a millisecond or two
def looked(kind: type[Files], path: Path, stamp: str, columns: Columns) -> Look:
    """What a file holds, or why it cannot be read; `stamp` is that of the file."""
    try:
        return kind.look(path, columns)
    except MemoryError as error:
        raise out_of_memory(str(path)) from error
    except Exception as error:  # readers raise anything on broken files
        reason = unread_at(path, error)
        return Look(unreadable=str(reason), now=isinstance(reason, NotNow))


def without_spares(listed: Sequence[Listed]) -> list[Listed]:
    """The files, where only some have a reason to be left out, with that reason."""
    if all(file.look.spare or file.look.left_out or file.look.unreadable for file in listed):
        return list(listed)
    return [replace(file, look=replace(file.look, left_out=file.look.left_out or file.look.spare)) for file in listed]


def the_one(look: Look, name: str) -> Look:
    """What is known of one image of a file."""
    if look.unreadable or look.left_out:
        return look
    if name not in look.images:
        first, last = look.images[0], look.images[-1]
        has = f"its images are {MARK}{first} to {MARK}{last}" if len(look.images) > 1 else "it holds one image"
        return Look(unreadable=f"the file has no image {MARK}{name}; {has}")
    windows = look.windows and (look.windows[look.images.index(name)],)
    return replace(look, images=(name,), windows=windows)


def left_out(kind: str, listed: Sequence[Listed]) -> str | None:
    """How many files hold no image of the set, and why: one sentence, or None."""
    reasons = Counter(file.look.left_out for file in listed if file.look.left_out is not None)
    if not reasons:
        return None
    why = ", ".join(
        f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{counted(sum(reasons.values()), kind)} left out: {why}"


def one_to_one(one: Sequence[str | None], other: Sequence[str | None]) -> bool:
    """Whether each value of one goes with one value of the other, and none of them with two."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
