"""MlflowTracker: runs in MLflow; a server that falls silent costs a run one line of warning."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.errors import RunError, SettingsError
from ssl_app.tracking import views
from ssl_app.tracking.base import Run, Say, TrialRecord
from ssl_app.tracking.delivery import KEY, TAG, VALUE, Delivery
from ssl_app.tracking.journal import Record
from ssl_app.tracking.outbox import Outbox
from ssl_app.tracking.store import Store, find_store, reason, without_password

PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


class MlflowTracker:
    """Runs, trials and views in one experiment of one store."""

    def __init__(self, out: Path, store: Store, experiment: str, say: Say) -> None:
        self.out = out
        self.store = store
        self.delivery = Delivery(store, experiment)
        self.outbox = Outbox(self.delivery, say)

    @classmethod
    def open(cls, out: Path, uri: str | None, experiment: str, say: Say) -> "MlflowTracker":
        """Make what is missing, and send what earlier runs in `out` could not."""
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        store = find_store(out, uri)
        try:
            tracker = cls(out, store, experiment, say)
            if not store.uri.startswith(("http", "databricks")):  # a server may be silent, a database must answer
                tracker.delivery.experiment_id()
        except ImportError as error:
            raise SettingsError(
                f"--tracking-uri {store.where} needs a driver ({error}); "
                f"type pip install {error.name}, or give an MLflow server's http address"
            ) from error
        except (MlflowException, SQLAlchemyError) as error:
            cure = "move it away, or type another --out or --tracking-uri none"
            if "schema" in str(error):
                cure = f"save a copy and type mlflow db upgrade {without_password(store.uri)}"
            raise RunError(f"{store.where} cannot be used ({reason(error)}); {cure}") from error
        tracker.outbox.replay_all(out)
        return tracker

    @property
    def where(self) -> str:
        """In words for people, without passwords."""
        return f"{self.store.where} ({self.store.hint})" if self.store.hint else self.store.where

    def start(
        self, name: str, folder: Path, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> Run:
        """Start a run, or go on with the one that `folder` was kept as before."""
        record = {
            "do": "start",
            "at": now(),
            "name": name,
            "experiment": self.delivery.experiment,
            "params": flatten(params),
            "tags": {plain_key(key): str(value)[:TAG] for key, value in (tags or {}).items()},
        }
        folder = folder.absolute()
        self.outbox.send(folder, record)
        return TrackedRun(folder, self.outbox)

    def log_trials(self, trials: Sequence[TrialRecord], parent_folder: Path) -> None:
        """Keep finished trials, each once, however often this is called."""
        parent_folder = parent_folder.absolute()
        waiting = self.outbox.waiting_trials(parent_folder)
        for trial in trials:
            place = os.path.relpath(trial.folder.absolute(), parent_folder)
            if place in waiting or self.delivery.has(trial.folder.absolute()):
                continue
            arm = {"arm": arm_of(trial.params), "sweep": parent_folder.name, "per_class": trial.per_class}
            record = {
                "do": "trial",
                "at": now(),
                "name": trial.name,
                "folder": place,
                "experiment": self.delivery.experiment,
                "params": flatten(arm | dict(trial.params)),
                "per_class": trial.per_class,
                "metrics": {plain_key(k.removeprefix("test_")): float(v) for k, v in trial.metrics.items()},
            }
            self.outbox.send(parent_folder, record)

    def save_views(self, sweep: str) -> str | None:
        """Save the pages that compare the trials of a sweep; the view's id, or None where it could not be."""
        record: Record = {"do": "views", "at": now(), "sweep": sweep, "experiment": self.delivery.experiment}
        sent = self.outbox.send(self.out.absolute(), record)
        return views.view_id(sweep) if sent else None

    def view_path(self, view: str) -> str:
        """The part of the view's address that follows the server's."""
        try:
            return views.view_path(self.delivery.experiment_id(), view)
        except (MlflowException, SQLAlchemyError, OSError):
            return "#/experiments"


class TrackedRun:
    """A run under way in an MlflowTracker."""

    def __init__(self, folder: Path, outbox: Outbox) -> None:
        self.folder = folder
        self.outbox = outbox

    def metrics(self, values: Mapping[str, float], step: int, timestamp: float | None = None) -> None:
        """Values at a step, sent together.

        A resumed run that repeats a step passes its first `timestamp` (seconds): no second point then.
        """
        if values:
            plain = {plain_key(key): float(value) for key, value in values.items()}
            at = now() if timestamp is None else int(timestamp * 1000)
            self.outbox.send(self.folder, {"do": "metrics", "at": at, "step": step, "values": plain})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all in it."""
        place = os.path.relpath(path.absolute(), self.folder)
        self.outbox.send(self.folder, {"do": "artifact", "at": now(), "path": place, "folder": folder})

    def data(self, name: str, digest: str, context: str) -> None:
        """Which data the run read, and what for (training, test)."""
        record = {"do": "data", "at": now(), "name": name, "digest": digest, "context": context}
        self.outbox.send(self.folder, record)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.outbox.send(self.folder, {"do": "finish", "at": now(), "status": status})


def now() -> int:
    """Milliseconds, as MLflow counts."""
    return int(time.time() * 1000)


def plain_key(key: str) -> str:
    """A name that MLflow takes: letters, digits and _-. :/"""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII)[:KEY].strip("/") or "_"


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings as MLflow's params: nested ones with dots, values as one types them (1,2,4; true; none)."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = plain_key(f"{prefix}{key}")
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = as_typed(value)[:VALUE]
    return flat


def as_typed(value: object) -> str:
    """A value as the user would type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(as_typed(item) for item in value)
    return str(value)


def arm_of(params: Mapping[str, str]) -> str:
    """What the legend calls a trial's arm: `two-stage from pretrain-1`, `full-fine-tuning from scratch`."""
    init = params.get("init") or "none"
    return f"{params.get('strategy', 'trained')} from {'scratch' if init == 'none' else Path(init).name}"
