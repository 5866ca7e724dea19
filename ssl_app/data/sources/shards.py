"""Tar shards (.tar, .tar.gz, .tgz) of NNN.jpg and NNN.cls pairs: a folder of them, one, or a pattern.

NNN.cls holds a class: a number, for which classes.txt beside the shards has the names, or a name.
A shard whose name contains train, val or test as a word gives its images that split.
"""

import glob
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from numpy.typing import NDArray

from ssl_app.data.companions import companions
from ssl_app.data.decoding.limits import MEGABYTE, Limit
from ssl_app.data.images import EXTENSIONS, Unreadable, decode, unread_kind
from ssl_app.data.sources.base import (
    SHARD_NAMES,
    SPLITS,
    UNUSED,
    Columns,
    Source,
    file_stamp,
    in_order,
    only_in_manifests,
)
from ssl_app.data.survey import HIDDEN, of_the_system
from ssl_app.data.tars import Member, stream
from ssl_app.errors import DataError, Fix, Notice

T = TypeVar("T")
ENDINGS = (".tar", ".tar.gz", ".tgz")
LABEL = ".cls"
MOST_LABEL_BYTES = 4096


class Shards(Source):
    """Images in tar files, read as a stream; one pass finds the members, another the pixels."""

    def __init__(self, data: str, columns: Columns) -> None:
        only_in_manifests(data, columns, "the shards")
        self.name = data
        self.shards = shards_of(data)
        keys: list[str] = []
        labels: list[str | None] = []
        splits: list[str | None] = []
        unread: Counter[str] = Counter()
        passed: Counter[str] = Counter()
        self.members: list[tuple[int, str]] = []  # (shard, member) of every image
        for number, shard in enumerate(self.shards):
            images, classes = index(shard, unread, passed)
            keys += [f"{shard.name}/{member}" for member in images]
            labels += [classes.get(stem_of(member)) for member in images]
            splits += [split_of(shard.name)] * len(images)
            self.members += [(number, member) for member in images]
        remarks = [f"{n} {kind} file{'s' * (n > 1)} found, not read yet" for kind, n in sorted(unread.items())]
        if passed:
            each = ", ".join(f"{n} {kind}" for kind, n in sorted(passed.items(), key=lambda one: (-one[1], one)))
            remarks.append(f"{passed.total()} other member{'s' * (passed.total() > 1)} passed over: {each}")
        if not keys:
            more = "".join(f"; {sentence}" for sentence in remarks)
            raise DataError(f"no images found in {data}{more}; expected members such as 000001.jpg")
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise DataError(f"{twice[0]} is there twice; expected every member's name once in a shard")
        self.keys = tuple(keys)
        if any(label is not None for label in labels) and columns.label != UNUSED:
            self.labels = tuple(named(labels, self.shards[0].parent / "classes.txt"))
        if any(splits) and columns.split != UNUSED:
            self.splits = tuple(splits)
        self.columns = Columns(label="cls" if self.labels else None, split=SHARD_NAMES if self.splits else None)
        if not any(labels):
            remarks.append(f"unlabeled: no member such as {stem_of(self.members[0][1])}{LABEL} holds a class")
        aside = [one.found for one in companions(self.keys).notices(left_out=False)]
        cure = Fix("write the shards without them")
        self.notes = (*(Notice(sentence, fixes=(cure,)) for sentence in aside), *map(Notice, remarks))

    @classmethod
    def accepts(cls, data: str) -> bool:
        """Whether it is a shard, a folder with shards at its top, or a pattern that finds some."""
        path = Path(data)
        if not path.is_dir():
            return bool(shards_of(data))
        beside = [one for one in path.iterdir() if not one.name.startswith(".")]
        plain = any(one.is_dir() or one.suffix.lower() in EXTENSIONS for one in beside)
        return not plain and bool(shards_of(data))  # images with a backup.tar beside them are a folder

    def read(self, i: int) -> NDArray[Any]:
        """Image i: (H, W, C), from the start of its shard: slow. Raises Unreadable."""
        number, wanted = self.members[i]
        for member in stream(self.shards[number], partial(self.wanted, (wanted,))):
            return self.decoded(member)
        raise Unreadable("the shard has changed")

    def each(self, work: Callable[[NDArray[Any]], T]) -> Iterator[tuple[int, T | Unreadable]]:
        """(i, work(image i)) in order: the shards are read as streams, images decoded in threads."""
        position: dict[Path, dict[str, int]] = {shard: {} for shard in self.shards}
        for i, (number, member) in enumerate(self.members):
            position[self.shards[number]][member] = i

        def members() -> Iterator[tuple[int, Member]]:
            for shard in self.shards:
                mine = position[shard]
                wanted = partial(self.wanted, mine)
                yield from ((mine[member.name], member) for member in stream(shard, wanted))

        def done(item: tuple[int, Member]) -> tuple[int, T | Unreadable]:
            i, member = item
            try:
                return i, work(self.decoded(member))
            except Unreadable as reason:
                return i, reason

        return in_order(done, members(), size=lambda item: len(item[1].content))

    def wanted(self, names: Container[str], name: str) -> int:
        """Bytes to read of a member at most, 0 where it is not among the names."""
        return self.max_image_mb * MEGABYTE if name in names else 0

    def decoded(self, member: Member) -> NDArray[Any]:
        """The image in a member. Raises Unreadable."""
        Limit(self.max_image_mb).admit_bytes(member.size)
        return decode(member.content, member.name, self.max_image_mb)

    def stamps(self) -> Iterator[str]:
        """(N,) path, size and time of change of the shard, and the member."""
        shards = [file_stamp(shard.resolve()) for shard in self.shards]
        return (f"{shards[number]}|{member}" for number, member in self.members)


