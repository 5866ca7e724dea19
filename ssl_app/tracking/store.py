"""MLflow stores: an SQLite file that is whole before anyone can see it, and what a tracking URI names.

MLflow keeps the places of artifacts as absolute addresses. A store that was moved, or copied, with its folder is made
to point to where its artifacts lie now.
"""

import contextlib
import os
import re
import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.errors import Change, Fix, RunError, Set, SettingsError

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
SERVERS = ("http", "https", "databricks")
SCHEMES = (*SERVERS, "sqlite", "postgresql", "mysql", "mssql")
EXPECTED = "http://HOST:PORT, sqlite:///FILE.db, another database's URI, or none"
OTHER_OUT: tuple[Fix, ...] = (Change("out"), Set("tracking_uri", "none"))
OTHER_REMOTE: tuple[Fix, ...] = (Change("tracking_uri"),)
HALF_MADE = ".mlflow-*.db*"
STALE = 3600  # seconds; a database takes 7 to make
ADDRESSES = (  # columns of MLflow's tables that hold an artifact's place
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Store:
    """An MLflow store."""

    uri: str
    artifacts: str | None  # URI of the artifacts' folder; None: the server's own
    where: str  # for people and for files, without passwords


def local_store(out: Path) -> Store:
    """The store in the output folder, its database made where it is missing. Raises RunError.

    Where the folder was moved or copied, its artifacts are found in the new place.
    """
    path, artifacts = out.absolute() / DATABASE, (out.absolute() / ARTIFACTS).as_uri()
    make_database(path, artifacts, OTHER_OUT)
    _rebase(path, artifacts)
    return Store(f"sqlite:///{path}", artifacts, str(out / DATABASE))


def remote_store(out: Path, uri: str) -> Store | None:
    """The store behind a tracking URI, or None where that is the one in `out`. No server is asked.

    Raises SettingsError for a URI that cannot be one, RunError for an SQLite file that cannot be used.
    """
    scheme, plain = re.split(r"[:+]", uri, maxsplit=1)[0].lower(), without_password(uri)
    if scheme not in SCHEMES or (scheme != "databricks" and "://" not in uri):
        raise SettingsError(f"the tracking URI is '{plain}'", expected=EXPECTED, fix=Change("tracking_uri"))
    if scheme == "sqlite":
        text = uri.partition(":///")[2].partition("?")[0]
        if not text or text == ":memory:":
            raise SettingsError(
                f"the tracking URI is '{plain}', which names no file", expected=EXPECTED, fix=Change("tracking_uri")
            )
        path = Path(text).absolute()
        if path == out.absolute() / DATABASE:
            return None
        artifacts = (path.parent / ARTIFACTS).as_uri()
        make_database(path, artifacts, OTHER_REMOTE)
        return Store(f"sqlite:///{path}", artifacts, f"sqlite:///{path}")
    if scheme in SERVERS:
        return Store(uri, None, plain)
    try:
        sqlalchemy.create_engine(uri).dispose()  # loads the driver, and connects to nothing
    except ImportError as error:
        raise SettingsError(
            f"{plain} needs a driver ({error})", fix=(Fix(f"type pip install {error.name}"), Change("tracking_uri"))
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        raise SettingsError(
            f"the tracking URI is '{plain}' ({reason(error)})", expected=EXPECTED, fix=Change("tracking_uri")
        ) from error
    return Store(uri, (out.absolute() / ARTIFACTS).as_uri(), plain)


def without_password(uri: str) -> str:
    """A URI that may be shown: no user, no password, no query."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and "://" in uri else uri.partition("?")[0]


def make_database(path: Path, artifacts: str, fixes: tuple[Fix, ...]) -> None:
    """Make MLflow's SQLite file where it is missing; check it where it is not. Raises RunError.

    It grows under a temporary name and appears whole: a kill while MLflow migrates leaves a file
    that every later start trips over, and two that migrate one file trip over each other. Where
    two make it at once the first one's stays.
    """
    if path.exists():
        _check(path, fixes)
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
        raise RunError(f"{path} cannot be made ({reason(error)})", fix=fixes) from error


def _migrate(draft: Path, artifacts: str) -> None:
    uri = f"sqlite:///{draft}"
    store = SqlAlchemyStore(uri, artifacts)  # creates all tables and the experiment Default
    store.engine.dispose()
    SqlAlchemyStore._engine_map.pop(uri, None)  # a class-wide cache, which would hold the name for ever
    connection = sqlite3.connect(draft)
    # Writers then wait for each other a third as long; the file keeps that. Some network disks refuse: fine.
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


def _check(path: Path, fixes: tuple[Fix, ...]) -> None:
    """Refuse a file that MLflow cannot use, before it says so in forty lines."""
    fixes = (Fix("move it away"), *fixes)
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)
        try:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{path} cannot be read as a database ({error})", fix=fixes) from error
    if not {"experiments", "runs", "metrics", "alembic_version"} <= {name for (name,) in rows}:
        raise RunError(f"{path} is not a whole MLflow database", fix=fixes)


def _rebase(path: Path, artifacts: str) -> None:
    """Have a store of ours name its artifacts where they lie now. Raises RunError where it cannot be written."""
    try:
        connection = sqlite3.connect(path, timeout=20, isolation_level=None)
        try:
            root = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
            before = root[0].rpartition("/")[0] if root else artifacts
            if before != artifacts and before.endswith(f"/{ARTIFACTS}") and not _one_folder(before, artifacts):
                connection.execute("BEGIN IMMEDIATE")
                for table, column in ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (artifacts, len(before) + 1, len(before) + 1, f"{before}/"),
                    )
                connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"{path} was moved, and cannot be brought up to date ({error})", fix=OTHER_OUT) from error


def _one_folder(before: str, now: str) -> bool:
    """Whether two addresses are one folder: reached by a link, or mounted twice."""
    one, other = (Path(url2pathname(urlsplit(uri).path)) for uri in (before, now))
    return one.is_dir() and other.is_dir() and one.samefile(other)


def cannot_be_used(store: Store, error: Exception, fixes: tuple[Fix, ...]) -> RunError:
    """The refusal of a database that MLflow itself refused, with its cure where that is known."""
    first = Fix("move it away")
    if "schema" in str(error):
        first = Fix(f"save a copy and type mlflow db upgrade {without_password(store.uri)}")
        fixes = ()
    return RunError(f"{store.where} cannot be used ({reason(error)})", fix=(first, *fixes))


def reason(error: Exception) -> str:
    """The part of an exception's text that fits in a sentence; no password of a URI is in it."""
    text = str(error)
    if found := re.search(r"too many (\d{3}) error responses|failed with error code (\d{3})", text):
        return f"it answers {found[1] or found[2]}"
    if re.search(r"timed out|timeout", text):
        return "it does not answer in time"
    if found := re.search(r"\[Errno -?\d+\] ([\w ,]+)", text):
        return found[1].lower()
    lines = text.strip().splitlines() or [type(error).__name__]
    return re.sub(r"//[^/@\s]*@", "//", lines[0])[:200]
