"""The variables that keep libraries off the network; set before any of them is imported."""

import os

QUIET = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # it asks a server for its newest version at import
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a DNS look-up at first use
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # a new database else prints one line a migration
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git, and says so at length where there is none
}


def quiet_environment() -> None:
    """Set each variable that the user has not set."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
