"""Images decoded once, cut to size and memory-mapped: a cache found by file stamps and keyed by content."""

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ssl_app.data.decoding.limits import NotNow, TooLarge
from ssl_app.data.images import Unreadable
from ssl_app.data.intensity import FILE_WINDOW, scaled
from ssl_app.data.nodata import Survey, notices
from ssl_app.data.reduction import CROP, Cut, Reduced, pack_side, reduce
from ssl_app.data.sources.base import Source
from ssl_app.data.spec import PixelSpec
from ssl_app.data.store import SCALED, STRICT, WINDOWED, Form, Store
from ssl_app.errors import DataError, Fix, Notice, Run, Set, of_count, together
from ssl_app.runs import DISK_FULL, draft_path, name_the_disk, sync, write_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")
FORMAT = 4  # of the cache: a new number makes every entry anew
TEMPORARY = "packing"
LOOKED_AT = 5000  # images more of a set that cannot be one, for what else is wrong
SECONDS_BETWEEN_LINES = 10.0
DAY = 86_400.0  # seconds
LINES = 4096  # that are hashed at a time


@dataclass(frozen=True)
class Packed:
    """The readable images of a source, all of one size, depth and number of channels."""

    images: NDArray[Any]  # (N, P, P, C) memory-mapped, read-only
    rows: NDArray[np.int64]  # (N,) position in the source
    content: NDArray[np.int64]  # (N,) hash of the decoded pixels at full size
    unreadable: tuple[tuple[str, str], ...]  # key and reason
    key: str  # of content and settings, hexadecimal
    folder: Path
    notes: tuple[Notice, ...]  # what was found in the pixels


def pack(
    source: Source, pixels: PixelSpec, cache: Path, *, max_unreadable: int = 0, progress: bool = False
) -> Packed:
    """The source's images at one size, from the cache where they lie there already.

    Without `pixels.channels` gray files, and RGB files with R = G = B throughout, are one channel. The intensity
    "dtype" turns mixed bit depths into float32 in [0, 1], "file-window" each image by its file's window; the others
    refuse mixed depths. Without `pixels.pack_side` the
    side is chosen by the first image; a number is used as it is, so that a picture's pixels do not depend on the
    set it lies in, and smaller images are enlarged to it.
    Raises DataError for files that cannot be read, mixed depths and mixed channels.
    """
    channels, depth = pixels.channels, depth_of(pixels)
    if depth == WINDOWED:
        refuse_without_window(source)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache {cache} cannot be made ({error.strerror}); name another place") from error
    remove_leftovers(cache)
    stamped = digest(source.stamps())  # of files as they are now, before one is read

    def index(*settings: object) -> Path:
        of = [FORMAT, depth, source.max_image_mb, pixels.nodata, pixels.fit, *settings]
        return cache / "index" / f"{digest([json.dumps(of), stamped])}.json"

    wanted = index("wanted", pixels.size, pixels.pack_side, channels)
    entry = read_index(wanted, cache, source)
    if entry is None:
        shape = first_image(source).shape  # read in any case: it finds out whether anything can be read
        chosen = pixels.pack_side or pack_side(shape, pixels.size, pixels.fit)
        entry = read_index(index("made", chosen, channels), cache, source)
        if entry is None:
            entry = fill(source, replace(pixels, pack_side=chosen), cache, max_unreadable, progress)
            made = {index("made", chosen, c) for c in (channels, entry["channels"])}  # to ask for these is the same
        else:
            made = set()
        changed = digest(source.stamps()) != stamped
        if changed:
            logger.warning(
                f"warning: files of {source.name} have changed while they were read; next time all are again"
            )
        for path in () if changed else (wanted, *made):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, json.dumps(entry).encode())
    notes = (*map(notice_of, entry["seen"]), *notices(entry["found"]))
    if refusal := too_many(source, entry["unreadable"], max_unreadable):
        refusal.beside = notes
        raise refusal
    folder = cache / entry["key"]
    rows = np.delete(np.arange(len(source.keys)), [i for i, *_ in entry["unreadable"]])
    return Packed(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        rows=rows.astype(np.int64),
        content=np.load(folder / "content.npy"),
        unreadable=tuple((source.keys[i], reason) for i, reason, _ in entry["unreadable"]),
        key=entry["key"],
        folder=folder,
        notes=notes,
    )


def depth_of(pixels: PixelSpec) -> str:
    """How mixed depths are taken."""
    return {"dtype": SCALED, FILE_WINDOW: WINDOWED}.get(pixels.intensity, STRICT)


