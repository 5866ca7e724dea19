"""The key of a run, kept in the run's folder and as a tag in MLflow, so that a resumed run goes on with its run."""

import hashlib
import json
import uuid
from pathlib import Path

from ssl_app.runs import write_json

IDENTITY = "mlflow.json"


def folder_key(folder: Path) -> str:
    """The folder's key, written before MLflow is asked: a kill in between leaves no run without its folder."""
    try:
        return str(json.loads((folder / IDENTITY).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, TypeError, KeyError):  # missing, or not ours: a new run is better than no run
        key = uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / IDENTITY, {"key": key})
    return key


def derived_key(*parts: str) -> str:
    """A key that is the same for the same parts: of a trial in its sweep, of a curve."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
