"""A background thread that sends what was logged on to a remote store, and never holds up a run."""

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ssl_app.runs import OUT
from ssl_app.tracking.store import Store, reason
from ssl_app.tracking.sync import Sent, Sync, Unreachable

logger = logging.getLogger(__name__)

AT_EXIT = 5.0  # seconds that the end of a process waits for all remote stores together
TIMEOUT = 10  # seconds for an answer
PAUSE = 30.0  # seconds between tries while a store takes nothing
REST = 5.0  # the thread rests so many times as long as it worked, PAUSE at most


class Background:
    """Sends runs and views to one remote store, in the order in which they were first logged."""

    def __init__(self, out: Path, local: Store, remote: Store) -> None:
        self.where = remote.where
        self._of = "" if out == OUT else f" of {out}"
        self._sync = Sync(out, local, remote, TIMEOUT)
        self._changed = threading.Condition()
        self._waiting: dict[str, Callable[[Sent], None]] = {}  # what is to be sent, by what it is
        self._busy = False
        self._silent = False  # the last try failed, and the user knows
        self._hurry = False  # neither rest nor pause
        self._closed = False
        self._not_before = 0.0  # on the monotonic clock
        self._refused: set[str] = set()
        self._thread: threading.Thread | None = None

    def send(self, run_id: str) -> None:
        """Send what is new of a local run, soon."""
        self._add(f"run {run_id}", lambda sent: self._sync.send_run(run_id, sent))

    def send_views(self, experiment_id: str, sweep: str) -> None:
        """Send the saved views of a sweep, soon, after the runs that wait."""
        self._add(f"views of {sweep}", lambda sent: self._sync.send_views(experiment_id, {sweep}, sent))

    def flush(self, seconds: float) -> None:
        """Send what waits without resting, for at most so long, and say so if there is more."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._hurry or self._idle(), seconds)
            self._hurry = False
            if not (done and self._idle()) and not self._silent:
                self._silent = True
                logger.warning(f"tracking: {self.where} has not taken all yet; {self._cure()}")

    def close(self, seconds: float) -> None:
        """Flush, and end the thread: at once where it waits, after its last call where it is at one."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _idle(self) -> bool:
        return not self._waiting and not self._busy

    def _cure(self) -> str:
        return f"ssl-app sync sends what is missing{self._of}"

    def _add(self, what: str, job: Callable[[Sent], None]) -> None:
        with self._changed:
            self._waiting.setdefault(what, job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"sync with {self.where}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                while not (self._hurry or self._closed) and (left := self._not_before - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._closed:
                    return
                self._busy = True
            began = time.monotonic()
            rest = PAUSE if self._send_all() is False else min(PAUSE, REST * (time.monotonic() - began))
            with self._changed:
                self._busy = False
                self._not_before = time.monotonic() + rest
                self._changed.notify_all()

    def _send_all(self) -> bool:
        """Send all that waits now; False where the remote store does not take it."""
        for _ in range(len(self._waiting)):
            with self._changed:
                if self._closed:
                    break
                what = next(iter(self._waiting))
                job = self._waiting.pop(what)
            sent = Sent()
            try:
                job(sent)
            except Unreachable as error:
                with self._changed:
                    self._waiting = {what: job} | self._waiting  # as the first, though it may be there again
                    self._hurry = False
                self._say(error)
                return False
            except Exception as error:  # the thread must not end in silence
                logger.warning(f"tracking: {what} was not sent to {self.where} ({reason(error)}); {self._cure()}")
            for line in sent.pages:
                logger.info(line)
            for line in sent.refused:
                if line not in self._refused:
                    self._refused.add(line)
                    logger.warning(f"tracking: {line}")
            if self._silent:
                self._silent = False
                logger.info(f"tracking: {self.where} answers again")
        return True

    def _say(self, error: Unreachable) -> None:
        if not self._silent:
            self._silent = True
            logger.warning(f"tracking: {self.where} takes nothing now ({error}); the run goes on, and {self._cure()}")


_senders: dict[tuple[str, str], Background] = {}


def sender(out: Path, local: Store, remote: Store) -> Background:
    """The one sender of this process from a local store to a remote one."""
    pair = (local.uri, remote.uri)
    if pair not in _senders:
        _senders[pair] = Background(out, local, remote)
    return _senders[pair]


def close_all(seconds: float = AT_EXIT) -> None:
    """Close all senders, within so many seconds together."""
    until = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        for each in _senders.values():
            each.close(max(0.0, until - time.monotonic()))
    _senders.clear()


atexit.register(close_all)
