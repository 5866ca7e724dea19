"""Files and folders appear whole; what a kill leaves behind is found, and nothing of those who are still at work."""

import errno
import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_app import runs


def ended() -> int:
    """The number of a process that is no more."""
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    assert process.pid is not None
    return process.pid


def test_drafts_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = ended()
    mine = runs.draft_path(tmp_path / "evaluate-20261121-101500")
    assert mine != runs.draft_path(tmp_path / "evaluate-20261121-101500")
    mine.mkdir()
    file = runs.draft_path(tmp_path / "result.json")
    file.touch()
    theirs = []
    for token in ("12345678", "0badcafe"):  # all digits too
        theirs.append(mine.with_name(re.sub(r"\.\d+-(....)[0-9a-f]{8}$", rf".{dead}-\g<1>{token}", mine.name)))
        theirs[-1].mkdir()
    (theirs[0] / "settings.json").touch()
    (tmp_path / ".lock").touch()
    runs.clear_half_made(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, file.name, ".lock"])


def test_drafts_of_another_machine_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes cannot be seen from here: a number that is free here may be a writer there."""
    with monkeypatch.context() as there:
        there.setattr(runs, "_place", lambda: "0000")
        written, left = (runs.draft_path(tmp_path / name) for name in ("features.npy", "old.npy"))
    written, left = (path.with_name(re.sub(r"\.\d+-", f".{ended()}-", path.name)) for path in (written, left))
    for path in (written, left):
        path.touch()
    os.utime(left, (0, 0))
    runs.clear_half_made(tmp_path)
    assert list(tmp_path.iterdir()) == [written]


def test_a_run_is_made_while_another_is(tmp_path: Path) -> None:
    runs.draft_path(tmp_path / "evaluate").mkdir()  # as another process has it at that moment
    assert runs.new_run(tmp_path, "a", "evaluate", {}) == tmp_path / "a"
    assert runs.read_json(tmp_path / "a" / runs.SETTINGS)["verb"] == "evaluate"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with runs.draft(path) as draft, draft.open("w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_draft_that_fails_vanishes_and_the_old_stays(
    tmp_path: Path, make: Callable[[Path], None], error: type[BaseException]
) -> None:
    def fail(path: Path) -> None:
        with runs.draft(path) as draft:
            make(draft)
            raise error

    with pytest.raises(error):
        fail(tmp_path / "new")
    assert names(tmp_path) == []
    (tmp_path / "old").write_text("old")
    with pytest.raises(error):
        fail(tmp_path / "old")
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def make_page(path: Path, content: str) -> None:
    with runs.draft(path) as draft:
        draft.mkdir()
        (draft / content).touch()


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    for content in ("old", "new"):
        make_page(tmp_path / "page", content)
        assert names(tmp_path / "page") == [content]
    assert names(tmp_path) == ["page"]


def test_a_folder_that_cannot_be_replaced_is_there_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_page(tmp_path / "page", "old")
    replace = os.replace

    def refuse_the_new(source: Path, target: Path) -> None:
        if (Path(source) / "new").exists():
            raise OSError(errno.EIO, "Input/output error", str(source))
        replace(source, target)

    monkeypatch.setattr("os.replace", refuse_the_new)
    with pytest.raises(OSError, match=f"'{tmp_path / 'page'}'"):
        make_page(tmp_path / "page", "new")
    assert names(tmp_path) == ["page"]
    assert names(tmp_path / "page") == ["old"]


def test_an_error_names_the_file_and_not_its_draft(tmp_path: Path) -> None:
    for error in (lambda _: OSError(errno.ENOSPC, "full"), lambda draft: OSError(errno.EACCES, "closed", str(draft))):
        with pytest.raises(OSError, match=r"full|closed") as raised, runs.draft(tmp_path / "a") as draft:
            raise error(draft)
        assert raised.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="other") as raised, runs.draft(tmp_path / "a"):
        raise OSError(errno.EACCES, "closed", "other")
    assert raised.value.filename == "other"


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    kinds = {tmp_path.stat().st_ino: "folder"}
    monkeypatch.setattr("os.fsync", lambda f: (done.append(kinds.get(os.fstat(f).st_ino, "file")), fsync(f)))
    monkeypatch.setattr("os.replace", lambda *paths: (done.append("name"), replace(*paths)))
    runs.write_json(tmp_path / "a.json", {"a": 1})
    assert done == ["file", "name", "folder"]
    assert runs.read_json(tmp_path / "a.json") == {"a": 1}


def test_on_a_read_only_disk_the_file_is_named_and_not_its_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To remove what is not there is refused as well, by the name of the draft."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as raised:
        runs.write_bytes(tmp_path / "report.html", b"page")
    assert raised.value.filename == str(tmp_path / "report.html")
