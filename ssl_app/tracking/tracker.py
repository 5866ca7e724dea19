"""MlflowTracker: runs in the local MLflow store, which a background thread sends on where a server is named."""

import getpass
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.entities import Run as MlflowRun

from ssl_app.tracking import background, models, views
from ssl_app.tracking.background import Background
from ssl_app.tracking.base import Network, Run, TrialRecord
from ssl_app.tracking.client import (
    COMMIT,
    DIGEST,
    FAILURES,
    FILES,
    KEY,
    KIND,
    OWN_KEY,
    PARENT,
    REMOTE,
    SWEEP,
    TAG,
    VALUE,
    StoreClient,
    is_deleted,
    note_is_ours,
    note_tags,
    read_digests,
)
from ssl_app.tracking.dead import end_the_dead
from ssl_app.tracking.identity import derived_key, folder_key
from ssl_app.tracking.nowhere import NowhereRun
from ssl_app.tracking.source import source_of
from ssl_app.tracking.store import OTHER_OUT, OTHER_REMOTE, cannot_be_used, local_store, reason, remote_store

logger = logging.getLogger(__name__)


class MlflowTracker:
    """Runs, trials and views in one experiment of the local store."""

    def __init__(self, local: StoreClient, experiment: str, sender: Background | None) -> None:
        self.local = local
        self.experiment = experiment
        self.sender = sender
        self._trials: dict[str, dict[str, MlflowRun]] = {}  # by the sweep's key and the trial's
        self._finished: set[str] = set()  # keys of trials that this process logged
        self._curves: dict[str, str] = {}  # run ids by key
        self._parents: dict[str, str] = {}  # run ids of sweeps by key
        self._unlogged: list[tuple[TrialRecord, Path]] = []  # trials that the store did not take

    @classmethod
    def open(cls, out: Path, uri: str | None, experiment: str) -> "MlflowTracker":
        """Make the local store where it is missing. Raises SettingsError and RunError as open_tracker does."""
        remote = None if uri is None else remote_store(out, uri)
        local = StoreClient(local_store(out))
        opened = [(local, OTHER_OUT)]
        if remote is not None and remote.uri.startswith("sqlite"):  # a file answers at once, or not at all
            opened.append((StoreClient(remote), OTHER_REMOTE))
        for client, fixes in opened:
            try:
                client.experiment_id(experiment)
                if client is local:
                    end_the_dead(local, experiment, out)
            except FAILURES as error:
                raise cannot_be_used(client.store, error, fixes) from error
        return cls(local, experiment, None if remote is None else background.sender(out, local.store, remote))

    @property
    def where(self) -> str:
        """In words for people, without passwords."""
        here = f"{self.local.store.where} (ssl-app ui shows it)"
        return here if self.sender is None else f"{here}, sent on to {self.sender.where}"

    def start(
        self, name: str, folder: Path, params: Mapping[str, object], tags: Mapping[str, str] | None = None
    ) -> Run:
        """Start a run, or go on with the one that `folder` was kept as before."""
        flat = flatten(params)
        try:
            run = self._run_of(folder.absolute(), name)
            there = run.data.params
            added = {plain_key(key): str(value)[:TAG] for key, value in (tags or {}).items()}
            # a param cannot be changed; what a resumed run does otherwise is a tag
            added |= {f"resumed.{k}": v[:TAG] for k, v in flat.items() if there.get(k, v) != v}
            missing = {k: v for k, v in flat.items() if k not in there}
            self.local.log(run.info.run_id, params=missing, tags=added | self._retarget(run))
            if run.info.status != "RUNNING":
                self.local.mlflow.update_run(run.info.run_id, status="RUNNING")
        except FAILURES as error:
            self.warn(f"run {name}", error)
            return NowhereRun()
        self.send(run.info.run_id)
        return TrackedRun(self, run)

    def log_trials(self, trials: Sequence[TrialRecord], parent_folder: Path) -> None:
        """Keep finished trials, each once, however often this is called."""
        waiting = [*self._unlogged, *((trial, parent_folder.absolute()) for trial in trials)]
        for position, (trial, parent) in enumerate(waiting):
            try:
                self._log_trial(trial, parent)
            except FAILURES as error:
                self._unlogged = waiting[position:]  # with the next ones
                self.warn(f"trial {trial.name}", error)
                return
        self._unlogged = []

    def save_views(self, sweep: str) -> Mapping[str, str]:
        """Save the pages that compare the trials of a sweep.

        -> by name, what follows the server's address; empty where they could not be saved.
        """
        mark = '"' if "'" in sweep else "'"
        curves, trials = (f"params.sweep = {mark}{sweep}{mark} and tags.`{KIND}` = '{k}'" for k in ("curve", "trial"))
        try:
            experiment = self.local.experiment_id(self.experiment)
            one, another = (
                next(iter(self.local.mlflow.search_runs([experiment], chosen, max_results=1)), None)
                for chosen in (curves, trials)
            )
            scores = [name.rpartition("/")[2] for name in one.data.metrics] if one else []
            metrics = sorted(another.data.metrics) if another else []
            for view in (
                views.label_efficiency(sweep, curves, scores, now()),
                views.trials(sweep, trials, metrics, now()),
                views.training_runs(f"tags.`{KIND}` = 'run'", now()),
            ):
                self.local.mlflow.set_experiment_tag(experiment, view.tag, view.value)
        except FAILURES as error:
            self.warn(f"the views of {sweep}", error)
            return {}
        if self.sender is not None:
            self.sender.send_views(experiment, sweep)
        return {
            "label efficiency": views.view_path(experiment, views.view_id(sweep)),
            "trials": views.view_path(experiment, views.trials_id(sweep)),
        }

    def note(self, text: str) -> None:
        """What is said of all runs at the top of their page, in Markdown, unless people have written there."""
        try:
            self.local.note(self.local.experiment_id(self.experiment), text[:TAG])
        except FAILURES as error:
            self.warn("the note of all runs", error)

    def model_of(self, folder: Path, network: Network) -> tuple[str, str]:
        """The run of a folder that has finished, and its model, each made where the store has none; their ids.

        Raises what MLflow raises (FAILURES).
        """
        run = self._run_of(folder.absolute(), folder.name)
        key = derived_key(run.data.tags[OWN_KEY], network.kind)
        found = models.model_with_key(self.local, run.info.experiment_id, key)
        if found is None or not models.is_whole(found):
            found = models.log_model(self.local, run, network, key)
        if run.info.status == "RUNNING":  # made just now, or stopped before it could say so
            self.local.mlflow.set_terminated(run.info.run_id, "FINISHED", now())
        return run.info.run_id, found.model_id

    def send(self, run_id: str) -> None:
        """Have the background send what is new of a run."""
        if self.sender is not None:
            self.sender.send(run_id)

    def warn(self, what: str, error: Exception) -> None:
        """Say that the local store did not take something."""
        logger.warning(f"tracking: {self.local.store.where} did not take {what} ({reason(error)})")

    def _log_trial(self, trial: TrialRecord, parent: Path) -> None:
        sweep = folder_key(parent)
        key = derived_key(sweep, os.path.relpath(trial.folder.absolute(), parent))
        run = self._trials_of(sweep).get(key)
        params = flatten({"arm": arm_of(trial.params), "sweep": parent.name, "per_class": trial.per_class})
        params |= flatten(trial.params)
        if run is not None and (is_deleted(run) or run.info.status == "FINISHED" or key in self._finished):
            if not is_deleted(run):
                self.send(self._curve(sweep, params, run.info.start_time))
                self.local.log(run.info.run_id, tags=self._retarget(run))
                self.send(run.info.run_id)
            return
        if run is None:
            run = self._create(trial.name, key, "trial", now(), {SWEEP: sweep} | self._child_of(sweep))
            self._trials_of(sweep)[key] = run
        at = run.info.start_time  # of the first attempt: a second one then makes no new points
        values = {plain_key(k.removeprefix("test_")): float(v) for k, v in trial.metrics.items()}
        step = trial.per_class  # the x axis of MLflow's own line charts
        points = [
            Metric(f"{views.SECTION}/{name}", values[name], at, step) for name in views.SCORES if name in values
        ]
        tests = [Metric(f"test_{name}", value, at, 0) for name, value in values.items()]
        missing = {k: v for k, v in params.items() if k not in run.data.params}
        self.local.log(run.info.run_id, tests + points, missing, self._retarget(run))
        curve = self._curve(sweep, params, at)
        self.local.log(curve, points)
        self.local.mlflow.set_terminated(run.info.run_id, "FINISHED", at)
        self._finished.add(key)
        self.send(run.info.run_id)
        self.send(curve)

    def _trials_of(self, sweep: str) -> dict[str, MlflowRun]:
        """The trials of a sweep that the store has, by key; deleted ones stay deleted, and are among them."""
        if sweep not in self._trials:
            experiment = self.local.experiment_id(self.experiment)
            found = self.local.runs([experiment], f"tags.`{SWEEP}` = '{sweep}'")
            self._trials[sweep] = {run.data.tags.get(OWN_KEY, ""): run for run in found}
        return self._trials[sweep]

    def _curve(self, sweep: str, of_trial: Mapping[str, str], at: int) -> str:
        """The run that holds one arm's scores over all budgets, for one draw; its id.

        MLflow's page reads the first 100 runs, fewer than a sweep has trials, and draws means of those.
        """
        params = {name: of_trial.get(name, "") for name in ("sweep", "arm", "init", "strategy", "draw")}
        key = derived_key(sweep, *params.values())
        if key not in self._curves:
            run = self.local.run_with_key(self.local.experiment_id(self.experiment), key)
            if run is None or is_deleted(run):
                name = f"{params['arm']}, draw {params['draw']}"
                run = self._create(name, key, "curve", at, self._child_of(sweep))
            missing = {k: v for k, v in params.items() if v and k not in run.data.params}
            self.local.log(run.info.run_id, params=missing, tags=self._retarget(run))
            self.local.mlflow.set_terminated(run.info.run_id, "FINISHED", at)
            self._curves[key] = run.info.run_id
        return self._curves[key]

    def _child_of(self, sweep: str) -> dict[str, str]:
        """The tag that makes a run a part of its sweep's, where the store has that."""
        if sweep not in self._parents:
            found = self.local.run_with_key(self.local.experiment_id(self.experiment), sweep)
            if found is None:
                return {}
            self._parents[sweep] = found.info.run_id
        return {PARENT: self._parents[sweep]}

    def _run_of(self, folder: Path, name: str) -> MlflowRun:
        """The folder's run: the one it had, or a new one. A run that somebody deleted is begun anew."""
        key = folder_key(folder)
        experiment = self.local.experiment_id(self.experiment)
        found = list(self.local.runs([experiment], f"tags.`{OWN_KEY}` LIKE '{key}%'"))
        living = [run for run in found if not is_deleted(run)]
        if living:
            return living[-1]
        return self._create(name, f"{key}.{len(found)}" if found else key, "run", now(), {})

    def _create(self, name: str, key: str, kind: str, at: int, more: Mapping[str, str]) -> MlflowRun:
        experiment = self.local.experiment_id(self.experiment)
        tags = {OWN_KEY: key, KIND: kind, "mlflow.source.name": "ssl-app", "mlflow.user": _user()} | _source()
        if self.sender is not None:
            tags[REMOTE] = self.sender.where
        return self.local.mlflow.create_run(experiment, at, tags | dict(more), name)

    def _retarget(self, run: MlflowRun) -> dict[str, str]:
        """The tag that says where a run is sent on to, where that is another place than before."""
        if self.sender is None or run.data.tags.get(REMOTE) == self.sender.where:
            return {}
        return {REMOTE: self.sender.where}


