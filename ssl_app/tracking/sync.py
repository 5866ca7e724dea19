"""Synchronization: sends a remote MLflow store what it lacks of the local one, each thing once.

A run is found in the remote store by its key, a tag, so nothing but the two stores has to be remembered. What is
there is compared first: a metric by (step, timestamp, value), a file by path, size and digest.
"""

import contextlib
import fcntl
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import DatasetInput, LoggedModel, Metric
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from ssl_app.errors import Change, RunError, Set, SettingsError
from ssl_app.errors import Run as Verb
from ssl_app.tracking import models, views
from ssl_app.tracking.client import (
    FAILURES,
    FILES,
    KIND,
    METRICS_AT_ONCE,
    MLFLOW_NOTE,
    NOTE,
    OWN_KEY,
    PARENT,
    REMOTE,
    StoreClient,
    is_deleted,
    note_is_ours,
    note_tags,
    pieces,
    read_digests,
)
from ssl_app.tracking.store import (
    DATABASE,
    OTHER_OUT,
    Store,
    cannot_be_used,
    local_store,
    reason,
    remote_store,
    without_password,
)

LOCK = ".mlflow-sync.lock"
PATIENT = 30  # seconds for an answer, where somebody waits for it on purpose
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
LARGEST = sys.float_info.max  # databases keep infinity as this

Point = tuple[int, int, float | None]  # step, timestamp in ms, value; None is NaN


class Unreachable(Exception):
    """The remote store did not answer, or cannot take anything now."""


@dataclass
class Sent:
    """What was sent."""

    runs: int = 0
    metrics: int = 0
    files: int = 0
    models: int = 0
    views: int = 0
    refused: list[str] = field(default_factory=list)  # sentences
    pages: list[str] = field(default_factory=list)  # sentences with the address of a view on the server
    changes: int = 0  # all that was sent, params, tags and states too

    def counts(self) -> dict[str, int]:
        """How many of each."""
        names = ("runs", "metrics", "files", "models", "views")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        parts = [f"{n:,} {words if n > 1 else words[:-1]}" for words, n in self.counts().items() if n]
        return f"sent {', '.join(parts)}" if parts else "nothing to send"


@dataclass(frozen=True)
class _Here:
    """A run as the local store has it."""

    run: MlflowRun
    experiment: str
    tags: dict[str, str]
    points: Mapping[str, list[Metric]]
    files: Mapping[str, Path]  # by their paths among the artifacts
    models: Sequence[LoggedModel]

    @property
    def inputs(self) -> list[DatasetInput]:
        return list(self.run.inputs.dataset_inputs) if self.run.inputs else []


