"""The identity of a run in MLflow, kept in the run's folder so that a resumed run goes on with it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_app.runs import write_json

IDENTITY = "mlflow.json"


@dataclass(frozen=True)
class Identity:
    """Which run of which store a folder is."""

    store: str
    key: str  # ours, noted before MLflow is asked, and a tag of the run
    run_id: str | None  # MLflow's; None until it has answered
    logged: bool = False  # all of a trial is there

    @staticmethod
    def read(folder: Path, store: str) -> "Identity | None":
        """The folder's identity in this store; None where it has none, or one of another store."""
        try:
            content = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
            identity = Identity(**content)
        except (OSError, ValueError, TypeError):
            return None  # missing, or not ours: a new run is better than no run
        return identity if identity.store == store else None

    def write(self, folder: Path) -> None:
        """Keep it, in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / IDENTITY, asdict(self))
