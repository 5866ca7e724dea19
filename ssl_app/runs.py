"""A run is a folder: its settings before it starts, its result.json when it has finished."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ssl_app import locks
from ssl_app.errors import Change, Fix, RunError, Set, SettingsError, UserError, nearest

Say = Callable[[str], None]
OUT = Path("ssl-runs")  # where runs lie unless the user says otherwise
RESULT = "result.json"
SETTINGS = "settings.json"
ENDED = "ended.json"  # how a run ended that has no result
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # numpy's error, without a number, of a disk that is full
NUMBER = (int, float)
DATA = "data.json"
OF_PART = {"n": int, "per_class": [int], "unlabeled": int, "hash": str}
# what a file of ours holds at least, by name, and of which type; `name?` may be null or absent, a list holds a type
HELD: dict[str, dict[str, Any]] = {
    SETTINGS: {"verb": str, "settings": dict, "started?": NUMBER},
    DATA: {
        "name": str,
        "hash": str,
        "images": int,
        "pixels": {"shape": [int], "dtype": str},
        "image_size": int,
        "classes": [str],
        "split": str,
        "parts": {"*": OF_PART},
        "groups?": int,
        "group?": str,
        "copies": int,
        "notes": [str],
        "unreadable": [list],
        "scaling": dict,
        "test?": {"rows": [int], "paths": [str], "labels": [int], "groups": [int]},
    },
    "machine.json": {"arithmetic": str, "processor": str, "packages": dict, "cores?": int, "memory?": int},
    ENDED: {"status": str, "why": str, "at": NUMBER},
}
# a trial's result.json, and a row of a sweep's
OF_TRIAL: dict[str, Any] = {
    "init": str, "strategy": str, "per_class": int, "draw": int, "labels_used?": NUMBER, "steps?": NUMBER,
    "seconds?": NUMBER, "accuracy?": NUMBER, "balanced_accuracy?": NUMBER, "macro_f1?": NUMBER,
}  # fmt: skip
OF_COMPARISON = {
    "init": str, "strategy": str, "against": dict, "mean": NUMBER, "low?": NUMBER, "high?": NUMBER, "n": int,
    "per_class?": int,
}  # fmt: skip
OF_SAVED = {"factor?": NUMBER, "low?": NUMBER, "high?": NUMBER, "bound?": str, "per_class": int, "reason?": str}
OF_RESULT: dict[str, Any] = {
    "verb": str, "settings": dict, "seconds": NUMBER, "trials?": [OF_TRIAL], "pooled?": [str], "verdict?": str,
    "next?": (str, list), "comparisons?": [OF_COMPARISON], "labels_saved?": OF_SAVED,
    "labels_saved_by_budget?": [OF_SAVED],
    "unreadable?": [list],
}  # fmt: skip
LONGEST_NAME = 100  # characters; file systems take 255 bytes, and files are named after runs


@dataclass(frozen=True)
class Result:
    """What a verb leaves: result.json holds these four and the verb's own."""

    verb: str
    run: Path
    seconds: float
    settings: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object."""
        own = {
            "verb": self.verb,
            "run": str(self.run),
            "seconds": self.seconds,
            "settings": dict(self.settings),
        }
        return own | dict(self.more)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as `write_bytes` does."""
    write_bytes(path, json.dumps(content, indent=1, default=str).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader finds the old one or the new one, never half of one. Raises OSError."""
    with draft(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A free path beside `path`: the file or folder that the block makes there takes the place of `path` at its end.

    It vanishes where the block fails; after a kill `clear_half_made` finds it. A file and its name are forced to the
    disk, and so is a folder's name, but not its content. A folder's old content is moved away first, since no system
    replaces a folder in one step. Raises OSError, which names `path` where it names no other file.
    """
    temporary = draft_path(path)
    try:
        yield temporary
        if temporary.is_file():
            sync(temporary)
        with _moved_away(path) if temporary.is_dir() else nullcontext():
            os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        name_the_disk(error)
        if error.filename is None or str(error.filename).startswith(str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the disk within name the file: those of an open file's `write` do not."""
    try:
        yield
    except OSError as error:
        name_the_disk(error)
        error.filename = error.filename or str(path)
        raise


def name_the_disk(error: OSError) -> None:
    """Give an error of numpy's that a full disk raises its number, which it lacks."""
    if error.errno is None and CUT_SHORT.search(str(error)):
        error.errno, error.strerror = errno.ENOSPC, os.strerror(errno.ENOSPC)


@contextmanager
def _moved_away(folder: Path) -> Iterator[None]:
    """Free a folder's name for the block; what lay there is removed after it, or comes back where it fails."""
    if not folder.is_dir():
        yield
        return
    old = draft_path(folder)
    os.replace(folder, old)
    try:
        yield
    except BaseException:
        os.replace(old, folder)
        raise
    _remove(old)


def draft_path(path: Path) -> Path:
    """Where a file or folder is made before it takes its place; `clear_half_made` finds it after a kill."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_place()}{os.urandom(4).hex()}")


def sync(path: Path) -> None:
    """Force a file's content, or the names in a folder, to the disk: without that no rename outlives a loss of power.

    Raises OSError for a file; some file systems refuse to do this for a folder, which is then left to them.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():
            raise


def read_json(path: Path, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of a JSON file of ours, an object. Raises RunError where it is damaged, or lacks what it must hold.

    `held` are names and their types (a type, or several); by default those of a file of that name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error})", expected="a file that ssl-app wrote") from error
    wrong = wrong_in(content, HELD.get(path.name, {}) if held is None else held)
    if wrong is not None:
        raise RunError(f"{path} cannot be used ({wrong})", expected="a file that ssl-app wrote")
    found: dict[str, Any] = content
    return found


def read_result(folder: Path) -> dict[str, Any]:
    """result.json of a finished run. Raises RunError where it is damaged."""
    return read_json(folder / RESULT, OF_RESULT)


def wrong_in(content: Any, held: Mapping[str, Any]) -> str | None:
    """What of a JSON value is not an object that holds these names with values of these types; None where all is."""
    if not isinstance(content, dict):
        return f"it holds {_kind(content)}, not an object"
    if set(held) == {"*"}:  # names of the file's own, each with the same
        held = dict.fromkeys(content, held["*"])
    for name, types in held.items():
        optional, name = name.endswith("?"), name.removesuffix("?")
        if optional and content.get(name) is None:
            continue
        if name not in content:
            return f"it holds no {name}"
        wrong = _wrong_value(content[name], types)
        if wrong is not None:
            return f"its {name} {wrong}"
    return None


def _wrong_value(value: Any, types: Any) -> str | None:
    """What of a value is not of a type: of one of several, an object that holds names, or a list of one type."""
    if isinstance(types, dict):
        wrong = wrong_in(value, types)
        return None if wrong is None else f"is not as it should be: {wrong}"
    if isinstance(types, list):
        if not isinstance(value, list):
            return f"is {_kind(value)}"
        found = (_wrong_value(one, types[0]) for one in value)
        return next((f"holds an item that {wrong}" for wrong in found if wrong is not None), None)
    if not isinstance(value, types) or (isinstance(value, bool) and types in (int, NUMBER)):
        return f"is {_kind(value)}"
    return None


def _kind(value: Any) -> str:
    """A JSON value's kind in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def unusable(name: str) -> str | None:
    """Why text cannot be part of the name of a run or of the folder of runs; None where it can."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "it holds a line break or another control character"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it holds bytes that are no UTF-8"
    return None


def shown(name: str) -> str:
    """A name in quotes, for a message of one line: what cannot be shown is escaped."""
    return f"'{name.encode('unicode_escape', 'backslashreplace').decode()}'" if unusable(name) else f"'{name}'"


def prepare_out(out: Path) -> None:
    """Make the folder of the runs.

    Raises RunError where a file lies in its place, it cannot be written, or no database can lie under its name.
    """
    reason = unusable(str(out.absolute()))
    if reason is not None:
        raise RunError(f"{shown(str(out))} cannot be the folder of runs ({reason})", fix=Change("out"))
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file", expected="a folder, or a name that is free", fix=Change("out"))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out} cannot be made ({error.strerror})", fix=Change("out")) from error


