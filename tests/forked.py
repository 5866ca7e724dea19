"""Processes that have imported the package before they start: what a child costs is what it computes."""

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ["torch._dynamo", "ssl_app.transfer.workers", "tests.contract.processes_worker"]


def context() -> ForkServerContext:
    """As spawned ones, children know what they are sent alone; one server imports for all of a test process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found
