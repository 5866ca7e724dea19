"""One process at a time works on a run: who holds it is said, and what the dead left is taken over."""

import errno
import fcntl
import json
import os
import socket
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ssl_app import locks
from ssl_app.errors import RunError
from ssl_app.locks import Owner, locked, owner_of, refuse_at_work


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


def note(folder: Path, owner: Owner) -> None:
    """Leave a lock as a process that was killed does."""
    (folder / locks.LOCK).write_text(json.dumps(asdict(owner)))


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def dead() -> Owner:
    """A process that has ended: no process of ours has so high a number."""
    return replace(Owner.this(), process=2**22 + 1)


def reused() -> Owner:
    """A process that has ended, and whose number another one, which lives, has now."""
    return replace(Owner.this(), began="before this machine's last start 1")


def elsewhere() -> Owner:
    return replace(Owner.this(), host="gpu-2", process=7)


def test_the_lock_of_a_run_names_its_process(folder: Path) -> None:
    assert owner_of(folder) is None
    with locked(folder):
        owner = owner_of(folder)
        assert owner is not None
        assert (owner.process, owner.host) == (os.getpid(), socket.gethostname())
        assert owner.began == locks.began(os.getpid()) != ""
        refused = f"run {folder} is under way: process {os.getpid()} (.*), since 20.*wait for it, or stop it by kill"
        with pytest.raises(RunError, match=refused), locked(folder):
            pass
        with pytest.raises(RunError, match=refused):
            refuse_at_work(folder)
    assert owner_of(folder) is None
    refuse_at_work(folder)
    assert (folder / locks.LOCK).read_bytes() == b""


@pytest.mark.parametrize("left", [dead, reused])
def test_what_the_dead_left_is_taken_over(left, folder: Path, messages: list[str]) -> None:
    note(folder, left())
    with locked(folder):
        owner = owner_of(folder)
        assert owner is not None
        assert owner.process == os.getpid()
    assert messages == []


@pytest.mark.parametrize("left", [dead, reused])
def test_without_locks_of_the_system_the_owner_decides(left, folder: Path, without_locks: None) -> None:
    note(folder, left())
    with locked(folder):
        assert owner_of(folder) is not None
        with pytest.raises(RunError, match="under way"), locked(folder):
            pass
    assert owner_of(folder) is None


def test_a_lock_of_another_machine_is_said(folder: Path, messages: list[str]) -> None:
    note(folder, elsewhere())
    with locked(folder):
        pass
    assert len(messages) == 1
    assert messages[0].startswith(f"warning: run {folder} was last held by process 7 of host gpu-2 (")


def test_nobody_knows_whether_a_process_of_another_machine_lives(folder: Path, without_locks: None) -> None:
    note(folder, elsewhere())
    with pytest.raises(RunError, match=rf"process 7 of host gpu-2 .*, or remove {folder}/.lock if that") as refused:
        refuse_at_work(folder)
    assert "stop it by kill" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 3}', "\0\0"])
def test_a_lock_that_says_nothing_is_a_lock_all_the_same(content: str, folder: Path) -> None:
    (folder / locks.LOCK).write_text(content)
    assert owner_of(folder) is None
    with (folder / locks.LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(RunError, match=r"is under way: another process; wait for it$"), locked(folder):
            pass


def test_a_full_disk_takes_no_lock_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_note", lambda file, text: None)
    with locked(folder):
        owner = owner_of(folder)
        assert owner is not None
        assert owner.sentence() == "another process"


@pytest.mark.parametrize(
    "content",
    [
        '{"process": 3, "host": "", "began": "", "since": 1e300, "command": ""}',
        '{"process": 3, "host": "", "began": "", "since": "noon", "command": ""}',
        '{"process": "three", "host": "", "began": "", "since": 1.0, "command": ""}',
        '{"process": 3, "host": 7, "began": "", "since": 1.0, "command": []}',
        "[" * 100_000,
    ],
    ids=["a time that no clock shows", "a word for a time", "a word for a number", "numbers for names", "deep"],
)
def test_a_lock_that_makes_no_sense_is_a_lock_all_the_same(content: str, folder: Path) -> None:
    """While it is held, it is said of another process; when it is free, it is taken over without a word."""
    with locked(folder):
        (folder / locks.LOCK).write_text(content)
        with pytest.raises(RunError, match="is under way: another process"):
            refuse_at_work(folder)
    (folder / locks.LOCK).write_text(content)
    with locked(folder):
        assert owner_of(folder) is not None
    assert owner_of(folder) is None


def test_without_locks_of_the_system_a_note_without_sense_holds_nobody_up(folder: Path, without_locks: None) -> None:
    (folder / locks.LOCK).write_text('{"process": "x", "host": "", "began": "", "since": 1.0, "command": ""}')
    assert owner_of(folder) is None
    with locked(folder):
        pass


def test_a_folder_in_the_place_of_a_lock_is_named(folder: Path) -> None:
    (folder / locks.LOCK).mkdir()
    with (
        pytest.raises(RunError, match=f"{folder / locks.LOCK} is a folder; expected a run's lock; remove it"),
        locked(folder),
    ):
        pass


def test_a_link_to_nowhere_in_the_place_of_a_lock_is_one(folder: Path) -> None:
    """As of a run that was copied from another disk with its links."""
    (folder / locks.LOCK).symlink_to(folder.parent / "gone")
    with locked(folder):
        assert owner_of(folder) is not None
