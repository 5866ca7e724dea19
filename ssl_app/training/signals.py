"""SIGTERM and Ctrl-C end a training between two steps, with a checkpoint."""

import signal
import threading
from types import FrameType, TracebackType


class Stopped(SystemExit):
    """A signal ended the training; what it had is in its checkpoint. Uncaught, it exits as the signal would."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class StopRequest:
    """Listens for SIGTERM and SIGINT while it is entered; a second signal ends the process as usual."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for known, handler in self.before.items():
            signal.signal(known, handler)
