"""Images that lie in files, several to a file where its kind is one of `data/files.py`.

An image of such a file is named by the path, a `#` and its place: `volume.nii.gz#12`. A file of one image is its path
alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import NOT_NOW, Limit, NotNow, TooLarge
from ssl_app.data.images import Unreadable, decode, reason_of, standard
from ssl_app.data.sources.base import UNUSED, Columns, Source, file_stamp, in_order
from ssl_app.errors import DataError, Fix, Notice, Set

if TYPE_CHECKING:
    from ssl_app.data.files import Files

T = TypeVar("T")
Window = tuple[float, float]  # low and high
Size = tuple[tuple[int, ...], int]  # shape, and bytes of a value
Read = Callable[[str], NDArray[Any]]  # the image of that name within a file
MARK = "#"
ONE = ("",)  # the only image of a file has no name of its own
IN_A_RUN = 8  # images that one thread reads before the next one takes over; a file is never shared


def file_of(key: str) -> str:
    """The file of `volume.nii.gz#12`; of an image that is a file, the image, though its name holds a #."""
    file, _, within = key.rpartition(MARK)
    return key if not file or "." in within or "/" in within else file


@dataclass(frozen=True)
class Look:
    """What a file holds, known before a pixel of it is read."""

    images: tuple[str, ...] = ONE  # names within the file
    group: str | None = None  # what must not be split; None: the file
    owner: str | None = None  # whose file it is: a folder for each of them is no class; None: the group
    label: str | None = None
    place: tuple[Any, ...] = ()  # among the files of a set, which are sorted by it and then by path
    dtype: str = ""  # of its pixels, where those of a whole set must be of one type
    largest: Size | None = None  # its largest image, where the header says so
    windows: tuple[Window | None, ...] | None = None  # low and high that the file asks to show, by image
    left_out: str | None = None  # why no image of it is read, for the count
    spare: str | None = None  # why it is left out where files without such a reason are there
    unreadable: str | None = None  # why it cannot be read, though it should be
    now: bool = False  # that holds for this moment only
    remarks: tuple[str, ...] = ()  # counted over the files of a set, for the user


@dataclass(frozen=True)
class Listed:
    """A file of a set: its name there, where it lies, and what reads it."""

    key: str
    path: Path
    kind: "type[Files] | None" = None  # None: a file of one picture
    only: str | None = None  # the one image of the file that is meant; None: all
    look: Look = Look()

    @property
    def several(self) -> bool:
        """Whether other images of the set may be of the same file."""
        return self.only is not None or len(self.look.images) > 1


def several_notice(listed: Sequence[Listed]) -> list[Notice]:
    """How many files hold several images, and how these are named; empty where none does."""
    several = [file for file in listed if len(file.look.images) > 1]
    if not several:
        return []
    count = sum(len(file.look.images) for file in several)
    hold = "1 file holds" if len(several) == 1 else f"{len(several)} files hold"
    return [Notice(f"{hold} {count} images, such as {several[0].key}{MARK}{several[0].look.images[0]}")]


@dataclass(frozen=True)
class Member:
    """One image: the file it lies in, and its name there."""

    path: Path
    kind: "type[Files] | None"
    within: str
    unreadable: str | None
    largest: Size | None = None
    now: bool = False  # that it cannot be read holds for this moment only

    @property
    def reason(self) -> Unreadable:
        """Why it cannot be read."""
        return (NotNow if self.now else Unreadable)(self.unreadable)


