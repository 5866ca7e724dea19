"""What a worker process owes the one that started it: to leave signals to it, and to end with it at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Windows has no SIGHUP
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def followers_start() -> Iterator[None]:
    """While workers are started: a stop waits until this is over, and in a worker until it follows its parent.

    A worker inherits what is held up; one that a signal met before `follow_parent` would die of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """Make this process a follower: stops that reach the whole group are its parent's, and it ends when that does.

    Ctrl-C goes to every process of a terminal, and a worker that ends by it takes from its parent the step under way.
    SIGKILL asks nobody: a thread waits for the parent's end, and ends this process.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