def notice_of(seen: tuple[str, list[tuple[str, str]]]) -> Notice:
    """What was seen of the pixels, with the settings that decide otherwise."""
    sentence, settings = seen
    return Notice(sentence, fixes=tuple(Set(name, value) for name, value in settings))


def read_index(index: Path, cache: Path, source: Source) -> dict[str, Any] | None:
    """Key and unreadable files of the set with these stamps.

    None where its pack is not there, where either is damaged, and where a file can be read that could not be for a
    moment (rights, a share that was gone).
    """
    try:
        entry: dict[str, Any] = json.loads(index.read_bytes())
        folder = cache / entry["key"]
        unreadable = [(int(i), str(reason), int(needed)) for i, reason, needed in entry["unreadable"]]
        found = [(str(sentence), value if value is None else str(value)) for sentence, value in entry["found"]]
        seen = [
            (str(sentence), [(str(name), str(value)) for name, value in sets]) for sentence, sets in entry["seen"]
        ]
        not_now = [int(i) for i in entry["not_now"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (folder / "content.npy").is_file():
        return None
    try:
        whole = len(np.load(folder / "images.npy", mmap_mode="r")) == len(np.load(folder / "content.npy"))
        whole = whole and len(np.load(folder / "content.npy")) == len(source.keys) - len(unreadable)
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)  # else the new pack, of the same name, would not take its place
        return None
    if any(readable(source, i) for i in not_now):
        return None
    return {"key": entry["key"], "unreadable": unreadable, "found": found, "seen": seen, "not_now": not_now}


def readable(source: Source, i: int) -> bool:
    """Whether an image can be read now."""
    try:
        source.read(i)
    except Unreadable:
        return False
    return True


def too_many(source: Source, unreadable: list[tuple[int, str, int]], most: int) -> DataError | None:
    """The refusal of more unreadable files than allowed: position, reason, megabytes of one too large."""
    if len(unreadable) > most:
        first, reason, _ = unreadable[0]
        return DataError(
            f"{len(unreadable)} of {len(source.keys)} images cannot be read, first {source.keys[first]}: {reason}",
            fix=(
                of_count(len(unreadable), "fix or remove them"),
                *larger(max(needed for *_, needed in unreadable)),
                Set("max_unreadable", len(unreadable)),
            ),
        )
    return None


def larger(needed_mb: int) -> tuple[Set, ...]:
    """The setting that allows the largest image, if one was too large."""
    return (Set("max_image_mb", needed_mb),) if needed_mb else ()


def needed_by(reason: Unreadable) -> int:
    """Megabytes of an image that is too large, 0 for any other reason."""
    return reason.needed_mb if isinstance(reason, TooLarge) else 0


def refuse_without_window(source: Source) -> None:
    """Raise DataError where an image has no window of its own, which "file-window" scales it by."""
    windows = source.windows or (None,) * len(source.keys)
    lacking = [key for key, window in zip(source.keys, windows, strict=True) if window is None]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(source.keys)} images have no window in their file, first {lacking[0]}",
            fix=(Fix("give DICOM files that have one"), Run("pretrain", (("intensity", "range"),))),
        )


def windowed(image: Reduced, window: tuple[float, float] | None) -> Reduced:
    """An image as float32 in [0, 1] between the low and high of its own window."""
    assert window is not None
    return replace(image, small=scaled(image.small, *window))