class Members(Source):
    """A source whose images lie in files; a file of several is opened once."""

    members: Sequence[Member]
    dtype: str = ""  # of all pixels with units

    def take(self, listed: Sequence[Listed]) -> list[int]:
        """Make the images of these files those of the source. -> (N,) the file of each image, by its place."""
        keys: list[str] = []
        members: list[Member] = []
        parents: list[int] = []
        windows: list[Window | None] = []
        for parent, file in enumerate(listed):
            names = (file.only or "",) if file.look.unreadable else file.look.images
            for number, within in enumerate(names):
                keys.append(f"{file.key}{MARK}{within}" if within else file.key)
                about = (file.look.unreadable, file.look.largest, file.look.now)
                members.append(Member(file.path, file.kind, within, *about))
                parents.append(parent)
                windows.append(file.look.windows[number] if file.look.windows else None)
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise DataError(f"{self.name} lists {twice[0]} twice; remove one of them")
        self.keys, self.members = tuple(keys), members
        self.file_names = tuple(listed[parent].key for parent in parents)
        types = {file.look.dtype for file in listed if file.look.dtype}
        self.dtype = str(np.result_type(*types)) if types else ""
        if self.dtype not in ("", "uint8", "uint16"):
            self.dtype = "float32"
        known = bool(types) and all(file.look.dtype or file.look.unreadable for file in listed)
        self.value_units = "modality" if known else ""
        self.volumes = any(file.kind is not None and file.kind.volumes for file in listed)
        self.windows = tuple(windows) if any(windows) else None
        return parents

    def set_groups(self, listed: Sequence[Listed], parents: list[int], columns: Columns) -> None:
        """What the files say is a group, else the file, where it holds several images."""
        names = [file.look.group or (file.key if file.several else None) for file in listed]
        if columns.group == UNUSED or not any(names):
            return
        self.groups = tuple(names[parent] for parent in parents)
        kind = next(file.kind for file, name in zip(listed, names, strict=True) if name and file.kind)
        self.columns = replace(self.columns, group=kind.group, group_from=kind.group_from)

    def read(self, i: int) -> NDArray[Any]:
        """Image i: (H, W, C). Raises Unreadable, for a file that is missing as well."""
        (_, found), *_ = self.of_file([i], lambda array: array)
        if isinstance(found, Unreadable):
            raise found
        return found

    def each(self, work: Callable[[NDArray[Any]], T]) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) in order; a file is opened once, and its images are read one by one."""

        def done(run: list[int]) -> list[tuple[int, T | Unreadable]]:
            files = groupby(run, key=lambda i: self.members[i].path)
            return [found for _, indices in files for found in self.of_file(list(indices), work)]

        for results in in_order(done, self.runs(), chunk=1):
            yield from results

    def runs(self) -> Iterator[list[int]]:
        """The images in order, a few at a time, those of a file together."""
        run: list[int] = []
        for _, indices in groupby(range(len(self.members)), key=lambda i: self.members[i].path):
            run += indices
            if len(run) >= IN_A_RUN:
                yield run
                run = []
        if run:
            yield run

    def of_file(
        self, indices: Sequence[int], work: Callable[[NDArray[Any]], T]
    ) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) of images of one file, which is opened once."""
        first = self.members[indices[0]]
        if first.unreadable is not None:
            yield from ((i, first.reason) for i in indices)
        elif first.kind is None:
            yield from (
                (i, attempted(partial(decode, first.path, self.keys[i], self.max_image_mb), work, self.keys[i]))
                for i in indices
            )
        else:
            with ExitStack() as stack:
                try:
                    if first.largest is not None:  # before anything is unfolded
                        stack.enter_context(Limit(self.max_image_mb)).admit(*first.largest)
                    read = stack.enter_context(first.kind.opened(first.path, self.columns, self.max_image_mb))
                except MemoryError as error:
                    raise out_of_memory(self.keys[indices[0]]) from error
                except Exception as error:  # readers raise anything on broken files
                    reason = error if isinstance(error, TooLarge) else unread_at(first.path, error)
                    yield from ((i, reason) for i in indices)
                    return
                yield from (
                    (i, attempted(partial(self.formed, read, self.members[i]), work, self.keys[i])) for i in indices
                )

    def formed(self, read: Read, member: Member) -> NDArray[Any]:
        """One image in a depth of ours; of kinds whose pixels have units, in the type of the whole set."""
        array = read(member.within)
        typed = self.dtype and member.kind is not None and member.kind.value_units
        return standard(array.astype(self.dtype, copy=False) if typed else array)

    def stamps(self) -> list[str]:
        """(N,) path, size and time of change of the file; of several images, which one, and how it is read."""
        stamp = cache(file_stamp)
        hows = [f"|{m.within}|{self.columns.axis}|{self.dtype}" if m.kind is not None else "" for m in self.members]
        return [stamp(member.path) + how for member, how in zip(self.members, hows, strict=True)]


def attempted(read: Callable[[], NDArray[Any]], work: Callable[[NDArray[Any]], T], key: str) -> T | Unreadable:
    """What work makes of an image, or why it cannot be read. Raises DataError where the memory does not suffice."""
    try:
        array = read()
    except (TooLarge, NotNow) as error:
        return error
    except MemoryError as error:
        raise out_of_memory(key) from error
    except Exception as error:  # readers raise anything on broken files
        return Unreadable(plain_reason(error))
    try:
        return work(array)
    except Unreadable as reason:
        return reason
    except MemoryError as error:
        raise out_of_memory(key) from error


def out_of_memory(key: str) -> DataError:
    """The refusal of a set of which one image does not fit into memory: it is no fault of the file."""
    fixes = (Fix("free some memory"), Set("max_image_mb", "N, which leaves larger images out"))
    return DataError(f"the memory does not suffice to read {key}", fix=fixes)


def unread_at(path: Path, error: Exception) -> Unreadable:
    """Why a file cannot be opened, and whether that holds for this moment only."""
    now = isinstance(error, OSError) and error.errno in NOT_NOW
    return (NotNow if now else Unreadable)(reason_at(path, error))


def plain_reason(error: Exception) -> str:
    """A reader's error in its words, without the traceback that pydicom adds to them."""
    return (str(error) if isinstance(error, Unreadable) else reason_of(error)).partition("\nTraceback")[0]


def reason_at(path: Path, error: Exception) -> str:
    """Why a file cannot be opened: its reader's error, unless it is missing or empty."""
    if not path.is_file():
        return "it is no regular file" if path.exists() else "the file is missing"
    if not path.stat().st_size:
        return "the file is empty"
    return plain_reason(error)
