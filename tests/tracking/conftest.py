import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ssl_app.environment import prepare_environment
from ssl_app.tracking import Tracker, open_tracker
from ssl_app.tracking.store import make_database

prepare_environment()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database; making one takes MLflow 3 to 7 seconds, copying it milliseconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    make_database(path, path.with_name("artifacts").as_uri())
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and "TELEMETRY" not in name and "LOGGING" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the pauses between tries are MLflow's to test
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tracker(out: Path, said: list[str]) -> Tracker:
    return open_tracker(out, None, "digits", said.append)


@pytest.fixture
def client(out: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")


class Server:
    """A real MLflow server on a loopback port, with a door: while that is shut every request gets a 503."""

    def __init__(self, database: Path) -> None:
        from mlflow.server import app, handlers
        from werkzeug.serving import make_server

        uri, artifacts = f"sqlite:///{database}", database.with_name("artifacts").as_uri()
        handlers._tracking_store = handlers._model_registry_store = None
        handlers.initialize_backend_stores(uri, default_artifact_root=artifacts)
        self.open = True
        self.requests = 0

        def door(environ: dict[str, str], start: Callable[..., object]) -> object:
            self.requests += 1
            if self.open:
                return app.wsgi_app(environ, start)
            start("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"shut"]

        self.server = make_server("127.0.0.1", 0, door, threaded=True)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        self.client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(template: Path, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    database = tmp_path / "server" / "mlflow.db"
    shutil.copy(template, database)
    server = Server(database)
    yield server
    server.close()


@pytest.fixture
def nobody() -> str:
    """The address of a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
