"""Nowhere: a tracker that keeps nothing (a tracking URI of "none")."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_app.tracking.base import Network, Run, TrialRecord


class Nowhere:
    """Keeps nothing; result.json and the folder of a run hold what there is."""

    where = "nowhere"

    def start(
        self, name: str, folder: Path, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> Run:
        """A run that keeps nothing."""
        return NowhereRun()

    def log_trials(self, trials: Sequence[TrialRecord], parent_folder: Path) -> None:
        """Nothing."""

    def save_views(self, sweep: str) -> Mapping[str, str]:
        """No view."""
        return {}

    def note(self, text: str) -> None:
        """Nothing."""


class NowhereRun:
    """A run that keeps nothing."""

    def metrics(self, values: Mapping[str, float], step: int, timestamp: float | None = None) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Nothing."""

    def data(self, name: str, digest: str, context: str, profile: Mapping[str, object] | None = None) -> None:
        """Nothing."""

    def model(self, network: Network, context: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def finish(self, status: str = "FINISHED") -> None:
        """Nothing."""