def prepare(out: Path, name: str | None, verb: str) -> None:
    """Make the folder of the runs, and refuse a name that cannot be used. Raises RunError."""
    prepare_out(out)
    if name is None:
        return
    odd = unusable(name) is not None or name.startswith((".", "-"))
    if Path(name).name != name or odd or len(os.fsencode(name)) > LONGEST_NAME:
        raise RunError(
            f"{shown(name[:LONGEST_NAME])} cannot be a run's name",
            expected=f"at most {LONGEST_NAME} letters, digits and -",
            fix=Change("name"),
        )
    taken = out / name
    if not taken.exists() or (taken.is_dir() and not any(taken.iterdir())):
        return
    locks.refuse_at_work(taken, (Change("name"),))
    fixes: tuple[Fix, ...] = (Change("name"),)
    if (taken / SETTINGS).is_file() and not finished(taken):
        same = read_json(taken / SETTINGS).get("verb") == verb == "pretrain"
        fixes = (Set("resume", name) if same else Fix("remove it (it has not finished)"), Change("name"))
    raise RunError(f"run {taken} exists already", fix=fixes)


def check_output(path: Path | None, kinds: tuple[str, ...] = ()) -> None:
    """Refuse a file to write that cannot be written, lies there already, or is of no known kind.

    Raises RunError, SettingsError.
    """
    if path is None:
        return
    if path.is_dir():
        raise RunError(f"{path} is a folder", expected="a file's name", fix=Change("output"))
    if path.exists():
        raise RunError(f"{path} exists already", fix=(Fix("remove it"), Change("output")))
    if not path.parent.is_dir():
        raise RunError(f"{path} lies in no folder", fix=(Fix(f"make {path.parent} first"), Change("output")))
    if kinds and path.suffix not in kinds:
        raise SettingsError(f"{path} is of no known kind", expected=" or ".join(kinds), fix=Change("output"))


