"""Tracking of runs in MLflow: always in SQLite in the output folder, sent on to a server where one is named."""

import os
from pathlib import Path

from ssl_app.tracking.base import Network, Run, Tracker, TrialRecord
from ssl_app.tracking.nowhere import Nowhere

__all__ = ["Network", "Nowhere", "Run", "Tracker", "TrialRecord", "open_tracker"]


def open_tracker(out: Path, uri: str | None, experiment: str) -> Tracker:
    """The tracker of a run: a local store in `out`, which is sent on to `uri`, else to the environment's.

    "none" is Nowhere, not even locally. No server is asked here. Raises SettingsError for a URI that cannot be one,
    RunError for a database file that cannot be used.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is not None and uri.lower() == "none":
        return Nowhere()
    from ssl_app.tracking.tracker import MlflowTracker

    return MlflowTracker.open(out, uri, experiment)
