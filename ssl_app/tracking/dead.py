"""Runs that stand as RUNNING in the local store, though nobody works on them: a kill has no time to say so."""

import json
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run

from ssl_app.locks import owner_of
from ssl_app.runs import ENDED, RESULT
from ssl_app.tracking.client import KIND, OWN_KEY, SWEEP, StoreClient
from ssl_app.tracking.identity import IDENTITY


def end_the_dead(local: StoreClient, experiment: str, out: Path) -> int:
    """End them, as their folders say they ended, else as KILLED. -> how many. Raises what MLflow raises."""
    chosen = f"attributes.status = 'RUNNING' and tags.`{KIND}` LIKE '%'"
    running = list(local.runs([local.experiment_id(experiment)], chosen))
    folders = dict(_folders(out)) if running else {}
    alive = {key for key, folder in folders.items() if owner_of(folder) is not None}
    dead = [run for run in running if not _works(run, set(folders), alive)]
    for run in dead:
        status, at = _end(folders.get(run.data.tags.get(OWN_KEY, "").partition(".")[0]))
        local.mlflow.set_terminated(run.info.run_id, status, at or run.info.start_time)
    return len(dead)


def _works(run: Run, known: set[str], alive: set[str]) -> bool:
    """Whether somebody works on the run, on the sweep that it is a trial of, or where that is unknown on any."""
    key = run.data.tags.get(SWEEP) or run.data.tags.get(OWN_KEY, "").partition(".")[0]
    return key in alive if key in known else bool(alive)


def _folders(out: Path) -> Iterator[tuple[str, Path]]:
    """(key, folder) of the runs in a folder."""
    for path in out.glob(f"*/{IDENTITY}"):
        try:
            yield str(json.loads(path.read_text(encoding="utf-8"))["key"]), path.parent
        except (OSError, ValueError, TypeError, KeyError):  # not ours
            continue


def _end(folder: Path | None) -> tuple[str, int | None]:
    """How a run ended, and when in milliseconds, where that is known."""
    for name, status in () if folder is None else ((RESULT, "FINISHED"), (ENDED, "FAILED")):
        assert folder is not None
        path = folder / name
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return (held.get("status", status) if name == ENDED else status), int(1000 * path.stat().st_mtime)
        except (OSError, ValueError, AttributeError):
            continue
    return "KILLED", None if folder is None else int(1000 * folder.stat().st_mtime)