@contextmanager
def whole(folder: Path, keep: str = RESULT) -> Iterator[None]:
    """Take a folder away again where a mistake, a full disk or a stop ends what is inside before `keep` is there.

    The same command, with the same name, then works.
    """
    try:
        yield
    except BaseException as error:
        ours = isinstance(error, Exception) and not isinstance(error, UserError | OSError)
        if not ours and not (folder / keep).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def new_run(out: Path, name: str | None, verb: str, settings: Mapping[str, Any]) -> Path:
    """Make a run's folder with its settings in it, in one step. Raises RunError where the name is taken."""
    prepare(out, name, verb)
    clear_half_made(out)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    tries = [name] if name else [f"{verb}-{stamp}"] + [f"{verb}-{stamp}-{n}" for n in range(2, 100)]
    folder = draft_path(out / verb)
    content = {"verb": verb, "settings": dict(settings), "started": time.time()}
    try:
        folder.mkdir()
        with whole(folder, keep=SETTINGS):
            write_json(folder / SETTINGS, content)
    except OSError as error:
        error.filename = str(out)
        raise
    for candidate in tries:
        try:
            os.rename(folder, out / candidate)  # fails where a folder with content lies there
        except OSError:
            continue
        sync(out)
        return out / candidate
    _remove(folder)
    raise RunError(f"run {out / tries[-1]} was made by another process at this moment", fix=Change("name"))


HALF_MADE = re.compile(r"\..+\.(?P<process>\d+)-(?P<place>[0-9a-f]{4})[0-9a-f]{8}")
DAY = 86_400.0  # seconds


@cache
def _place() -> str:
    """Where a process number means this process: the machine, since it was started, and its container."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.blake2b(" ".join(found).encode(), digest_size=2).hexdigest()


def clear_half_made(folder: Path) -> None:
    """Take away the drafts, lying in a folder or in those of a run, of processes that were killed while writing.

    Whether a process of another machine, or of another container, still lives is not seen from here: its drafts go
    when nothing in them has changed for a day.
    """
    for path in [*folder.glob(".*"), *folder.glob("draws/.*"), *folder.glob("trials/*/.*")]:
        found = HALF_MADE.fullmatch(path.name)
        if found and (not _lives(int(found["process"])) if found["place"] == _place() else _old(path)):
            _remove(path)


def _old(path: Path) -> bool:
    """Whether nothing in a draft has changed for a day."""
    try:
        newest = max(one.stat().st_mtime for one in (path, *(path.rglob("*") if path.is_dir() else ())))
    except OSError:  # its owner is at work
        return False
    return bool(time.time() - newest > DAY)


def _remove(path: Path) -> None:
    """Take a file or a folder away, if that can be: a read-only disk refuses it even of what is not there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def finished(folder: Path) -> bool:
    """Whether a run came to its end."""
    return (folder / RESULT).is_file()


def started(folder: Path) -> float:
    """When a run began, in seconds since 1970. Raises RunError where it is none."""
    return float(read_json(folder / SETTINGS).get("started", 0.0))


def find_run(out: Path, name: str) -> Path:
    """The folder of a run given by name or by path. Raises RunError with the nearest name."""
    for folder in (Path(name), out / name):
        if (folder / SETTINGS).is_file():
            return folder
    if not out.is_dir():
        raise RunError(f"no run '{name}', because {out} is no folder", fix=Set("out", "the folder of your runs"))
    known = [path.name for path in runs_of(out)]
    raise RunError(f"no run '{name}' in {out}{nearest(name, known) if known else '; it holds no runs yet'}")


def runs_of(out: Path, verb: str | None = None) -> list[Path]:
    """Run folders in `out`, oldest first; of one verb, or all."""
    found = []
    for path in out.glob(f"*/{SETTINGS}"):
        if path.parent.name.startswith("."):
            continue
        content = read_json(path)
        if verb is None or content.get("verb") == verb:
            found.append((content.get("started", 0.0), path.parent))
    return [folder for _, folder in sorted(found)]


def newest_finished(out: Path, verb: str) -> Path | None:
    """The newest run of a verb that finished, or None."""
    done = [folder for folder in runs_of(out, verb) if finished(folder)]
    return done[-1] if done else None
