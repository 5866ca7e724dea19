"""What every kind of data offers: which images there are, what is known of each, and its pixels."""

import glob
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from numpy.typing import NDArray

from ssl_app import registry
from ssl_app.data import class_names
from ssl_app.data.companions import AUTO
from ssl_app.data.decoding.limits import MAX_IMAGE_MB
from ssl_app.data.images import EXTENSIONS, Unreadable
from ssl_app.data.survey import SPLITS as SPLITS
from ssl_app.data.survey import left_after, patterns_of, survey
from ssl_app.errors import DataError, Fix, Notice, Set, Unset

A = TypeVar("A")
T = TypeVar("T")

EXPECTED = (
    "expected a folder or file of images, a manifest (.csv, .tsv, .parquet), an .npz, tar shards or a built-in name "
    "(digits)"
)
MOST_AHEAD = 2**27  # bytes of items that wait for a thread
UNUSED = "none"  # a column that is there and not to be used
FOLDER_NAMES, SHARD_NAMES, ARRAY_NAMES = "folder names", "shard names", "array names"


@dataclass(frozen=True)
class Columns:
    """Where labels, groups and splits come from, what is left out, and how volumes are cut into slices.

    As requested, None is the default and "none" is not to be used; as found, None is nowhere.
    """

    label: str | None = None
    group: str | None = None
    split: str | None = None
    axis: str | None = None  # axial, coronal or sagittal; as requested only
    omit: tuple[str, ...] = (AUTO,)  # patterns of files to leave out; as requested only
    unlabeled: tuple[str, ...] = ()  # labels that stand for none; as requested only
    one_spelling: bool = False  # whether names that differ in case, blanks or accents' form are one class
    group_from: str | None = None  # as found: what gives the groups where no column does, such as PatientID

    @property
    def group_origin(self) -> str:
        """Where the groups come from, for a sentence."""
        return self.group_from or origin(str(self.group))


def origin(column: str) -> str:
    """A column for a sentence: `column split`, but `folder names`."""
    return column if column in {FOLDER_NAMES, SHARD_NAMES, ARRAY_NAMES} else f"column {column}"


