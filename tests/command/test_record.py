"""commands.record: however a run ends, its folder, its lock and its tracking end as they should."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssl_app import config, runs
from ssl_app.commands import RunSpec, record
from ssl_app.errors import DataError, RunError, SettingsError
from ssl_app.tracking import Nowhere
from ssl_app.training.signals import Stopped

OURS = ZeroDivisionError("a mistake of ours")
THEIRS = DataError("a mistake of the user")
FULL = OSError(errno.ENOSPC, "No space left on device")
STOPS = [Stopped(15), KeyboardInterrupt()]


class Tracked:
    """Notes how a run ends in tracking, and what is written on it."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self, status: str = "FINISHED") -> None:
        self.statuses.append(status)


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Tracked:
    """What runs are tracked by."""
    tracked = Tracked()
    monkeypatch.setattr(Nowhere, "start", lambda *about: tracked)
    return tracked


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return RunSpec("evaluate", tmp_path / "runs", "a", {"seed": 0}, keep="kept.txt")


@pytest.fixture
def folder(spec: RunSpec) -> Path:
    """Of the run, once it is made."""
    return spec.out / "a"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_run_leaves_its_settings_and_its_result(spec: RunSpec, folder: Path, tracked: Tracked) -> None:
    with record(spec) as run:
        assert run.folder == folder
        assert names(folder) == ["settings.json"]
        run.more = {"n": 3}
    assert names(folder) == ["result.json", "settings.json"]
    assert json.loads((folder / "result.json").read_text()) == run.result().to_json()
    assert run.result() == run.result(), "the clock has stopped"
    assert run.result().to_json() == {
        "verb": "evaluate", "run": str(folder), "seconds": run.seconds, "settings": {"seed": 0}, "n": 3,
    }  # fmt: skip
    assert tracked.statuses == ["FINISHED"]


@pytest.mark.parametrize("error", [THEIRS, FULL, *STOPS], ids=repr)
def test_a_failure_leaves_no_folder_and_the_same_command_works(
    error: BaseException, spec: RunSpec, folder: Path, tracked: Tracked
) -> None:
    def fail() -> None:
        with record(spec) as run:
            (run.folder / "half.txt").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(spec.out) == []
    with record(spec):
        pass
    assert names(folder) == ["result.json", "settings.json"]


@pytest.mark.parametrize("error", [THEIRS, FULL, *STOPS], ids=repr)
def test_a_folder_that_holds_something_to_go_on_from_is_kept(
    error: BaseException, spec: RunSpec, folder: Path, tracked: Tracked
) -> None:
    def fail() -> None:
        with record(spec) as run:
            (run.folder / spec.keep).touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(folder) == ["ended.json", "kept.txt", "settings.json"]
    with pytest.raises(DataError), record(spec, folder):
        raise THEIRS
    assert names(folder) == ["ended.json", "kept.txt", "settings.json"], "nor is one that was there before taken away"
    ended = json.loads((folder / "ended.json").read_text())
    assert (ended["status"], ended["why"]) == ("FAILED", THEIRS.sentence(config.flag))
    with record(spec, folder):
        assert names(folder) == ["kept.txt", "settings.json"], "how it ended before says nothing of this time"


def test_a_mistake_of_ours_leaves_all_there_is_to_look_at(spec: RunSpec, folder: Path, tracked: Tracked) -> None:
    with pytest.raises(ZeroDivisionError), record(spec):
        raise OURS
    assert names(folder) == ["ended.json", "settings.json"]
    assert tracked.statuses == ["FAILED"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(THEIRS, "FAILED"), (FULL, "FAILED"), *((stop, "KILLED") for stop in STOPS)],
    ids=repr,
)
def test_tracking_ends_as_the_run_did(error: BaseException, status: str, spec: RunSpec, tracked: Tracked) -> None:
    with pytest.raises(type(error)), record(spec):
        raise error
    assert tracked.statuses == [status]


def test_a_tracking_address_that_cannot_be_one_makes_no_folder(tmp_path: Path) -> None:
    spec = RunSpec("evaluate", tmp_path / "runs", "a", {}, tracking_uri="nonsense://here")
    with pytest.raises(SettingsError, match="nonsense"), record(spec):
        pass
    assert not (tmp_path / "runs" / "a").exists()


# another process at the same run

HOLD = """
import sys
from pathlib import Path
from ssl_app.commands import RunSpec, record
folder = Path(sys.argv[1])
with record(RunSpec("pretrain", folder.parent, folder.name, {}), folder):
    print("under way", flush=True)
    sys.stdin.read()
"""
Hold = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Start another process that is at a run until it is ended: hold(folder)."""
    processes = []

    def start(folder: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_of_two_processes_at_one_run_the_second_is_refused(spec: RunSpec, hold: Hold, tracked: Tracked) -> None:
    folder = runs.new_run(spec.out, "a", "pretrain", {})
    other = hold(folder)
    with (
        pytest.raises(RunError, match=rf"run {folder} is under way: process {other.pid} \(-c .*\), since 20"),
        record(spec, folder),
    ):
        pass
    assert names(folder) == ["settings.json"]
    assert tracked.statuses == [], "it is the first that is tracked"
    other.communicate("")
    assert other.returncode == 0
    assert names(folder) == ["result.json", "settings.json"], "the first has gone on"
    with record(spec, folder):
        pass


def test_a_killed_process_holds_no_run(spec: RunSpec, hold: Hold) -> None:
    folder = runs.new_run(spec.out, "a", "pretrain", {})
    other = hold(folder)
    other.kill()
    other.wait()
    with record(spec, folder):
        pass
    assert (folder / "result.json").is_file()


def test_a_pretraining_that_is_under_way_is_not_resumed_beside_itself(
    ssl, tiny, trained, hold: Hold, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "p"
    shutil.copytree(trained.out, tmp_path / "runs")
    (folder / "result.json").unlink()
    before = names(folder)
    other = hold(folder)
    words = [("pretrain", "--resume", "p"), ("finetune", "--init", "p"), ("evaluate", "p"), ("export", "p")]
    words += [("label", "p"), ("clusters", "p"), ("predict", "p", "--data", trained.data), ("suggest", "p")]
    for typed in words:
        error = ssl(*typed, "--out", tmp_path / "runs").error
        assert error.startswith(f"run {folder} is under way: process {other.pid} (-c "), typed
        assert f"; wait for it, or stop it by kill {other.pid}" in error, typed
    assert names(folder) == before
