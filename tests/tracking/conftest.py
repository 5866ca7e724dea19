import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ssl_app.environment import prepare_environment
from ssl_app.tracking import Tracker, background, open_tracker
from ssl_app.tracking.store import make_database

prepare_environment()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database; making one takes MLflow 3 to 7 seconds, copying it milliseconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    make_database(path, path.with_name("artifacts").as_uri(), ())
    return path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and "TELEMETRY" not in name and "LOGGING" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    background.close_all(0.0)


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return folder


@pytest.fixture
def remote(template: Path, tmp_path: Path) -> str:
    """The URI of another store, as empty as `out`."""
    folder = tmp_path / "remote"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What log messages tell people."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("ssl_app.tracking"), Keep()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def tracker(out: Path, said: list[str]) -> Tracker:
    return open_tracker(out, None, "digits")


@pytest.fixture
def client(out: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")


@pytest.fixture
def there(remote: str) -> MlflowClient:
    return MlflowClient(tracking_uri=remote)


Content = dict[str, dict[str, object]]


@pytest.fixture
def content() -> Callable[..., Content]:
    """All that a store has of the runs of `digits`, or of one, by their names, which must be different."""

    def read(client: MlflowClient, name: str | None = None) -> Content:
        experiment = client.get_experiment_by_name("digits")
        if experiment is None:
            return {}
        runs = client.search_runs([experiment.experiment_id])
        assert len({run.info.run_name for run in runs}) == len(runs)
        chosen = [run for run in runs if name in (None, run.info.run_name)]
        return {run.info.run_name: all_of(client, run.info.run_id) for run in chosen}

    return read


def all_of(client: MlflowClient, run_id: str) -> dict[str, object]:
    run = client.get_run(run_id)
    history = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    return {
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if key != "ssl_app.remote"},
        "metrics": {key: [(m.step, m.timestamp, repr(m.value)) for m in points] for key, points in history.items()},
        "inputs": [
            (each.dataset.name, each.dataset.digest, each.tags[0].value) for each in run.inputs.dataset_inputs
        ],
        "files": sorted(files_of(client, run_id, None)),
        "state": (run.info.status, run.info.start_time, run.info.end_time if run.info.status != "RUNNING" else 0),
    }


def files_of(client: MlflowClient, run_id: str, folder: str | None) -> Iterator[tuple[str, int]]:
    for each in client.list_artifacts(run_id, folder):
        if each.is_dir:
            yield from files_of(client, run_id, each.path)
        else:
            yield each.path, each.file_size


@pytest.fixture
def nobody() -> str:
    """The address of a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def too_late() -> Iterator[str]:
    """The address of a server that takes every call and answers none."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)  # the kernel takes the connections; nobody reads from them
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
