"""The calls on an MLflow store that logging and synchronizing share."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.tracking.store import Store

T = TypeVar("T")
KEY, VALUE, TAG, DIGEST = 250, 6000, 5000, 36  # characters that MLflow takes
METRICS_AT_ONCE, OTHERS_AT_ONCE, RUNS_AT_ONCE = 800, 100, 1000  # 1000 in all
OWN_KEY = "ssl_app.key"  # tag: which run this is, in every store that holds it
KIND = "ssl_app.kind"  # tag: run, trial or curve; the saved views filter by it
SWEEP = "ssl_app.sweep"  # tag of a trial: key of its sweep's folder
NOTE = "ssl_app.note"  # tag: digest of the note that we wrote, of a run or an experiment
FILES = "ssl_app.files"  # tag: digests of the artifacts, a JSON object
REMOTE = "ssl_app.remote"  # tag, in the local store only: the server that the run is sent on to
MLFLOW_NOTE, PARENT, COMMIT = "mlflow.note.content", "mlflow.parentRunId", "mlflow.source.git.commit"  # its own tags
FAILURES = (MlflowException, SQLAlchemyError, OSError)  # OSError: those of requests, and of the artifacts' disk


class StoreClient:
    """An MLflow client and the few operations on top of it. All raise what MLflow raises (FAILURES)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._experiments: dict[str, str] = {}

    @cached_property
    def mlflow(self) -> MlflowClient:
        """The client itself; a database is connected to here, which may take as long as it likes."""
        return MlflowClient(tracking_uri=self.store.uri)

    def experiment_id(self, name: str) -> str:
        """The experiment's id, made or taken out of the bin where need be."""
        if name not in self._experiments:
            found = self.mlflow.get_experiment_by_name(name)
            if found is None:
                folder = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
                place = self.store.artifacts and f"{self.store.artifacts}/{folder}"
                try:
                    self._experiments[name] = self.mlflow.create_experiment(name, artifact_location=place)
                    return self._experiments[name]
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.mlflow.get_experiment_by_name(name)  # another process was first
            assert found is not None
            if found.lifecycle_stage == "deleted":
                self.mlflow.restore_experiment(found.experiment_id)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def runs(self, experiment_ids: Sequence[str], chosen: str) -> Iterator[MlflowRun]:
        """Every run that the filter `chosen` names, deleted ones too, oldest first."""
        token = None
        while True:
            page = self.mlflow.search_runs(
                list(experiment_ids), chosen, ViewType.ALL, RUNS_AT_ONCE, ["attributes.start_time ASC"], token
            )
            yield from page
            token = page.token
            if not token:
                return

    def run_with_key(self, experiment_id: str, key: str) -> MlflowRun | None:
        """The run of that key; a deleted one only where there is no other."""
        found = list(self.runs([experiment_id], f"tags.`{OWN_KEY}` = '{key}'"))
        return min(found, key=lambda run: (is_deleted(run), run.info.run_id), default=None)

    def note(self, experiment_id: str, text: str) -> bool:
        """Write the experiment's note, unless people have written there; whether anything was written."""
        tags = self.mlflow.get_experiment(experiment_id).tags
        if tags.get(MLFLOW_NOTE) == text or not note_is_ours(tags):
            return False
        for tag, value in note_tags(text).items():
            self.mlflow.set_experiment_tag(experiment_id, tag, value)
        return True

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log to a run, in as few calls as MLflow's limits allow; none where there is nothing."""
        batches = zip_longest(
            pieces(metrics, METRICS_AT_ONCE),
            pieces([Param(k, v) for k, v in (params or {}).items()], OTHERS_AT_ONCE),
            pieces([RunTag(k, v) for k, v in (tags or {}).items()], OTHERS_AT_ONCE),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in batches:
            self.mlflow.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)


def note_tags(text: str) -> dict[str, str]:
    """The tags of a note in Markdown: MLflow's own, and ours, by which a change by people is seen."""
    return {NOTE: hashlib.sha256(text.encode()).hexdigest(), MLFLOW_NOTE: text}


def note_is_ours(tags: Mapping[str, str]) -> bool:
    """Whether there is no note, or none that people have written or changed."""
    there = tags.get(MLFLOW_NOTE)
    return not there or hashlib.sha256(there.encode()).hexdigest() == tags.get(NOTE)


def is_deleted(run: MlflowRun) -> bool:
    """Whether somebody has put the run into MLflow's bin."""
    return bool(run.info.lifecycle_stage == "deleted")


def read_digests(tags: Mapping[str, str]) -> dict[str, str]:
    """Digests by artifact, a file or a folder, from a run's tags; empty where there are none."""
    try:
        found = json.loads(tags.get(FILES, "{}"))
    except ValueError:  # cut off at the length that MLflow takes
        return {}
    return {str(path): str(digest) for path, digest in found.items()} if isinstance(found, dict) else {}


def pieces(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """A list in pieces of at most so many."""
    return (items[start : start + most] for start in range(0, len(items), most))
