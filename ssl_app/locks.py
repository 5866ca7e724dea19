"""One process at a time works on a run: a lock in its folder, which says who holds it and since when.

The lock is the system's (`flock`), and ends with its process, however that ends. What lies in the file is for people;
on a file system without locks it decides, by the process's number and start.
"""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from ssl_app.errors import Fix, RunError

logger = logging.getLogger(__name__)

LOCK = ".lock"  # in a run's folder
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what such a file system answers
TRIES, PAUSE = 3, 0.05  # seconds; `list` holds a lock for a moment, to find out
LONGEST = 120  # characters of a command line


@dataclass(frozen=True)
class Owner:
    """Who works on a run. All of it is unknown where the lock was taken without a note, on a full disk say."""

    process: int = 0
    host: str = ""
    began: str = ""  # the process's start: a number is given to another process later
    since: float = 0.0  # seconds since 1970
    command: str = ""

    @classmethod
    def this(cls) -> "Owner":
        """This process, from now on."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        shown = command if len(command) <= LONGEST else f"{command[:LONGEST]}..."
        return cls(os.getpid(), socket.gethostname(), began(os.getpid()), time.time(), shown)

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host in ("", socket.gethostname())

    @property
    def may_live(self) -> bool:
        """Whether it may still be at work: of another machine nobody knows."""
        return not self.here or (self.process > 0 and began(self.process) == self.began != "")

    def sentence(self) -> str:
        """`process 4711 (ssl-app pretrain), since 2026-11-30 21:05`."""
        if not self.process:
            return "another process"
        where = "" if self.here else f" of host {self.host}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.process}{where} ({self.command}), since {when}"


def began(process: int) -> str:
    """When a process started, in the system's own words; empty where there is no such process."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # the name in brackets may hold anything
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return ""
    except (OSError, IndexError):
        return ""
    with suppress(OSError):  # no /proc: macOS
        command = ["ps", "-o", "lstart=", "-p", str(process)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def owner_of(folder: Path) -> Owner | None:
    """Who works on a run now; None where nobody does."""
    try:
        with (folder / LOCK).open("rb") as file:
            return None if _taken(file, fcntl.LOCK_SH) else _noted(file) or Owner()
    except OSError:  # no lock, or another user's
        return None


def refuse_at_work(folder: Path, fixes: Iterable[Fix] = ()) -> None:
    """Raise RunError, with these fixes too, where a process works on the run: who, and since when."""
    owner = owner_of(folder)
    if owner is not None:
        raise at_work(folder, owner, fixes)


def at_work(folder: Path, owner: Owner, fixes: Iterable[Fix] = ()) -> RunError:
    """The refusal of a run that another process works on."""
    stop = (Fix(f"stop it by kill {owner.process}"),) if owner.process and owner.here else ()
    forget = () if owner.here else (Fix(f"remove {folder / LOCK} if that process has ended"),)
    return RunError(
        f"run {folder} is under way: {owner.sentence()}", fix=(Fix("wait for it"), *stop, *forget, *fixes)
    )


@contextmanager
def locked(folder: Path, fixes: Iterable[Fix] = ()) -> Iterator[None]:
    """Hold the lock of a run. Raises RunError, with these fixes too, where another process works on it.

    What a process that was killed left is taken over.
    """
    if (folder / LOCK).is_dir():
        raise RunError(f"{folder / LOCK} is a folder", expected="a run's lock", fix=Fix("remove it"))
    with (folder / LOCK).open("a+b") as file:  # never replaced, as a file with content is; NFS wants one for writing
        for left in range(TRIES - 1, -1, -1):
            if _taken(file, fcntl.LOCK_EX):
                break
            if not left:
                raise at_work(folder, _noted(file) or Owner(), fixes)
            time.sleep(PAUSE)
        before = _noted(file)
        if before is not None and not before.here:
            logger.warning(
                f"warning: run {folder} was last held by {before.sentence()}, and its lock is free: it is taken "
                f"over; if that process still works on it, stop one of the two"
            )
        _note(file, json.dumps(asdict(Owner.this())))
        try:
            yield
        finally:
            _note(file, "")


def _taken(file: BinaryIO, kind: int) -> bool:
    """Take a lock, if it is free. On a file system without locks it is, unless its owner lives."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        owner = _noted(file)
        return owner is None or not owner.may_live
    return True


def _noted(file: BinaryIO) -> Owner | None:
    """The owner that a lock names; None where it names none, or what it says makes no sense."""
    file.seek(0)
    try:
        owner = Owner(**json.loads(file.read()))
        time.localtime(owner.since)
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        return None
    known = {"process": int, "host": str, "began": str, "since": int | float, "command": str}
    return owner if all(isinstance(getattr(owner, name), kind) for name, kind in known.items()) else None


def _note(file: BinaryIO, text: str) -> None:
    """Write who holds a lock: the lock itself needs no room on the disk."""
    with suppress(OSError):
        file.truncate(0)
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
