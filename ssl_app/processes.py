"""What a worker process owes the one that started it: to leave signals to it, and to end with it at once."""

import multiprocessing
import os
import signal
import threading

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def follow_parent() -> None:
    """Make this process a follower: stops that reach the whole group are its parent's, and it ends when that does.

    Ctrl-C goes to every process of a terminal, and a worker that ends by it takes from its parent the step under way.
    SIGKILL asks nobody: a thread waits for the parent's end, and ends this process.
    """
    for name in STOPS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
