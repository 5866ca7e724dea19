"""Delivery: one record to one MLflow store, so that sending it twice is the same as sending it once."""

import getpass
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ssl_app.tracking import views
from ssl_app.tracking.identity import Identity
from ssl_app.tracking.journal import Record
from ssl_app.tracking.store import Store, reason

T = TypeVar("T")
KEY, VALUE, TAG, DIGEST = 250, 6000, 5000, 36  # characters that MLflow takes
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
OWN_KEY = "ssl_app.key"  # tag by which a run is found whose id a kill kept from being noted
KIND = "ssl_app.kind"  # tag: run, trial or curve; the saved views filter by it
NO = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


class Refused(Exception):
    """The store answered, and will not take the record however often it is sent."""


class Unreachable(Exception):
    """The store did not answer, or cannot take anything now."""


class Delivery:
    """Knows MLflow; knows nothing of journals and of when to try again."""

    def __init__(self, store: Store, experiment: str) -> None:
        self.store = store
        self.experiment = experiment
        self.client = MlflowClient(tracking_uri=store.uri)
        self._experiments: dict[str, str] = {}
        self._runs: dict[Path, str] = {}
        self._curves: dict[str, str] = {}

    def deliver(self, folder: Path, record: Record) -> None:
        """Send the record of the run kept in `folder`. Raises Refused or Unreachable."""
        try:
            getattr(self, f"_{record['do']}")(folder, record)
        except MlflowException as error:
            kind = Refused if error.error_code in NO else Unreachable
            raise kind(reason(error)) from error
        except (SQLAlchemyError, OSError) as error:  # OSError: those of requests, and of the artifacts' disk
            raise Unreachable(reason(error)) from error

    def experiment_id(self, name: str | None = None) -> str:
        """The experiment's id, made or taken out of the bin where need be. Raises what MLflow raises."""
        name = name or self.experiment
        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                folder = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
                place = self.store.artifacts and f"{self.store.artifacts}/{folder}"
                try:
                    self._experiments[name] = self.client.create_experiment(name, artifact_location=place)
                    return self._experiments[name]
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.client.get_experiment_by_name(name)  # another process was first
            assert found is not None
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _start(self, folder: Path, record: Record) -> None:
        run = self._run_of(folder, record, "run")
        there = run.data.params
        tags = dict(record["tags"])
        # a param cannot be changed; what a resumed run does otherwise is a tag
        tags |= {f"resumed.{k}": v for k, v in record["params"].items() if there.get(k, v) != v}
        params = {k: v for k, v in record["params"].items() if k not in there}
        self._log(run.info.run_id, [], params, tags)
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        self._runs[folder] = run.info.run_id

    def _metrics(self, folder: Path, record: Record) -> None:
        metrics = [Metric(k, v, record["at"], record["step"]) for k, v in record["values"].items()]
        self._log(self._run_id(folder), metrics, {}, {})

    def _artifact(self, folder: Path, record: Record) -> None:
        path = folder / record["path"]
        if path.is_dir():
            inside = "/".join(part for part in (record["folder"], path.name) if part)
            self.client.log_artifacts(self._run_id(folder), str(path), inside)
        elif path.is_file():
            self.client.log_artifact(self._run_id(folder), str(path), record["folder"])
        else:
            raise Refused(f"{path} is gone")

    def _data(self, folder: Path, record: Record) -> None:
        source = f'{{"uri": "{quote(record["name"], safe="/:.-_ ")}"}}'
        dataset = Dataset(record["name"], record["digest"][:DIGEST], "local", source)
        context = InputTag("mlflow.data.context", record["context"])
        self.client.log_inputs(self._run_id(folder), [DatasetInput(dataset, [context])])

    def _finish(self, folder: Path, record: Record) -> None:
        self.client.set_terminated(self._run_id(folder), record["status"], record["at"])

    def _trial(self, folder: Path, record: Record) -> None:
        place = folder / record["folder"]
        if self.has(place):
            return
        run = self._run_of(place, record, "trial")
        run_id = run.info.run_id
        at = run.info.start_time  # of the first attempt: a second one then makes no new points
        there = run.data.params
        values: dict[str, float] = record["metrics"]
        step = record["per_class"]  # the x axis of MLflow's own line charts
        metrics = [Metric(f"test_{name}", value, at, 0) for name, value in values.items()]
        points = [
            Metric(f"{views.SECTION}/{name}", values[name], at, step) for name in views.SCORES if name in values
        ]
        self._log(run_id, metrics + points, {k: v for k, v in record["params"].items() if k not in there}, {})
        self._log(self._curve(folder, record, at), points, {}, {})
        self.client.set_terminated(run_id, "FINISHED", at)
        Identity(self.store.identity, run.data.tags[OWN_KEY], run_id, logged=True).write(place)

    def _curve(self, sweep_folder: Path, record: Record, at: int) -> str:
        """The run that holds one arm's scores over all budgets, for one draw; its id.

        MLflow's page reads the first 100 runs, fewer than a sweep has trials, and draws means of those.
        """
        params = {name: record["params"].get(name, "") for name in ("sweep", "arm", "init", "strategy", "draw")}
        sweep = Identity.read(sweep_folder, self.store.identity)
        key = hashlib.sha256("\n".join([sweep.key if sweep else "", *params.values()]).encode()).hexdigest()
        if key not in self._curves:
            experiment = self.experiment_id(record["experiment"])
            run = self._with_key(experiment, key)
            if run is None:
                tags = _tags(key, "curve")
                name = f"{params['arm']}, draw {params['draw']}"
                run = self.client.create_run(experiment, at, tags, name)
            self._log(run.info.run_id, [], {k: v for k, v in params.items() if v and k not in run.data.params}, {})
            self.client.set_terminated(run.info.run_id, "FINISHED", at)
            self._curves[key] = run.info.run_id
        return self._curves[key]

    def _views(self, folder: Path, record: Record) -> None:
        experiment = self.experiment_id(record["experiment"])
        mark = '"' if "'" in record["sweep"] else "'"
        chosen = f"params.sweep = {mark}{record['sweep']}{mark} and tags.`{KIND}` = 'curve'"
        found = self.client.search_runs([experiment], chosen, max_results=1)
        scores = [name.rpartition("/")[2] for name in found[0].data.metrics] if found else []
        for view in (
            views.label_efficiency(record["sweep"], chosen, scores, record["at"]),
            views.training_runs(f"tags.`{KIND}` = 'run'", record["at"]),
        ):
            self.client.set_experiment_tag(experiment, view.tag, view.value)

    def has(self, folder: Path) -> bool:
        """Whether all of a trial is in the store, as far as its folder knows."""
        identity = Identity.read(folder, self.store.identity)
        return identity is not None and identity.logged

    def _run_id(self, folder: Path) -> str:
        if folder not in self._runs:
            identity = Identity.read(folder, self.store.identity)
            if identity is None or identity.run_id is None:
                raise Refused(f"{folder} has no run in {self.store.where}")
            self._runs[folder] = identity.run_id
        return self._runs[folder]

    def _run_of(self, folder: Path, record: Record, kind: str) -> MlflowRun:
        """The folder's run in this store: the one it had, or a new one (its key is noted before it is made)."""
        identity = Identity.read(folder, self.store.identity)
        experiment = self.experiment_id(record["experiment"])
        run = None
        if identity is not None and identity.run_id is not None:
            run = self._living(identity.run_id)
        elif identity is not None:
            run = self._with_key(experiment, identity.key)
        if run is None:
            if identity is None or identity.run_id is not None:
                identity = Identity(self.store.identity, uuid.uuid4().hex, None)
                identity.write(folder)
            run = self.client.create_run(experiment, record["at"], _tags(identity.key, kind), record["name"])
        assert identity is not None
        Identity(identity.store, identity.key, run.info.run_id).write(folder)
        return run

    def _with_key(self, experiment: str, key: str) -> MlflowRun | None:
        found = self.client.search_runs([experiment], f"tags.`{OWN_KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _living(self, run_id: str) -> MlflowRun | None:
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _log(self, run_id: str, metrics: list[Metric], params: dict[str, str], tags: dict[str, str]) -> None:
        chunks = zip_longest(
            pieces(metrics, METRICS_AT_ONCE),
            pieces([Param(k, v) for k, v in params.items()], PARAMS_AT_ONCE),
            pieces([RunTag(k, v) for k, v in tags.items()], PARAMS_AT_ONCE),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in chunks:
            self.client.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)


def pieces(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """A list in pieces of at most so many."""
    return (items[start : start + most] for start in range(0, len(items), most))


def _tags(key: str, kind: str) -> dict[str, str]:
    return {OWN_KEY: key, KIND: kind, "mlflow.source.name": "ssl-app", "mlflow.user": _user()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