class TrackedRun:
    """A run under way in an MlflowTracker."""

    def __init__(self, tracker: MlflowTracker, run: MlflowRun) -> None:
        self.tracker = tracker
        self.run_id: str = run.info.run_id
        self.name: str = run.info.run_name
        self._key = run.data.tags[OWN_KEY]
        self._last: dict[str, Metric] = {}  # by name
        self._data: dict[str, tuple[str, str]] = {}  # name and digest by context
        self._files = read_digests(run.data.tags)
        self._unlogged: list[Metric] = []  # that the store did not take

    def metrics(self, values: Mapping[str, float], step: int, timestamp: float | None = None) -> None:
        """Values at a step, logged together.

        A resumed run that repeats a step passes its first `timestamp` (seconds): no second point then.
        """
        at = now() if timestamp is None else int(timestamp * 1000)
        self._unlogged += [Metric(plain_key(key), float(value), at, step) for key, value in values.items()]
        self._last |= {one.key: one for one in self._unlogged}
        try:
            self.tracker.local.log(self.run_id, self._unlogged)
        except FAILURES as error:
            self.tracker.warn(f"metrics of {self.name}", error)  # they go with the next ones
            return
        self._unlogged = []
        self.tracker.send(self.run_id)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all in it."""
        if not path.exists():
            logger.warning(f"tracking: {path} is gone, and not kept with {self.name}")
            return
        place = "/".join(part for part in (folder, path.name) if part)
        try:
            if path.is_dir():
                self.tracker.local.mlflow.log_artifacts(self.run_id, str(path), place)
            else:
                self.tracker.local.mlflow.log_artifact(self.run_id, str(path), folder)
            self._files[place] = digest_of(path)
            self.tracker.local.log(self.run_id, tags={FILES: json.dumps(self._files)[:TAG]})
        except FAILURES as error:
            self.tracker.warn(f"{path.name} of {self.name}", error)
        self.tracker.send(self.run_id)

    def data(self, name: str, digest: str, context: str, profile: Mapping[str, object] | None = None) -> None:
        """Which data the run read, and what for (unlabeled, labeled draw, test); numbers of images in `profile`."""
        source = f'{{"uri": "{quote(name, safe="/:.-_ ")}"}}'
        dataset = Dataset(name, digest[:DIGEST], "local", source, profile=profile and json.dumps(profile)[:VALUE])
        self._data[context] = (name, digest[:DIGEST])
        tags = [InputTag("mlflow.data.context", context)]
        try:
            self.tracker.local.mlflow.log_inputs(self.run_id, [DatasetInput(dataset, tags)])
        except FAILURES as error:
            self.tracker.warn(f"the data of {self.name}", error)
        self.tracker.send(self.run_id)

    def model(self, network: Network, context: str) -> None:
        """Keep a network as a model, with the metrics so far, which are of the data of that context."""
        local = self.tracker.local
        try:
            run = local.mlflow.get_run(self.run_id)
            measured = models.Measured(list(self._last.values()), self._data.get(context))
            models.log_model(local, run, network, derived_key(self._key, network.kind), measured)
        except FAILURES as error:
            self.tracker.warn(f"the {network.kind} of {self.name}", error)
        self.tracker.send(self.run_id)

    def note(self, text: str) -> None:
        """What is said of the run at the top of its page, in Markdown, unless people have written there."""
        try:
            local = self.tracker.local
            if note_is_ours(local.mlflow.get_run(self.run_id).data.tags):
                local.log(self.run_id, tags=note_tags(text[:TAG]))
        except FAILURES as error:
            self.tracker.warn(f"the note of {self.name}", error)
        self.tracker.send(self.run_id)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        try:
            self.tracker.local.log(self.run_id, self._unlogged)
            self.tracker.local.mlflow.set_terminated(self.run_id, status, now())
        except FAILURES as error:
            self.tracker.warn(f"the end of {self.name}", error)
        self.tracker.send(self.run_id)


def now() -> int:
    """Milliseconds, as MLflow counts."""
    return int(time.time() * 1000)


def plain_key(key: str) -> str:
    """A name that MLflow takes: letters, digits and _-. :/"""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII)[:KEY].strip("/") or "_"


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings as MLflow's params: nested ones with dots, values as one types them (1,2,4; true; none)."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = plain_key(f"{prefix}{key}")
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = as_typed(value)[:VALUE]
    return flat


def as_typed(value: object) -> str:
    """A value as the user would type it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(as_typed(item) for item in value)
    return str(value)


def arm_of(params: Mapping[str, str]) -> str:
    """What the legend calls a trial's arm: `two-stage from pretrain-1`, `full-fine-tuning from scratch`."""
    init = params.get("init") or "none"
    return f"{params.get('strategy', 'trained')} from {'scratch' if init == 'none' else Path(init).name}"


def digest_of(path: Path) -> str:
    """A digest of a file's content, or of all files of a folder with their names."""
    digest = hashlib.blake2b(digest_size=8)
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while some := content.read(1 << 20):
                digest.update(some)
    return digest.hexdigest()


def _source() -> dict[str, str]:
    """Tags of the code that runs: its version, and its commit where that is known."""
    version, commit = source_of()
    return {"ssl_app.version": version} | ({} if commit is None else {COMMIT: commit})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