class Source(ABC):
    """Images with what is known about them; N images, in a stable order.

    The first line of a sub-class's file says what it reads. Reading is by `each`, which
    decodes in threads; labels, groups and splits are known before a pixel is read.
    """

    last_resort: ClassVar[bool] = False  # tried after the others
    name: str  # as typed
    keys: tuple[str, ...]  # (N,) unique and stable: path below the root, or member name
    file_names: tuple[str, ...] | None = None  # (N,) of the files that the images lie in; None: their keys are these
    labels: tuple[str | None, ...] | None = None  # class names; None = unlabeled
    groups: tuple[str | None, ...] | None = None
    splits: tuple[str | None, ...] | None = None  # "train", "val" or "test"
    columns: Columns = Columns()  # those used, for messages
    notes: tuple[Notice, ...] = ()
    volumes: bool = False  # whether some of the images are slices
    mirrors: bool = True  # False where a mirrored image is another thing
    max_image_mb: int = MAX_IMAGE_MB  # of one decoded image: `read` gives it to `decode`
    unused: tuple[str, ...] = ()  # columns of a table that are not used
    value_units: str = ""  # where values mean the same in every type: "modality", such as Hounsfield's
    windows: tuple[tuple[float, float] | None, ...] | None = None  # (N,) low and high that the files ask to show

    @abstractmethod
    def __init__(self, data: str, columns: Columns) -> None: ...

    @classmethod
    @abstractmethod
    def accepts(cls, data: str) -> bool:
        """Whether this kind reads what was typed; cheap, raises nothing."""

    @abstractmethod
    def read(self, i: int) -> NDArray[Any]:
        """Image i at its true bit depth: (H, W, C). Raises Unreadable."""

    @abstractmethod
    def stamps(self) -> Iterable[str]:
        """(N,) cheap identities of the images: path, size, time of change. Read once, from front to back."""

    def each(self, work: Callable[[NDArray[Any]], T]) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) for every image, in order; reading and work run in threads, a little ahead."""

        def done(i: int) -> tuple[int, T | Unreadable]:
            try:
                return i, work(self.read(i))
            except Unreadable as reason:
                return i, reason
            except MemoryError as error:
                raise DataError(f"the memory does not suffice to read {self.keys[i]}; free some") from error

        return in_order(done, range(len(self.keys)))


def in_order(
    work: Callable[[A], T], items: Iterable[A], chunk: int = 8, size: Callable[[A], int] = lambda item: 0
) -> Iterator[T]:
    """work(item) for every item, in order, in threads; a few chunks ahead at most, and few bytes by `size`."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 16)
    rest = iter(items)
    waiting: deque[tuple[Future[list[T]], int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                ahead = sum(held for _, held in waiting)
                while len(waiting) < 2 * workers and ahead < MOST_AHEAD:
                    batch, held = next_batch(rest, chunk, size)
                    if not batch:
                        break
                    ahead += held
                    waiting.append((pool.submit(lambda batch: [work(item) for item in batch], batch), held))
                if not waiting:
                    return
                yield from waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


def next_batch(rest: Iterator[A], chunk: int, size: Callable[[A], int]) -> tuple[list[A], int]:
    """The next items, as many as a chunk has or until they are large, and their bytes."""
    batch: list[A] = []
    held = 0
    for item in islice(rest, chunk):
        batch.append(item)
        held += size(item)
        if held >= MOST_AHEAD // 8:
            break
    return batch, held


def file_stamp(path: Path) -> str:
    """Path, size and time of change in one string; a missing file has a stamp as well."""
    try:
        status = path.stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def only_in_manifests(data: str, columns: Columns, kind: str) -> None:
    """Refuse columns where there can be none."""
    for name in ("label", "group", "split"):
        column = getattr(columns, name)
        if column not in {None, UNUSED}:
            listed = ", ".join(dict.fromkeys(["path", "label", column or ""]))
            raise DataError(
                f"the {name} is column {column}, and {kind} {data} has no columns",
                fix=(Fix(f"write a manifest (CSV with the columns {listed})"), Set("data", "manifest.csv")),
            )


def kinds() -> list[type[Source]]:
    """Every kind of data, by name: the files beside this one."""
    return [registry.find("data.sources", name) for name in registry.names("data.sources")]


def open_source(data: str, columns: Columns, max_image_mb: int = MAX_IMAGE_MB) -> Source:
    """The source that accepts what was typed. Raises DataError with what is known where none does."""
    survey.cache_clear()
    for kind in sorted(kinds(), key=lambda kind: kind.last_resort):
        if kind.accepts(data):
            source = kind(data, columns)
            source.max_image_mb = max_image_mb
            name_classes(source, columns)
            if columns.axis is not None and not source.volumes:
                source.notes += (Notice(f"{data} holds no volumes, and nothing is cut into {columns.axis} slices"),)
            return source
    if not Path(data).exists() and not glob.has_magic(data):
        near = get_close_matches(data, ["digits", *map(str, Path(data).parent.glob("*"))], n=1, cutoff=0.8)
        raise DataError(f"{data} does not exist; {f'did you mean {near[0]}?' if near else EXPECTED}")
    if Path(data).suffix.lower() in EXTENSIONS:
        raise DataError(f"{data} is one image", expected="a set of them", fix=Set("data", Path(data).parent))
    raise DataError(f"{data} is of no known kind; {EXPECTED}")


def name_classes(source: Source, columns: Columns) -> None:
    """Take away labels that stand for none and join spellings, as requested; remark on the others."""
    patterns = patterns_of(columns.omit)
    if patterns and len(left_after(list(source.keys), columns.omit)) < len(source.keys):
        raise DataError(
            f"{source.name} is no folder and no manifest, of which files can be left out", fix=Unset("omit")
        )
    if source.labels is None:
        return
    labels = class_names.without(source.labels, columns.unlabeled, columns.one_spelling)
    if columns.unlabeled or columns.one_spelling:
        changed = sum(one != other for one, other in zip(source.labels, labels, strict=True))
        done = "spellings joined, or taken for none" if changed else "none is spelled so"
        source.notes += (Notice(f"{changed} labels changed, as requested: {done}"),)
    source.labels = labels
    source.notes += tuple(class_names.notices(labels))
