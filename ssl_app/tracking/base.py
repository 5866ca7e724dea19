"""What every tracker can do; MlflowTracker does it, Nowhere does nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a sweep: a draw of labels, trained and tested."""

    name: str
    folder: Path
    params: Mapping[str, str]  # init, strategy, per_class, draw, sweep
    per_class: int  # labels
    metrics: Mapping[str, float]  # of the test, without prefix: accuracy, balanced_accuracy, macro_f1


@dataclass(frozen=True)
class Network:
    """A trained network as a model that MLflow serves: pixels in, as files hold them."""

    weights: Path  # with all that loading needs; nothing is pickled
    loader: str  # module whose `_load_pyfunc` loads it
    channels: int
    dtype: str  # of the pixels: uint8, uint16 or float32
    classes: tuple[str, ...]  # empty: features come out, not probabilities

    @property
    def kind(self) -> str:
        """`classifier` or `backbone`."""
        return "classifier" if self.classes else "backbone"


class Run(Protocol):
    """One run under way. No method waits for a server, or raises because of one."""

    def metrics(self, values: Mapping[str, float], step: int, timestamp: float | None = None) -> None:
        """Values at a step, logged together.

        A resumed run that repeats a step passes its first `timestamp` (seconds): no second point then.
        """

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all in it."""

    def data(self, name: str, digest: str, context: str, profile: Mapping[str, object] | None = None) -> None:
        """Which data the run read, and what for (unlabeled, labeled draw, test); numbers of images in `profile`."""

    def model(self, network: Network, context: str) -> None:
        """Keep a network as a model, with the metrics so far, which are of the data of that context."""

    def note(self, text: str) -> None:
        """What is said of the run at the top of its page, in Markdown, unless people have written there."""

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""


class Tracker(Protocol):
    """Where runs are kept."""

    @property
    def where(self) -> str:
        """In words for people, without passwords."""

    def start(
        self, name: str, folder: Path, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> Run:
        """Start a run, or go on with the one that `folder` was kept as before."""

    def log_trials(self, trials: Sequence[TrialRecord], parent_folder: Path) -> None:
        """Keep finished trials, each once, however often this is called."""

    def save_views(self, sweep: str) -> Mapping[str, str]:
        """Save the pages that compare the trials of a sweep.

        -> by name, what follows the server's address; empty where they could not be saved.
        """

    def note(self, text: str) -> None:
        """What is said of all runs at the top of their page, in Markdown, unless people have written there."""
