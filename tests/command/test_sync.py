"""ssl-app sync: says in words what it sent, and that a second time there is nothing to send."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from ssl_app.tracking import open_tracker


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run in its store, and the URI of an empty store."""
    folder = tmp_path_factory.mktemp("sync")
    out = folder / "runs"
    open_tracker(out, None, "ssl-app")
    (folder / "remote").mkdir()
    shutil.copy(out / "mlflow.db", folder / "remote" / "mlflow.db")
    run = open_tracker(out, None, "ssl-app").start("first", out / "first", {"lr": 1})
    for epoch in range(3):
        run.metrics({"loss": 1.0}, epoch)
    run.finish()
    return out, f"sqlite:///{folder / 'remote' / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MLFLOW_HTTP") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)


def test_it_says_what_it_sent_and_then_that_there_is_nothing_to_send(stores: tuple[Path, str], ssl) -> None:
    out, remote = stores
    assert ssl("sync", "--out", out).error == (
        f"no run in {out} was meant for another MLflow store; type --tracking-uri TRACKING_URI"
    )
    first = ssl("sync", "--out", out, "--tracking-uri", remote)
    assert (first.code, first.err.strip()) == (0, f"{remote}: sent 1 run, 3 metrics")
    second = ssl("sync", "--out", out, "--json")
    assert second.err.strip() == f"{remote}: nothing to send"
    assert second.result["sent"] == [{"where": remote, "runs": 0, "metrics": 0, "files": 0, "models": 0, "views": 0}]


def test_a_server_that_does_not_answer_is_an_error(stores: tuple[Path, str], ssl) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    answer = ssl("sync", "--out", stores[0], "--tracking-uri", nobody)
    assert answer.error == f"{nobody} takes nothing now (connection refused); type the same again when it answers"


def test_a_folder_without_runs_says_what_to_type(tmp_path: Path, ssl) -> None:
    assert ssl("sync", "--out", tmp_path).error == (
        f"{tmp_path} holds no mlflow.db; type ssl-app pretrain, or another --out"
    )
