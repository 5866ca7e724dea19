"""A real MLflow server that is killed in the middle of a run and started again: nothing is lost or doubled."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ssl_app.cli import main
from ssl_app.commands.ui import free_port
from ssl_app.tracking import TrialRecord, background, open_tracker

pytestmark = pytest.mark.slow
Read = Callable[..., dict[str, dict[str, Any]]]


class Server:
    """`mlflow server`, with artifacts that go through it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port("127.0.0.1", 0)
        self.uri = f"http://127.0.0.1:{self.port}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "kept")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < end, (self.folder / "log.txt").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(template, folder / "mlflow.db")
    server = Server(folder)
    server.start()
    yield server
    server.kill()


def synced(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(["sync", "--out", str(out)])
    assert end.value.code == 0
    return capsys.readouterr().err


def test_a_server_killed_in_the_middle_and_started_again(
    server: Server,
    out: Path,
    client: MlflowClient,
    content: Read,
    said: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracker = open_tracker(out, server.uri, "digits")
    run = tracker.start("first", out / "first", {"lr": 1})
    (out / "first" / "weights.bin").write_bytes(os.urandom(100_000))
    run.data("scans/", "abc", "training")
    for epoch in range(6):
        if epoch == 3:
            assert tracker.sender is not None
            tracker.sender.flush(30.0)
            assert len(content(server.client)["first"]["metrics"]["loss"]) == 3
            server.kill()
        run.metrics({"loss": 3.0 - epoch, "lost": float("nan")}, epoch)
    run.artifact(out / "first" / "weights.bin")
    trial = TrialRecord("t", out / "sweep" / "t", {"strategy": "x", "draw": "0"}, 4, {"balanced_accuracy": 0.5})
    tracker.log_trials([trial], out / "sweep")
    tracker.save_views("sweep")
    run.finish()
    background.close_all()
    (line,) = said
    assert line.startswith(f"tracking: {server.uri} takes nothing now (")
    assert line.endswith(f"; the run goes on, and ssl-app sync sends what is missing of {out}")

    server.start()
    assert f"{server.uri}: sent 3 runs, 9 metrics, 1 file, 3 views" in synced(out, capsys)
    assert content(server.client) == content(client)
    assert [step for step, *_ in content(server.client)["first"]["metrics"]["loss"]] == [0, 1, 2, 3, 4, 5]
    assert content(server.client)["first"]["state"][0] == "FINISHED"
    assert f"{server.uri}: nothing to send" in synced(out, capsys)
