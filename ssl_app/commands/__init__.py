"""The verbs: one file each, with Settings and a run that reads like its paragraph of the README."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, runs
from ssl_app.errors import Change, UserError
from ssl_app.locks import locked, owner_of
from ssl_app.runs import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.data.dataset import Dataset
    from ssl_app.tracking import Run, Tracker

logger = logging.getLogger(__name__)

EXPERIMENT = "ssl-app"  # in MLflow
DRAW = "labeled draw"  # context of data in MLflow, beside unlabeled, validation and test


@dataclass(frozen=True)
class RunSpec:
    """What a run is called, and where it is recorded."""

    verb: str
    out: Path
    name: str | None  # of its folder; None: verb and time
    settings: Mapping[str, Any]  # all of them, resolved, in JSON
    tracking_uri: str | None = "none"
    keep: str = runs.RESULT  # a file that makes an unfinished folder worth keeping


@dataclass
class RecordedRun:
    """A run under way. What is put into `more` is in its result.json."""

    spec: RunSpec
    folder: Path
    tracked: "Run"
    tracker: "Tracker"
    started: float = field(default_factory=time.monotonic)
    more: dict[str, Any] = field(default_factory=dict)
    note: str = ""  # what it came to, in Markdown, for the top of its page in MLflow
    seconds: float | None = None  # that it took; None while it is under way

    def read(self, dataset: "Dataset", parts: "Mapping[str, NDArray[np.int64]]") -> None:
        """Track which images the run reads, by what for; of a labeled draw the classes are part of the digest."""
        from ssl_app.data.summary import digest, labeled_digest, profile

        for context, indices in parts.items():
            if len(indices):
                found = (labeled_digest if context == DRAW else digest)(dataset, indices)
                self.tracked.data(dataset.name, found, context, profile(dataset, indices))

    def keep_model(self, weights: Path, context: str) -> None:
        """Track a network of the run as a model, with the metrics so far, which are of the data of that context."""
        from ssl_app.transfer.served import network_of

        self.tracked.model(network_of(weights), context)

    def result(self) -> Result:
        """What the verb returns: once the run has ended, what its result.json holds."""
        seconds = time.monotonic() - self.started if self.seconds is None else self.seconds
        return Result(self.spec.verb, self.folder, seconds, self.spec.settings, self.more)


@contextmanager
def record(spec: RunSpec, folder: Path | None = None, started: float | None = None) -> Iterator[RecordedRun]:
    """Record a run: its folder and lock, its tracking, and at the end its result.json.

    However it ends, tracking and lock are ended; a folder that holds nothing to go on from is removed. A `folder`
    that is there already is gone on with. Raises RunError where the name is taken, or another process is at it.
    """
    from ssl_app.tracking import open_tracker
    from ssl_app.training.signals import Stopped, received

    began = time.monotonic() if started is None else started
    tracker = open_tracker(spec.out, spec.tracking_uri, EXPERIMENT)  # a mistake in its address makes no folder
    mine = folder is None
    if folder is None:
        folder = runs.new_run(spec.out, spec.name, spec.verb, spec.settings)
    another = () if spec.settings.get("resume") else (Change("name"),)
    keep = spec.keep if mine else runs.SETTINGS
    with locked(folder, another), _ending() as end, runs.whole(folder, keep):  # it ends last: there is room again
        logger.info(f"tracking: {tracker.where}")
        end.tracked = tracker.start(folder.name, folder, flat(spec.settings), {"verb": spec.verb})
        run = RecordedRun(spec, folder, end.tracked, tracker, began)
        (folder / runs.ENDED).unlink(missing_ok=True)
        try:
            yield run
            run.seconds = time.monotonic() - began
            if run.note or not mine:  # what a resumed run said at its first end is gone
                run.tracked.note(run.note)
            runs.write_json(folder / runs.RESULT, run.result().to_json())
            end.status = "FINISHED"
        except (Stopped, KeyboardInterrupt):
            end.status = "KILLED"
            _keep_end(folder, end.status, "it was stopped", time.monotonic() - began)
            run.tracked.note("It was stopped.")
            raise
        except Exception as error:
            why = error.sentence(config.flag) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            why = why if received() is None else "it was stopped"
            end.status = "FAILED" if received() is None else "KILLED"
            _keep_end(folder, end.status, why, time.monotonic() - began)
            run.tracked.note(f"It failed: {why}" if received() is None else "It was stopped.")
            raise


@dataclass
class _End:
    """How a run ends in tracking, once it has begun there."""

    tracked: "Run | None" = None
    status: str = "FAILED"


@contextmanager
def _ending() -> Iterator[_End]:
    """End a run in tracking, however the block ends."""
    end = _End()
    try:
        yield end
    finally:
        if end.tracked is not None:
            end.tracked.finish(end.status)


def _keep_end(folder: Path, status: str, why: str, seconds: float) -> None:
    """Write how a run ended that has no result, for its report; a full disk is no second mistake."""
    with suppress(OSError):
        found = {"status": status, "why": why, "at": time.time(), "seconds": seconds}
        runs.write_json(folder / runs.ENDED, found)


def state_of(folder: Path) -> str:
    """`running`, `finished`, `failed` or `stopped`: by a run's lock, its result, and the note of its end.

    A run that was killed leaves no note and has stopped.
    """
    if owner_of(folder) is not None:
        return "running"
    if runs.finished(folder):
        return "finished"
    ended = runs.read_json(folder / runs.ENDED) if (folder / runs.ENDED).is_file() else {}
    return "failed" if ended.get("status") == "FAILED" else "stopped"


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as tracking shows them: a method's own beside the others, without where the run lies."""
    own = settings.get("method_settings") or {}
    shown = {
        k: v for k, v in settings.items() if k not in ("out", "name", "resume", "tracking_uri", "method_settings")
    }
    return shown | own
