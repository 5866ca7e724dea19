"""The journal of a run: what could not be sent, one JSON object a line, kept until it is and after."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_app.runs import write_json

Record = dict[str, Any]  # "do" says what, "at" when (milliseconds), "to" which store

JOURNAL = "mlflow-journal.jsonl"
SENT = "mlflow-journal.sent.json"


class Journal:
    """Lines are only ever added; how far each store has been told lies in a file beside it.

    So a kill at any moment, or two that send at once, can at worst send a line twice, and MLflow
    keeps one point for the same key, time, step and value.
    """

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.store = store

    def append(self, record: Record) -> None:
        """Add a record for this store, on its own line even after a kill amid the last one."""
        line = json.dumps(record | {"to": self.store}, default=str) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def unsent(self) -> Iterator[tuple[Record, int]]:
        """Records this store has not been told, each with the position that follows it."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            position = file.seek(min(self._sent().get(self.store, 0), self.path.stat().st_size))
            for line in file:
                position += len(line)
                if not line.endswith(b"\n"):
                    return  # another process is at it
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # half a line, from a kill
                if isinstance(record, dict) and record.get("to") == self.store:
                    yield record, position

    def waiting(self) -> bool:
        """Whether a record has not been sent."""
        return next(self.unsent(), None) is not None

    def mark(self, position: int) -> None:
        """Note that all up to `position` (bytes) has been sent."""
        write_json(self.folder / SENT, self._sent() | {self.store: position})

    def _sent(self) -> dict[str, int]:
        try:
            content = json.loads((self.folder / SENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # sending again does no harm
        return {str(store): int(position) for store, position in content.items()}
