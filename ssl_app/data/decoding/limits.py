"""How much one image may unfold to, and why one cannot be read."""

import math

MEGABYTE = 2**20  # bytes
MOST_MB = 512  # of one decoded image, where the user names no other limit


class Unreadable(Exception):
    """An image that cannot be read, with the reason in one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()) or "unknown reason")


class TooLarge(Unreadable):
    """An image that would unfold to more than is allowed: refused by its header, before anything is allocated."""

    def __init__(self, found: str, needed: int, most: int) -> None:
        super().__init__(f"{found} need {megabytes(needed)} MB, {megabytes(most)} are allowed")
        self.needed_mb = megabytes(needed)


def megabytes(count: int) -> int:
    """Bytes in whole megabytes, rounded up."""
    return -(-count // MEGABYTE)


def admit(most: int, shape: tuple[int, ...], itemsize: int = 1) -> None:
    """Raise TooLarge where an array of this shape takes more than `most` bytes, Unreadable where it has no pixel."""
    if min(shape) < 1:
        raise Unreadable(f"an image of {' x '.join(map(str, shape))} pixels")
    needed = math.prod(shape) * itemsize
    if needed > most:
        raise TooLarge(f"{' x '.join(map(str, shape))} pixels of {itemsize} byte{'s' * (itemsize > 1)}", needed, most)


def admit_bytes(most: int, count: int) -> None:
    """Raise TooLarge where a file, or a member of an archive, is itself larger than an image may be."""
    if count > most:
        raise TooLarge(f"the file's {count} bytes", count, most)
