"""The console: log messages of the package go to stderr as plain lines, so that stdout holds results only."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ssl_app import config
from ssl_app.errors import Notice

PACKAGE = logging.getLogger("ssl_app")


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.msg.sentence(config.flag) if isinstance(record.msg, Notice) else self.format(record)
        print(message, file=sys.stderr, flush=True)


HANDLER = _Stderr()


def show_messages() -> None:
    """Print the package's messages from INFO on. Without this call, as in a worker process, nothing is printed."""
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.propagate = False
    if HANDLER not in PACKAGE.handlers:
        PACKAGE.addHandler(HANDLER)


def hide_messages() -> None:
    """Print nothing more: of several processes of one training only the first speaks."""
    PACKAGE.removeHandler(HANDLER)


@contextmanager
def muted() -> Iterator[None]:
    """Within, messages below WARNING are dropped: of a short run that is only timed, say."""
    before = PACKAGE.level
    PACKAGE.setLevel(logging.WARNING)
    try:
        yield
    finally:
        PACKAGE.setLevel(before)


class _Once(logging.Filter):
    """Passes each message the first time only."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in self.seen:
            return False
        self.seen.add(message)
        return True


@contextmanager
def without_repeats() -> Iterator[None]:
    """Within, a message is shown the first time only: of data that several initializations share, say."""
    once = _Once()
    HANDLER.addFilter(once)
    try:
        yield
    finally:
        HANDLER.removeFilter(once)
