"""The MLflow store of a run: a server by URI, or an SQLite file that is whole before anyone can see it."""

import contextlib
import os
import re
import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.errors import RunError, SettingsError
from ssl_app.runs import out_flag

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
HALF_MADE = ".mlflow-*.db*"
STALE = 3600  # seconds; a database takes 7 to make


@dataclass(frozen=True)
class Store:
    """Where records go."""

    uri: str
    artifacts: str | None  # URI of the artifacts' folder; None: the server's own
    where: str  # for people, without passwords
    identity: str  # as kept in run folders; stays the same when --out is moved
    hint: str = ""  # how to see it


def find_store(out: Path, uri: str | None) -> Store:
    """The store behind a URI, its database made where it is missing. Raises SettingsError or RunError."""
    if uri is None:
        return _local(out.absolute() / DATABASE, f"{out / DATABASE}", "out", f"ssl-app ui{out_flag(out)} shows it")
    scheme = re.split(r"[:+]", uri, maxsplit=1)[0].lower()
    if scheme not in SCHEMES or (scheme != "databricks" and "://" not in uri):
        raise SettingsError(
            f"--tracking-uri is '{without_password(uri)}'; "
            "expected http://HOST:PORT, sqlite:///FILE.db, another database's URI, or none"
        )
    if scheme == "sqlite":
        text = uri.partition(":///")[2].partition("?")[0]
        if not text or text == ":memory:":
            raise SettingsError(f"--tracking-uri is '{uri}', which names no file; expected sqlite:///FILE.db")
        path = Path(text).absolute()
        return _local(path, f"{path}", f"sqlite:///{path}")
    plain = without_password(uri)
    return Store(uri, None, plain, plain)


def _local(path: Path, where: str, identity: str, hint: str = "") -> Store:
    artifacts = (path.parent / ARTIFACTS).as_uri()
    make_database(path, artifacts)
    return Store(f"sqlite:///{path}", artifacts, where, identity, hint)


def without_password(uri: str) -> str:
    """A URI that may be shown: no user, no password, no query."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and "://" in uri else uri.partition("?")[0]


def make_database(path: Path, artifacts: str) -> None:
    """Make MLflow's SQLite file where it is missing; check it where it is not. Raises RunError.

    It grows under a temporary name and appears whole: a kill while MLflow migrates leaves a file
    that every later start trips over, and two that migrate one file trip over each other. Where
    two make it at once the first one's stays.
    """
    if path.exists():
        _check(path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_half_made(path.parent)
        draft = path.with_name(f".mlflow-{uuid.uuid4().hex}.db")
        try:
            _migrate(draft, artifacts)
            _publish(draft, path)
        finally:
            for leftover in path.parent.glob(f"{draft.name}*"):
                leftover.unlink(missing_ok=True)
    except (OSError, sqlite3.Error, MlflowException, SQLAlchemyError) as error:
        raise RunError(
            f"{path} cannot be made ({reason(error)}); type another --out, or --tracking-uri none"
        ) from error


def _migrate(draft: Path, artifacts: str) -> None:
    uri = f"sqlite:///{draft}"
    store = SqlAlchemyStore(uri, artifacts)  # creates all tables and the experiment Default
    store.engine.dispose()
    SqlAlchemyStore._engine_map.pop(uri, None)  # a class-wide cache, which would hold the name for ever
    connection = sqlite3.connect(draft)
    # Writers then wait for each other a third as long; the file remembers. Some network disks refuse: fine.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # unlike a rename it never replaces what another process made first
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(draft, path)


def _remove_half_made(folder: Path) -> None:
    """Take away what a killed process left; one that still works on its own is younger."""
    for leftover in folder.glob(HALF_MADE):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink()


def _check(path: Path) -> None:
    """Refuse a file that MLflow cannot use, before it says so in forty lines."""
    cure = "move it away, or type another --out or --tracking-uri none"
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)
        try:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{path} cannot be read as a database ({error}); {cure}") from error
    if not {"experiments", "runs", "metrics", "alembic_version"} <= {name for (name,) in rows}:
        raise RunError(f"{path} is not a whole MLflow database; {cure}")


def reason(error: Exception) -> str:
    """The part of an exception's text that fits in a sentence; no password of a URI is in it."""
    text = str(error)
    if found := re.search(r"too many (\d{3}) error responses", text):
        return f"it answers {found[1]}"
    if re.search(r"timed out|timeout", text):
        return "it does not answer in time"
    if found := re.search(r"\[Errno -?\d+\] ([\w ,]+)", text):
        return found[1].lower()
    lines = text.strip().splitlines() or [type(error).__name__]
    return re.sub(r"//[^/@\s]*@", "//", lines[0])[:200]
