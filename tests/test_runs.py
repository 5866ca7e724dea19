"""Run folders: what a kill leaves behind is found and taken away, and nothing of those who are still at work."""

import multiprocessing
import re
from pathlib import Path

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
    mine = runs.draft_of(tmp_path / "probe-20261121-101500")
    assert mine != runs.draft_of(tmp_path / "probe-20261121-101500")
    mine.mkdir()
    file = runs.draft_of(tmp_path / "result.json")
    file.touch()
    theirs = []
    for token in ("12345678", "0badcafe"):  # all digits too
        theirs.append(mine.with_name(re.sub(r"\.\d+-[0-9a-f]{8}$", f".{dead}-{token}", mine.name)))
        theirs[-1].mkdir()
    (theirs[0] / "settings.json").touch()
    (tmp_path / ".lock").touch()
    runs.clear_half_made(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, file.name, ".lock"])


def test_a_run_is_made_while_another_is(tmp_path: Path) -> None:
    runs.draft_of(tmp_path / "probe").mkdir()  # as another process has it at that moment
    assert runs.new_run(tmp_path, "a", "probe", {}) == tmp_path / "a"
    assert runs.read_json(tmp_path / "a" / runs.SETTINGS)["verb"] == "probe"
