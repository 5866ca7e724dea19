import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssl_app.commands import ui
from ssl_app.commands.ui import Settings, free_port, run
from ssl_app.config import flag
from ssl_app.errors import RunError, SettingsError
from ssl_app.tracking import Tracker, TrialRecord
from ssl_app.tracking.pages import pages_of


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def fill(tracker: Tracker, out: Path) -> None:
    for sweep in ("sweep-1", "sweep-2"):
        trial = TrialRecord("t", out / sweep / "t", {"strategy": "two-stage"}, 4, {"balanced_accuracy": 0.5})
        tracker.log_trials([trial], out / sweep)
        tracker.save_views(sweep)
        time.sleep(0.01)  # views are told apart by their milliseconds


def test_nothing_to_show_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(RunError) as refusal:
        run(Settings(out=tmp_path))
    assert str(refusal.value) == (
        f"{tmp_path} holds no mlflow.db; type ssl-app pretrain first, or --out with the folder of your runs"
    )


def test_a_port_in_use_names_the_next(out: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError) as refusal:
            run(Settings(out=out, port=port))
    assert refusal.value.sentence(flag) == (
        f"port {port} of 127.0.0.1 is in use (Address already in use); type --port {port + 1}"
    )


def test_port_0_is_a_free_one() -> None:
    assert 0 < free_port("127.0.0.1", 0) < 65536


def test_the_newest_sweeps_view_comes_first(tracker: Tracker, out: Path) -> None:
    fill(tracker, out)
    pages = pages_of(out)
    assert [title for title, _ in pages] == [
        "Label efficiency of sweep-2",
        "Trials of sweep-2",
        "runs of digits",
    ]
    for _, path in pages[:2]:
        assert re.fullmatch(r"#/experiments/\d+/runs\?viewStateShareKey=\w{32}&compareRunsMode=CHART", path)
    assert re.fullmatch(r"#/experiments/\d+/runs", pages[2][1])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_verb_and_its_server(
    out: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = []

    @contextmanager
    def serve(*_: object) -> Iterator[SimpleNamespace]:
        lives.append("began")
        try:
            yield SimpleNamespace(address="here", wait=lambda: os.kill(os.getpid(), how))
        finally:
            lives.append("ended")

    monkeypatch.setattr(ui, "serve", serve)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    run(Settings(out=out))
    assert lives == ["began", "ended"]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_what_is_served_ends_where_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "from ssl_app.commands.ui import outlived_by_none\n"
        "served = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "with outlived_by_none(served.pid):\n"
        "    print(served.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    assert group_lives(group)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 60
    while group_lives(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert not group_lives(group)


@pytest.mark.slow
def test_the_verb_prints_an_address_of_this_machine_alone_and_ends_with_its_children(
    tracker: Tracker, out: Path
) -> None:
    fill(tracker, out)
    words = [sys.executable, "-m", "ssl_app", "ui", "--out", str(out), "--port", "0"]
    verb = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert verb.stderr is not None
    lines = [verb.stderr.readline().strip() for _ in range(5)]
    address = lines[1].partition(": ")[2]
    with urllib.request.urlopen(address, timeout=10) as page:
        assert b"MLflow" in page.read()
    port = urllib.parse.urlsplit(address).port
    with pytest.raises(ConnectionRefusedError):  # what listens on all addresses listens here as well
        socket.create_connection(("127.0.0.2", port), timeout=10).close()
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(verb.pid)], capture_output=True, text=True).stdout
    verb.send_signal(signal.SIGINT)
    assert verb.wait(30) == 0
    assert verb.stderr.read() == ""
    verb.stderr.close()
    assert lines[0] == f"starting MLflow on {out / 'mlflow.db'}; this takes a few seconds"
    assert re.fullmatch(r"Label efficiency of sweep-2: http://127\.0\.0\.1:\d+/#/experiments/\d+/runs\?\S+", lines[1])
    assert [line.partition(": ")[0] for line in lines[1:]] == [
        "Label efficiency of sweep-2",
        "Trials of sweep-2",
        "runs of digits",
        "Ctrl-C ends it",
    ]
    assert children.split()
    assert not any(group_lives(int(pid)) for pid in children.split())