def shards_of(data: str) -> list[Path]:
    """The tar files that what was typed names, sorted."""
    path = Path(data)
    if path.is_dir():
        found = list(path.iterdir())
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(data)]
    return sorted(one for one in found if one.name.lower().endswith(ENDINGS) and not one.name.startswith("."))


def index(shard: Path, unread: Counter[str], passed: Counter[str]) -> tuple[list[str], dict[str, str]]:
    """The image members of a shard in their order, and the class of each stem.

    Members of kinds that are not read are counted in `unread`, all others by their ending in `passed`.
    """
    images: list[str] = []
    classes: dict[str, str] = {}

    def label(name: str) -> int:
        if hidden(name):
            passed[HIDDEN] += 1
            return 0
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in EXTENSIONS:
            images.append(name)
        elif kind := unread_kind(name, b""):
            unread[kind] += 1
        elif suffix != LABEL:
            passed[suffix or "without an ending"] += 1
        return MOST_LABEL_BYTES * (suffix == LABEL)

    for member in stream(shard, label):
        if member.size > MOST_LABEL_BYTES:
            raise DataError(
                f"{shard} holds {member.name} of {member.size} bytes", expected="a class's name or number"
            )
        text = member.content.decode("utf-8", errors="surrogateescape").strip()  # two names stay two
        if text:
            classes[stem_of(member.name)] = text
    return images, classes


def hidden(name: str) -> bool:
    """Names that begin with a dot, and what else a system makes: what macOS writes beside every file."""
    return any(of_the_system(part) for part in PurePosixPath(name).parts)


def stem_of(member: str) -> str:
    """What an image and its label share: `a/000001` of `a/000001.jpg`."""
    return member[: len(member) - len(PurePosixPath(member).suffix)]


def split_of(shard: str) -> str | None:
    """The split that a shard's name gives: `test` of `cifar10-test-00001.tar.gz`."""
    words = [SPLITS[word] for word in re.split(r"[^a-z]+", shard.lower()) if word in SPLITS]
    return words[0] if words else None


def named(labels: list[str | None], names_file: Path) -> list[str | None]:
    """Class numbers as the names in classes.txt, line by line from 0; anything else as it is."""
    if not names_file.is_file():
        return labels
    try:
        names = [name.strip() for name in names_file.read_text(encoding="utf-8").splitlines() if name.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{names_file} is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{names_file} names {name} {count} times; expected each class once, a line each")
    numbers = {label for label in labels if label is not None and label.isdecimal()}
    beyond = sorted(int(number) for number in numbers if int(number) >= len(names))
    if beyond:
        raise DataError(f"{names_file} names {len(names)} classes, and a {LABEL} member holds {beyond[0]}; "
                        f"expected one line a class")  # fmt: skip
    return [names[int(label)] if label is not None and label in numbers else label for label in labels]
