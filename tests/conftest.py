"""What every test has: no network, one thread, and small data that it makes itself."""

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.pop("MLFLOW_TRACKING_URI", None)

import pytest

from ssl_app.environment import prepare_environment

prepare_environment()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
