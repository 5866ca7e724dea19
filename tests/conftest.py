"""What every test has: no network, one thread, and small data that it makes itself."""

import logging
import os
from collections.abc import Iterator

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.pop("MLFLOW_TRACKING_URI", None)

import pytest

from ssl_app.environment import prepare_environment

prepare_environment()

os.fsync = lambda descriptor: None  # nobody cuts the power of a test, and a disk takes milliseconds to be sure


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """The package's messages for people, as they come."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ssl_app")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small-resnet of a quarter of its width: what is learned on toys does not need more."""
    from ssl_app.models.backbones import small_resnet
    from tests.toys import NARROW

    monkeypatch.setattr(small_resnet, "WIDTHS", NARROW)
