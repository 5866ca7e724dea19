"""Tar files as streams, plain or compressed: a damaged or cut one is an error, never a smaller set.

Python's tarfile takes a damaged header for the end, does not ask for the block of zeros that ends an archive, and
does not check what gzip says of its own content.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_app.errors import DataError

LONGEST_NAME = 2**20  # bytes of a header that holds a long name or further properties
MOST_PADDING = 2**26  # bytes of zeros after the end
BUFFER = 2**18  # bytes read at a time
ABOUT_NEXT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
              tarfile.GNUTYPE_LONGLINK)  # fmt: skip
OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


class Member(NamedTuple):
    """A file of an archive; its content is empty where it is larger than was wanted."""

    name: str
    size: int
    content: bytes


def stream(shard: Path, wanted: Callable[[str], int]) -> Iterator[Member]:
    """The members that are wanted, in the shard's order; `wanted` gives the bytes to read of a name at most, or 0.

    Raises DataError where the archive is damaged, cut, or goes on after its end.
    """
    last = None
    try:
        with opened(shard) as file:
            header = recording()
            with tarfile.open(fileobj=file, mode="r|", bufsize=BUFFER, tarinfo=header) as archive:
                for member in archive:
                    most = wanted(member.name) if member.isfile() else 0
                    if most:
                        inside = archive.extractfile(member)
                        assert inside is not None
                        yield Member(member.name, member.size, inside.read() if member.size <= most else b"")
                    last = member.name
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps every header it has seen
                if not header.ended:
                    raise tarfile.ReadError("it is cut, or a header is broken")
                refuse_more(archive.fileobj)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
        place = "at its start" if last is None else f"after {last}"
        raise DataError(f"{shard} is damaged {place} ({error}); fetch it again or remove it") from error


def opened(shard: Path) -> Any:
    """The archive's bytes, decompressed; a checksum that is wrong raises at the end of the stream."""
    with shard.open("rb") as file:
        magic = file.read(2)
    return OPENERS[magic](shard) if magic in OPENERS else shard.open("rb")


def recording() -> type["Header"]:
    """A class of headers of its own for one archive, which records whether its end was found."""
    return type("Recorded", (Header,), {})


class Header(tarfile.TarInfo):
    """A header that is not believed where it asks for much memory."""

    ended = False

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        """Parse one block. Raises tarfile's HeaderError kinds, and ReadError for an endless name."""
        cls.ended = len(buf) == tarfile.BLOCKSIZE and not any(buf)
        found: Header = super().frombuf(buf, encoding, errors)
        if found.type in ABOUT_NEXT and found.size > LONGEST_NAME:
            raise tarfile.ReadError(f"a name of {found.size} bytes")
        return found


def refuse_more(file: Any) -> None:
    """Read to the end, where checksums are. Raises ReadError for anything but zeros."""
    padding = 0
    while block := file.read(BUFFER):
        padding += len(block)
        if any(block):
            raise tarfile.ReadError("it goes on after its end, as archives that were joined do")
        if padding > MOST_PADDING:
            raise tarfile.ReadError(f"more than {MOST_PADDING} zeros after its end")
