"""A folder of runs that was moved or copied: its database names the artifacts by where they were."""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

DEFAULT = "/0"  # the artifacts of the experiment that every database has, below those of all
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow(database: Path, artifacts: str) -> bool:
    """Have the database name its artifacts by the URI of their folder now. -> whether it was moved.

    What lies elsewhere is left alone. Raises sqlite3.Error.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
        before = str(found[0]).removesuffix(DEFAULT) if found else artifacts
        if before == artifacts or _same(before, artifacts):
            return False
        for table, column in PLACES:
            with contextlib.suppress(sqlite3.OperationalError):  # another version of MLflow has no such table
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (artifacts, len(before) + 1, len(before) + 1, f"{before}/"),
                )
    return True


def _same(one: str, other: str) -> bool:
    """Whether two URIs are of one folder: by a link, say."""
    paths = [unquote(urlsplit(uri).path) for uri in (one, other)]
    return all(map(os.path.isdir, paths)) and os.path.samefile(*paths)
