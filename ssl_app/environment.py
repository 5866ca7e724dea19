"""Variables that libraries read when they are loaded; set before any of them is imported."""

import os

VARIABLES = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # it asks a server for its newest version at import
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a DNS look-up at first use
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # a new database else prints one line a migration
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git, and says so at length where there is none
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster that is started from here reports nothing
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray else warns at each start that it will do so one day
    # OpenMP's threads spin while they wait: nothing gained on an idle machine (0.98 to 1.03 times the images/s
    # of sleeping), and a tenth of the pace where another program wants the core
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_environment() -> None:
    """Set each variable that the user has not set: nothing asks the network, threads sleep while they wait."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
