"""Where numbers go while a run works: MLflow, on SQLite in --out or on any server, or nowhere."""

import os
from pathlib import Path

from ssl_app.tracking.base import Run, Say, Tracker, TrialRecord, on_stderr
from ssl_app.tracking.nowhere import Nowhere

__all__ = ["Nowhere", "Run", "Tracker", "TrialRecord", "open_tracker"]


def open_tracker(out: Path, uri: str | None, experiment: str, say: Say = on_stderr) -> Tracker:
    """The tracker of a run: `uri`, else the environment's, else SQLite in `out`; "none" is Nowhere.

    What earlier runs in `out` could not send is sent now. A server that does not answer is no error;
    raises SettingsError for a URI that cannot be one, RunError for a database that cannot be used.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is not None and uri.lower() == "none":
        return Nowhere()
    from ssl_app.tracking.tracker import MlflowTracker

    return MlflowTracker.open(out, uri, experiment, say)
