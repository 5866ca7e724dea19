"""How much one image may unfold to, how much all threads may at a time, and why an image cannot be read."""

import errno
import math
import threading
from typing import ClassVar

from ssl_app.settings import MAX_IMAGE_MB as MAX_IMAGE_MB  # the default of every decoder

MEGABYTE = 2**20  # bytes
# rights, a share that is gone, a limit on open files
NOT_NOW = (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE,
    errno.ENFILE, errno.ENODEV, errno.EBUSY, errno.EHOSTDOWN, errno.EHOSTUNREACH,
)  # fmt: skip
SMALL = 16 * MEGABYTE  # images below it do not wait for each other


class Unreadable(Exception):
    """An image that cannot be read, with the reason in one line."""

    def __init__(self, reason: object) -> None:
        super().__init__(" ".join(str(reason).split()) or "unknown reason")


class NotNow(Unreadable):
    """An image that could not be read at that moment, for a reason that can be fixed: no result to be kept."""


def unread(error: OSError) -> Unreadable:
    """Why a file's bytes could not be had."""
    missing = isinstance(error, FileNotFoundError)
    return (NotNow if error.errno in NOT_NOW else Unreadable)("the file is missing" if missing else error)


class TooLarge(Unreadable):
    """An image that would unfold to more than is allowed: refused by its header, before anything is allocated."""

    def __init__(self, found: str, needed: int, most: int) -> None:
        super().__init__(f"{found} need {megabytes(needed)} MB, {megabytes(most)} are allowed")
        self.needed_mb = megabytes(needed)


class Limit:
    """What one image may unfold to. As a context, it also bounds what all threads unfold at a time.

    A decoder takes up to four times the size of its result. Without a bound, sixteen threads on sixteen large
    images would need 64 times the limit.
    """

    changed: ClassVar[threading.Condition] = threading.Condition()
    held: ClassVar[int] = 0  # bytes that all threads unfold now

    def __init__(self, max_image_mb: int = MAX_IMAGE_MB) -> None:
        self.most = max_image_mb * MEGABYTE
        self.reserved = 0

    def admit(self, shape: tuple[int, ...], itemsize: int = 1) -> None:
        """Raise TooLarge for an array that takes more than is allowed, Unreadable for one without a pixel.

        The first large array of an image waits until there is room beside those of other threads; the room is given
        back at the end of the context.
        """
        if min(shape) < 1:
            raise Unreadable(f"an image of {' x '.join(map(str, shape))} pixels")
        needed = math.prod(shape) * itemsize
        if needed > self.most:
            size = f"{' x '.join(map(str, shape))} values of {itemsize} byte{'s' * (itemsize > 1)}"
            raise TooLarge(size, needed, self.most)
        if needed > SMALL and not self.reserved:
            with Limit.changed:
                Limit.changed.wait_for(lambda: not Limit.held or Limit.held + needed <= self.most)
                self.reserved = needed
                Limit.held += needed

    def admit_bytes(self, count: int) -> None:
        """Raise TooLarge where a file, or a member of an archive, is itself larger than an image may be."""
        if count > self.most:
            raise TooLarge(f"the file's {count} bytes", count, self.most)

    def __enter__(self) -> "Limit":
        return self

    def __exit__(self, *_: object) -> None:
        if self.reserved:
            with Limit.changed:
                Limit.held -= self.reserved
                self.reserved = 0
                Limit.changed.notify_all()


def megabytes(count: int) -> int:
    """Bytes in whole megabytes, rounded up."""
    return -(-count // MEGABYTE)
