"""SIGTERM, SIGHUP and Ctrl-C: a training ends between two steps, with a checkpoint; all else where it stands."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REPEATED = 1.0  # seconds; `timeout`, and a terminal with a shell, send one stop twice

_received: list[int] = []


class Stopped(SystemExit):
    """A signal ended the work. Its notes (`add_note`) say what to type to go on. Exits as the signal would."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def received() -> int | None:
    """The signal that told this process to stop; None where none has.

    A library may turn what a signal raises within it into a failure of its own, such as a file that cannot be read.
    """
    return _received[0] if _received else None


@contextmanager
def stops_raise() -> Iterator[None]:
    """Within, a signal raises Stopped in the main thread, wherever that is; so does one more, a second later.

    A signal that is ignored (`nohup`) stays so.
    """
    _received.clear()
    heard = -REPEATED

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if time.monotonic() - heard >= REPEATED:
            heard = time.monotonic()
            _received.append(number)
            raise Stopped(number)

    before = _set(stop)
    try:
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def _set(handler: Handler) -> dict[int, Handler]:
    """Have signals handled, but for those that are ignored. -> what handled them before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {int(number): signal.getsignal(number) for number in HEARD}
    known: dict[int, Handler] = {n: found for n, found in before.items() if found not in (None, signal.SIG_IGN)}
    for number in known:
        signal.signal(number, handler)
    return known


class StopRequest:
    """Listens for signals while it is entered; one more, a second later, does what it did before."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.heard = 0.0  # on the monotonic clock
        self.before: dict[int, Handler] = {}

    def __enter__(self) -> "StopRequest":
        self.before = _set(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self.heard = number, time.monotonic()
            _received.append(number)
        elif time.monotonic() - self.heard >= REPEATED:
            for known, handler in self.before.items():
                signal.signal(known, handler)
            signal.raise_signal(number)