@dataclass
class _There:
    """A run as the remote store has it, as far as it was asked and told."""

    run_id: str
    experiment_id: str
    params: dict[str, str]
    tags: dict[str, str]
    measured: set[str]  # names of metrics that have points
    inputs: set[tuple[str, str]]  # name and digest
    status: str
    end_time: int | None
    files: dict[str, int | None] | None  # sizes in bytes; None: not asked yet
    points: dict[str, set[Point]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # ids of those that are whole, by their ids here


@dataclass(frozen=True)
class Outcome:
    """What came of one remote store."""

    where: str
    sent: Sent
    failure: str | None = None  # why it did not take all


class Sync:
    """Sends runs and views from a local store to a remote one."""

    def __init__(self, out: Path, local: Store, remote: Store, timeout: int) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout))  # MLflow's own is 120 s
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # 7; a repeated POST may make a second run
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run, amid a result
        self.out = out.absolute()
        self.local = StoreClient(local)
        self.remote = StoreClient(remote)
        self._experiments: dict[str, str] = {}  # names by local id
        self._there: dict[str, _There] = {}  # by key; only what has been confirmed
        self._parents: dict[str, str | None] = {}  # remote ids of runs that have parts, by local id

    def send_run(self, run_id: str, sent: Sent) -> None:
        """Send what the remote store lacks of a local run. Raises Unreachable.

        A run that was deleted on either side is left alone.
        """
        here = self._here(run_id)
        key = here.tags.get(OWN_KEY)
        if key is None or is_deleted(here.run):
            return
        before = sent.changes
        try:
            with self._alone(), self._reaching(key):
                self._translate_parent(here, sent)
                there = self._find(here, key, sent)
                if there is not None:
                    self._send(here, there, sent)
        finally:
            sent.runs += sent.changes > before

    def model_there(self, run_id: str, model_id: str) -> tuple[str, str] | None:
        """Ids of a run and of its model in the remote store, after `send_run`; None where they are not there."""
        there = self._there.get(self._here(run_id).tags[OWN_KEY])
        return None if there is None or model_id not in there.models else (there.run_id, there.models[model_id])

    def send_views(self, experiment_id: str, sweeps: set[str], sent: Sent) -> None:
        """Send the saved views of some sweeps, which refer to their runs by params and tags. Raises Unreachable.

        The server gives an experiment a number of its own, so that only now a view's address is known.
        """
        experiment = self.local.mlflow.get_experiment(experiment_id)
        identities = {one(name) for name in sweeps for one in (views.view_id, views.trials_id)}
        wanted = {views.TAG + each for each in (*identities, views.view_id(views.TRAINING))}
        with self._alone(), self._reaching():
            there_id = self.remote.experiment_id(experiment.name)
            there = self.remote.mlflow.get_experiment(there_id).tags
            for tag, value in experiment.tags.items():
                if tag in wanted and there.get(tag) != value:
                    self.remote.mlflow.set_experiment_tag(there_id, tag, value)
                    sent.views += 1
                    sent.changes += 1
                    sent.pages += self._page(tag, value, there_id)
            noted = _note_there(experiment.tags, experiment_id, there_id)
            if noted:
                sent.changes += self.remote.note(there_id, noted[MLFLOW_NOTE])

    def _page(self, tag: str, value: str, experiment_id: str) -> list[str]:
        """`Trials of s: http://...`; nothing of a store that serves no pages, nor of the view of trainings."""
        where = self.remote.store.where.rstrip("/")
        if not where.startswith(("http://", "https://")):
            return []
        found = views.saved_views({tag: value})
        return [f"{one.name}: {where}/{views.view_path(experiment_id, one.identity)}" for one in found]

    def _here(self, run_id: str) -> _Here:
        client = self.local.mlflow
        run = client.get_run(run_id)  # first: what is logged meanwhile is seen the next time
        experiment = run.info.experiment_id
        if experiment not in self._experiments:
            self._experiments[experiment] = client.get_experiment(experiment).name
        points = {key: list(client.get_metric_history(run_id, key)) for key in run.data.metrics}
        tags = {key: value for key, value in run.data.tags.items() if key != REMOTE}
        kept = models.models_of(self.local, experiment, run_id) if tags.get(KIND) == "run" else []
        return _Here(run, self._experiments[experiment], tags, points, self._files_of(run), kept)

    def _translate_parent(self, here: _Here, sent: Sent) -> None:
        """Have a part of another run name that by its id in the remote store; a deleted one is not named."""
        parent = here.tags.pop(PARENT, None)
        if parent is None:
            return
        if parent not in self._parents:
            of = self._here(parent)
            there = None if is_deleted(of.run) else self._find(of, of.tags[OWN_KEY], sent)
            self._parents[parent] = None if there is None else there.run_id
        found = self._parents[parent]
        if found is not None:
            here.tags[PARENT] = found

    def _files_of(self, run: MlflowRun) -> dict[str, Path]:
        folder = Path(url2pathname(urlsplit(run.info.artifact_uri).path))
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def _find(self, here: _Here, key: str, sent: Sent) -> _There | None:
        """The remote run, made where there is none; None where somebody deleted it."""
        if key in self._there:
            return self._there[key]
        experiment = self.remote.experiment_id(here.experiment)
        run = self.remote.run_with_key(experiment, key)
        if run is not None and is_deleted(run):
            return None
        new = run is None
        if run is None:  # the key is part of the first call: a kill after it leaves a run that is found again
            tags = {name: value for name, value in here.tags.items() if name != FILES}
            run = self.remote.mlflow.create_run(experiment, here.run.info.start_time, tags, here.run.info.run_name)
            sent.changes += 1
        inputs = run.inputs.dataset_inputs if run.inputs else []
        self._there[key] = _There(
            run_id=run.info.run_id,
            experiment_id=experiment,
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            measured=set(run.data.metrics),
            inputs={(each.dataset.name, each.dataset.digest) for each in inputs},
            status=run.info.status,
            end_time=run.info.end_time,
            files={} if new else None,
        )
        return self._there[key]

    def _send(self, here: _Here, there: _There, sent: Sent) -> None:
        """All that is missing, the state last: a run that has ended is whole."""
        name, run_id, client = here.run.info.run_name, there.run_id, self.remote.mlflow
        params = {k: v for k, v in here.run.data.params.items() if k not in there.params}
        if params:
            self._try(f"params of {name}", sent, lambda: self.remote.log(run_id, params=params))
            there.params |= params
        self._send_metrics(here, there, sent)
        inputs = [each for each in here.inputs if (each.dataset.name, each.dataset.digest) not in there.inputs]
        if inputs:
            self._try(f"the data of {name}", sent, lambda: client.log_inputs(run_id, inputs))
            there.inputs |= {(each.dataset.name, each.dataset.digest) for each in inputs}
        self._send_files(here, there, sent)
        self._send_models(here, there, sent)
        noted = _note_there(here.tags, here.run.info.experiment_id, there.experiment_id)
        tags = {k: v for k, v in (here.tags | noted).items() if _differs(k, v, there.tags)}
        if not note_is_ours(there.tags):
            tags.pop(NOTE, None)
        if tags:  # after the files, whose digests are one
            self._try(f"tags of {name}", sent, lambda: self.remote.log(run_id, tags=tags))
            there.tags |= tags
        status, end_time = here.run.info.status, here.run.info.end_time
        if status == "RUNNING" and there.status != "RUNNING":
            self._try(f"the state of {name}", sent, lambda: client.update_run(run_id, status))
        elif status != "RUNNING" and (status, end_time) != (there.status, there.end_time):
            self._try(f"the state of {name}", sent, lambda: client.set_terminated(run_id, status, end_time))
        there.status, there.end_time = status, end_time

    def _send_metrics(self, here: _Here, there: _There, sent: Sent) -> None:
        missing = []
        for key, history in here.points.items():
            have = self._points(there, key, history)
            missing += [metric for metric in history if _point(metric) not in have]
        missing.sort(key=lambda metric: (metric.timestamp, metric.step))
        for some in pieces(missing, METRICS_AT_ONCE):
            if self._try(f"metrics of {here.run.info.run_name}", sent, partial(self.remote.log, there.run_id, some)):
                sent.metrics += len(some)
            for metric in some:
                there.points[metric.key].add(_point(metric))

    def _points(self, there: _There, key: str, history: list[Metric]) -> set[Point]:
        """The points of a metric that are there. Only we write them, so they are among those of `history`."""
        if key not in there.points:
            if key not in there.measured:
                there.points[key] = set()
            elif len(history) == 1:
                there.points[key] = {_point(history[0])}
            else:
                found = self.remote.mlflow.get_metric_history(there.run_id, key)
                there.points[key] = {_point(metric) for metric in found}
        return there.points[key]

    def _send_files(self, here: _Here, there: _There, sent: Sent) -> None:
        if not here.files:
            return
        if there.files is None:
            folders = {""} | {path.rpartition("/")[0] for path in here.files}
            listed = [self.remote.mlflow.list_artifacts(there.run_id, folder or None) for folder in folders]
            there.files = {each.path: each.file_size for found in listed for each in found if not each.is_dir}
        known = read_digests(there.tags)
        changed = {place for place, digest in read_digests(here.tags).items() if known.get(place) != digest}
        for path, file in here.files.items():
            size, place = file.stat().st_size, path.rpartition("/")[0]
            same = path in there.files and there.files[path] in (None, size)
            if same and not any(path == each or path.startswith(f"{each}/") for each in changed):
                continue
            log = self.remote.mlflow.log_artifact
            if self._try(path, sent, partial(log, there.run_id, str(file), place or None)):
                sent.files += 1
            there.files[path] = size

    def _send_models(self, here: _Here, there: _There, sent: Sent) -> None:
        for model in here.models:
            if model.model_id in there.models:
                continue
            try:
                found, new = models.copy_model(model, self.remote, there.experiment_id, there.run_id)
            except MlflowException as error:  # of a server before MLflow 3, for one
                if error.error_code not in REFUSALS:
                    raise
                what = f"the {model.name} of {here.run.info.run_name}"
                sent.refused.append(f"{self.remote.store.where} refused {what} ({reason(error)})")
                continue
            there.models[model.model_id] = found
            sent.models += new
            sent.changes += new

    def _try(self, what: str, sent: Sent, call: Callable[[], object]) -> bool:
        """Whether the remote store took it; what it refuses for good is left out, and said."""
        try:
            call()
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            sent.refused.append(f"{self.remote.store.where} refused {what} ({reason(error)})")
            return False
        sent.changes += 1
        return True

    @contextmanager
    def _reaching(self, key: str = "") -> Iterator[None]:
        """Turns failures into Unreachable; what was believed of the run is then asked again."""
        whole = False
        try:
            yield
            whole = True
        except FAILURES as error:
            raise Unreachable(reason(error)) from error
        finally:
            if not whole:
                self._there.pop(key, None)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One sender at a time for an output folder: two that find no run would make two."""
        with (self.out / LOCK).open("w") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def sync(out: Path, uri: str | None) -> list[Outcome]:
    """Send what remote stores lack of the runs in `out`.

    All runs go to `uri`; without one each goes where it was meant to, and one that was meant to stay goes to the
    environment's, if that names one. Raises RunError where nothing can be sent, SettingsError for a wrong URI.
    """
    if not (out / DATABASE).is_file():
        raise RunError(f"{out} holds no {DATABASE}", fix=(Verb("pretrain"), Change("out")))
    store = local_store(out)
    local = StoreClient(store)
    remotes = _Remotes(out, uri)
    meant: dict[Store, list[MlflowRun]] = {}
    try:
        experiments = [experiment.experiment_id for experiment in local.mlflow.search_experiments()]
        runs = [run for run in local.runs(experiments, f"tags.`{OWN_KEY}` LIKE '%'") if not is_deleted(run)]
        for run in runs:
            place = run.data.tags.get(REMOTE)
            remote = remotes.of(place)
            if remote is not None:
                meant.setdefault(remote, []).append(run)
                if place is None:
                    local.log(run.info.run_id, tags={REMOTE: remote.where})
    except FAILURES as error:
        raise cannot_be_used(store, error, OTHER_OUT[:1]) from error
    if runs and not meant:
        raise RunError(f"no run in {out} was meant for another MLflow store", fix=Set("tracking_uri"))
    return [_sync_with(Sync(out, store, remote, PATIENT), chosen) for remote, chosen in meant.items()]


class _Remotes:
    """The remote stores that runs are meant for, with the passwords that only a typed URI or the environment has."""

    def __init__(self, out: Path, uri: str | None) -> None:
        self.out = out
        self._found: dict[str, Store] = {}
        self.typed = None if uri is None else self._store(uri)
        default = os.environ.get("MLFLOW_TRACKING_URI") or "none"
        self.default = None if uri is not None or default.lower() == "none" else remote_store(out, default)

    def of(self, place: str | None) -> Store | None:
        """The store for a run that was meant for `place`."""
        if self.typed is not None or place is None:
            return self.typed or self.default
        return self.default if self.default and self.default.where == place else self._store(place)

    def _store(self, uri: str) -> Store:
        if uri.lower() == "none":
            raise SettingsError("the tracking URI is 'none', which is nowhere", fix=Change("tracking_uri"))
        found = self._found.get(uri) or remote_store(self.out, uri)
        if found is None:
            raise SettingsError(
                f"the tracking URI is {without_password(uri)}, where the runs are", fix=Change("tracking_uri")
            )
        self._found[uri] = found
        return found


def _sync_with(both: Sync, runs: list[MlflowRun]) -> Outcome:
    sent, where = Sent(), both.remote.store.where
    try:
        sweeps: dict[str, set[str]] = {}
        for run in runs:
            both.send_run(run.info.run_id, sent)
            sweeps.setdefault(run.info.experiment_id, set()).add(run.data.params.get("sweep", ""))
        for experiment, names in sweeps.items():
            both.send_views(experiment, names, sent)
    except Unreachable as error:
        return Outcome(where, sent, str(error))
    return Outcome(where, sent)


def _note_there(tags: Mapping[str, str], here: str, there: str) -> dict[str, str]:
    """A note of ours, its links to an experiment's pages by the id that it has there; empty where there is none."""
    if not tags.get(MLFLOW_NOTE) or not note_is_ours(tags):
        return {}
    return note_tags(tags[MLFLOW_NOTE].replace(f"#/experiments/{here}/", f"#/experiments/{there}/"))


def _differs(name: str, value: str, there: Mapping[str, str]) -> bool:
    """Whether a tag is to be sent: ours where it differs, MLflow's own only where it is missing, but a note."""
    own = name.startswith("mlflow.") and not (name == MLFLOW_NOTE and note_is_ours(there))
    return name not in there if own else there.get(name) != value


def _point(metric: Metric) -> Point:
    value = None if math.isnan(metric.value) else max(-LARGEST, min(LARGEST, metric.value))
    return metric.step, metric.timestamp, value