def fill(source: Source, pixels: PixelSpec, cache: Path, max_unreadable: int, progress: bool) -> dict[str, Any]:
    """Decode everything once into a new entry of the cache: its key, what is unreadable, what was found.

    Raises all that is wrong together; of a set that cannot be one it looks at LOOKED_AT images more, and no further.
    """
    depth = depth_of(pixels)
    folder = draft_path(cache / TEMPORARY)
    folder.mkdir()
    form, store, survey, cut = Form(pixels.channels, depth), None, Survey(), Cut()
    side = pixels.pack_side
    assert side is not None
    count = len(source.keys)
    content = array("q")
    looked = 0  # images after the first that does not go with the others
    unreadable: list[tuple[int, str, int]] = []  # position, reason, megabytes
    not_now: list[int] = []  # positions of those that may be readable at another moment
    changed = DataError(f"{source.name} has changed while it was read", fix=Fix("type the same again"))
    try:
        work = partial(reduce, side=side, nodata=pixels.nodata, fit=pixels.fit)
        for i, image in counted(source.each(work), count, progress):
            if len(content) + len(unreadable) == count:
                raise changed
            if isinstance(image, Unreadable):
                unreadable.append((i, str(image), needed_by(image)))
                not_now += [i] if isinstance(image, NotNow) else []
                continue
            if depth == WINDOWED and source.windows is not None:
                image = windowed(image, source.windows[i])
            form.admit(source.keys[i], image)
            survey.add(source.keys[i], image.filled, image.far)
            cut.add(source.keys[i], image)
            if form.apart:
                looked += 1
                if looked > LOOKED_AT:
                    break
                continue
            small = form.fit(image.small)
            if store is None:
                store = Store(folder / "images.npy", small, count)
            elif (small.shape, small.dtype) != (store.shape, store.dtype):
                store.rewrite(form.fit)
            store.add(small)
            content.append(image.content)
        if len(unreadable) == count:
            raise none_readable(source, [(f"{source.keys[i]}: {reason}", needed) for i, reason, needed in unreadable])
        seen = form.settle() + (cut.found() if pixels.fit == CROP else [])
        found = survey.to_json(pixels.nodata)
        if refusals := form.refusals():
            too = too_many(source, unreadable, max_unreadable)
            error = together([*([] if too is None else [too]), *refusals])
            error.beside = (*map(notice_of, seen), *notices(found))
            raise error
        if store is None or len(content) + len(unreadable) != count:
            raise changed
        if form.gray_at_last and store.shape[-1] == 3:
            store.rewrite(form.fit)
        store.close()
        hashes = np.frombuffer(content, np.int64)
        np.save(folder / "content.npy", hashes)
        for path in (store.path, folder / "content.npy", folder):
            sync(path)
        windows = [json.dumps(source.windows)] if depth == WINDOWED else []  # they change pixels, and not the content
        form_of = json.dumps([FORMAT, side, pixels.fit, store.shape, store.dtype.str])
        key = digest([form_of, *windows], hashes.tobytes())
        settle(folder, cache / key)
        about = {"key": key, "channels": store.shape[-1], "unreadable": unreadable, "found": found, "seen": seen}
        return about | {"not_now": not_now}
    except OSError as error:
        name_the_disk(error)
        if error.errno not in DISK_FULL:
            raise
        full = f"no space left in {cache} for {count} images of {side} x {side} pixels"
        raise DataError(full, fix=Fix("make room there")) from error
    finally:
        if store is not None:
            with suppress(OSError):  # what it still holds is written nowhere
                store.file.close()
        shutil.rmtree(folder, ignore_errors=True)


def first_image(source: Source) -> NDArray[Any]:
    """The first image that can be read, (H, W, C). Raises DataError where none can."""
    reasons = []
    for i in range(len(source.keys)):
        try:
            return source.read(i)
        except Unreadable as reason:
            reasons.append((f"{source.keys[i]}: {reason}", needed_by(reason)))
    raise none_readable(source, reasons)


def none_readable(source: Source, reasons: list[tuple[str, int]]) -> DataError:
    """Every image and its reason, and megabytes of those too large, as an error."""
    place = Path(source.name).absolute()
    missing = place.is_file() and reasons[0][0].endswith("the file is missing")
    return DataError(
        f"none of the {len(reasons)} images in {source.name} can be read, first {reasons[0][0]}",
        expected=f"paths from {place.parent} on, or whole ones" if missing else None,
        fix=larger(max(needed for _, needed in reasons)),
    )


def settle(folder: Path, final: Path) -> None:
    """Make a finished entry the entry of that key; another process may have been first, with the same."""
    try:
        os.replace(folder, final)
    except OSError:
        if not (final / "content.npy").is_file():
            raise
    sync(final.parent)


def counted(items: Iterator[T], total: int, progress: bool, what: str = "packing") -> Iterator[T]:
    """The items, with a bar on stderr where that is a terminal, and a line every ten seconds elsewhere."""
    if not progress:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit="image", leave=False)
    else:
        shown = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
                shown = time.monotonic()
                print(f"{what}: {done} of {total} images", file=sys.stderr, flush=True)


def remove_leftovers(cache: Path) -> None:
    """Take away what killed packs left, when nothing in it has changed for a day."""
    for folder in cache.glob(f".{TEMPORARY}.*"):
        with suppress(OSError):  # its owner, or another cleaner, may be faster
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - newest > DAY:
                shutil.rmtree(folder, ignore_errors=True)


def digest(lines: Iterable[str], content: bytes = b"") -> str:
    """32 hexadecimal digits over lines, joined by newlines, and bytes; names need not be valid UTF-8.

    The lines of a large set are never all in memory.
    """
    state, separator, rest = hashlib.blake2b(digest_size=16), "", iter(lines)
    while block := list(islice(rest, LINES)):
        state.update((separator + "\n".join(block)).encode("utf-8", "surrogateescape"))
        separator = "\n"
    state.update(content)
    return state.hexdigest()
