"""What every run has on disk, for its report: settings, how it ended, its data, its machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app import runs
from ssl_app.data import summary
from ssl_app.training import machine


@dataclass(frozen=True)
class RunFacts:
    """A run's folder, read. What is not there is None."""

    folder: Path
    verb: str
    settings: Mapping[str, Any]
    started: float  # seconds since 1970
    result: Mapping[str, Any] | None
    ended: Mapping[str, Any] | None  # how a run without a result ended
    data: Mapping[str, Any] | None
    machine: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: Path, result: Mapping[str, Any] | None = None) -> "RunFacts":
        """The facts of a run; `result` is that of one that is about to end. Raises RunError for a damaged file."""
        content = runs.read_json(folder / runs.SETTINGS)
        if result is None and (folder / runs.RESULT).is_file():
            result = runs.read_result(folder)
        ended = None if result is not None else _json(folder / runs.ENDED)
        return cls(
            folder,
            content["verb"],
            content["settings"] if result is None else result["settings"],
            float(content.get("started", 0.0)),
            result,
            ended,
            _json(folder / summary.FILE),
            _json(folder / machine.FILE),
        )

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.name

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty where they are not known."""
        return [] if self.data is None else list(self.data["classes"])

    @property
    def state(self) -> str:
        """In words: finished, failed and why, stopped, or not finished."""
        if self.result is not None:
            return "finished"
        if self.ended is None:
            return "not finished: it is under way, or was killed"
        if self.ended["status"] == "KILLED":
            return "stopped before its end"
        return f"failed: {self.ended['why']}"


def _json(path: Path) -> dict[str, Any] | None:
    """The content of a file that may not be there."""
    found: dict[str, Any] | None = runs.read_json(path) if path.is_file() else None
    return found
