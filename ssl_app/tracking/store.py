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

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.errors import Change, Fix, RunError, Set, SettingsError
from ssl_app.tracking.moved import follow

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
SERVERS = ("http", "https", "databricks")
SCHEMES = (*SERVERS, "sqlite", "postgresql", "mysql", "mssql")
EXPECTED = "http://HOST:PORT, sqlite:///FILE.db, another database's URI, or none"
OTHER_OUT: tuple[Fix, ...] = (Change("out"), Set("tracking_uri", "none"))
OTHER_REMOTE: tuple[Fix, ...] = (Change("tracking_uri"),)
HALF_MADE = ".mlflow-*.db*"
STALE = 3600  # seconds; a database takes 7 to make


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
    uri = sqlite_uri(path, OTHER_OUT)
    make_database(path, artifacts, OTHER_OUT)
    try:
        follow(path, artifacts)
    except sqlite3.Error as error:
        raise RunError(f"{path} was moved, and cannot be brought up to date ({error})", fix=OTHER_OUT) from error
    return Store(uri, artifacts, str(out / DATABASE))


def remote_store(out: Path, uri: str) -> Store | None:
    """The store behind a tracking URI, or None where that is the one in `out`. No server is asked.

    Raises SettingsError for a URI that cannot be one, RunError for an SQLite file that cannot be used.
    """
    scheme, plain = re.split(r"[:+]", uri, maxsplit=1)[0].lower(), without_password(uri)
    if scheme not in SCHEMES or (scheme != "databricks" and "://" not in uri):
        raise SettingsError(f"the tracking URI is '{plain}'", expected=EXPECTED, fix=Change("tracking_uri"))
    if scheme == "sqlite":
        text = sqlalchemy.make_url(uri).database
        if not text or text == ":memory:":
            raise SettingsError(
                f"the tracking URI is '{plain}', which names no file", expected=EXPECTED, fix=Change("tracking_uri")
            )
        path = Path(text).absolute()
        if path == out.absolute() / DATABASE:
            return None
        artifacts = (path.parent / ARTIFACTS).as_uri()
        make_database(path, artifacts, OTHER_REMOTE)
        return Store(sqlite_uri(path, OTHER_REMOTE), artifacts, f"sqlite:///{path}")
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


def sqlite_uri(path: Path, fixes: tuple[Fix, ...]) -> str:
    """The URI of an SQLite file. Raises RunError for a path that none can name.

    SQLAlchemy takes a ? for the beginning of a query, and from 2.1 on %20 for a blank. A quoted path would do for it,
    but MLflow makes a folder of that name.
    """
    uri = f"sqlite:///{path}"
    if sqlalchemy.make_url(uri).database == str(path):
        return uri
    raise RunError(
        f"{path.parent} has a ? or a % in its name, with which MLflow's database cannot be named", fix=fixes
    )


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
    uri = sqlite_uri(draft, OTHER_OUT)
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
