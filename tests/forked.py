"""Processes that have imported the package before they start: what a child costs is what it computes."""

import multiprocessing
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running

PRELOADED = ["torch._dynamo", "ssl_app.transfer.workers", "tests.contract.processes_worker"]


def context() -> ForkServerContext:
    """As spawned ones, children know what they are sent alone; one server imports for all of a test process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    ensure_running()  # now: a server that is started where signals are held up holds them up in all of its children
    return found


def start(code: str, *words: str) -> ForkServerProcess:
    """A process that runs some code as `python -c` does."""
    process = context().Process(target=_run, args=(code, words))
    process.start()
    return process


def _run(code: str, words: tuple[str, ...]) -> None:
    sys.argv = ["-c", *words]
    exec(compile(code, "a test's process", "exec"), {"__name__": "__main__"})
