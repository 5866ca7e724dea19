"""Workers: trials in parallel, each in a process of its own thread count, so that their number changes no bit.

A sweep knows `Workers` alone: those of this machine are here, those of a cluster in `ray_workers`.
"""

import multiprocessing
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import runs
from ssl_app.errors import Fix, RunError, Set
from ssl_app.processes import follow_parent, followers_start
from ssl_app.training.hardware import prepare_process
from ssl_app.training.loop import Diverged
from ssl_app.training.signals import Stopped
from ssl_app.transfer import kept_predictions, trial
from ssl_app.transfer.trial import Job, TrialSetup

TABLES = ("per_class", "confusion")  # metrics that are tables: kept in the trial's file, not in the sweep's result
MOST_JOBS = 8  # where the user names none: each holds torch and a network


class TrialDiverged(RunError):
    """A trial's loss became nan or infinite. Travels between processes."""

    def __init__(self, found: str, init: str, fixes: Sequence[Fix] = ()) -> None:
        super().__init__(found, fix=fixes)
        self.init = init


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a sweep: what, on which labels, and where its result goes."""

    key: str  # names its folder
    init: str  # which initialization
    per_class: int
    job: Job
    fold: int | None = None  # of cross-validation

    @property
    def kept_as(self) -> str:
        """The key of its predictions, which all folds share."""
        if self.fold is None:
            return self.key
        return kept_predictions.key_of(self.init, self.job.strategy, self.per_class, self.job.draw)


@dataclass(frozen=True)
class Place:
    """Where trials of a sweep are written, and what makes those of an initialization trials of this sweep."""

    folder: Path
    identities: Mapping[str, str]


class Workers(Protocol):
    """Where trials run: in processes of this machine, or of others."""

    @property
    def at_once(self) -> int:
        """Trials at a time, for a prediction of how long all of them take."""
        ...

    def run(
        self, setups: dict[str, TrialSetup], trials: Sequence[PlannedTrial], place: Place
    ) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """Run trials as workers come free. -> (trial, its result without tables), in order of completion.

        A trial that is yielded lies in its folder. Raises RunError where one diverges, or its process is killed.
        """
        ...


@dataclass(frozen=True)
class Finished:
    """What a trial leaves, in whatever process it ran."""

    content: dict[str, Any]  # its result without tables
    tables: dict[str, Any]
    probabilities: NDArray[np.float64]  # (n, K)

    def keep(self, folder: Path, key: str) -> None:
        """Write it into the sweep's folder: the result last, by which a trial counts as finished."""
        kept_predictions.write(folder, key, self.probabilities)
        write_trial(folder, key, self.content, self.tables)


@dataclass(frozen=True)
class LocalWorkers:
    """Processes of this machine; one at a time is this process itself."""

    at_once: int

    def run(
        self, setups: dict[str, TrialSetup], trials: Sequence[PlannedTrial], place: Place
    ) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """See `Workers`. Each process writes what it has found."""
        workers = max(1, min(self.at_once, len(trials)))
        if workers == 1:
            for one in trials:
                yield one, _kept(setups[one.init], one, place)
            return
        reduction.ForkingPickler.register(np.memmap, _by_name)
        context = multiprocessing.get_context("spawn")  # a fork of a process that has used OpenMP may hang
        threads = torch.get_num_threads()
        with ProcessPoolExecutor(workers, context, _enter, (setups, threads)) as pool:
            with followers_start():
                waiting = {pool.submit(_run_here, one, place): one for one in trials}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):  # stopped: nobody waits for the trials that are under way
                    for worker in multiprocessing.active_children():
                        worker.kill()
                if isinstance(error, BrokenProcessPool):
                    raise RunError(
                        "a trial's process was killed, perhaps for memory; the finished trials are kept",
                        fix=Set("jobs", 1),
                    ) from error
                raise


def finish(setup: TrialSetup, one: PlannedTrial, place: Place) -> Finished:
    """Run a trial in this process. Raises TrialDiverged."""
    try:
        outcome = trial.run(setup, one.job)
    except Diverged as error:
        found = f"trial {one.key} of {place.folder}: {error.notice.found}; the finished trials are kept"
        raise TrialDiverged(found, one.init, error.notice.fixes) from error
    content = {
        "identity": place.identities[one.init],
        "init": one.init,
        "strategy": one.job.strategy,
        "per_class": one.per_class,
        "draw": one.job.draw,
        **({} if one.fold is None else {"fold": one.fold}),
        "labels_used": outcome.labels_used,
        "unlabeled_used": outcome.unlabeled_used,
        **({} if outcome.teacher_labels == 0 else {"teacher_labels": outcome.teacher_labels}),
        "steps": outcome.steps,
        "how": outcome.how,
        **({"warnings": list(outcome.warnings)} if outcome.warnings else {}),
        "seconds": outcome.seconds,
        **{name: value for name, value in outcome.test.items() if name not in TABLES},
    }
    return Finished(content, {name: outcome.test[name] for name in TABLES}, outcome.probabilities)


def _kept(setup: TrialSetup, one: PlannedTrial, place: Place) -> dict[str, Any]:
    found = finish(setup, one, place)
    found.keep(place.folder, one.key)
    return found.content


def write_trial(folder: Path, key: str, content: dict[str, Any], tables: dict[str, Any]) -> None:
    """A finished trial's file: its result, and the tables apart."""
    place = folder / "trials" / key
    place.mkdir(parents=True, exist_ok=True)
    runs.write_json(place / runs.RESULT, content | {"tables": tables})


def read_trial(place: Place, one: PlannedTrial) -> dict[str, Any] | None:
    """The result in a trial's file, without the tables; None where this sweep has none."""
    path = place.folder / "trials" / one.key / runs.RESULT
    content: dict[str, Any] = runs.read_json(path) if path.is_file() else {}
    if content.get("identity") != place.identities[one.init]:
        return None
    return {name: value for name, value in content.items() if name != "tables"}


HERE: dict[str, TrialSetup] = {}  # of a worker process


def _enter(setups: dict[str, TrialSetup], threads: int) -> None:
    follow_parent()
    prepare_process(threads)
    HERE.update(setups)


def _run_here(one: PlannedTrial, place: Place) -> dict[str, Any]:
    try:
        return _kept(HERE[one.init], one, place)
    except Stopped as stopped:  # a pool that takes it for a result would wait for this process for ever
        os._exit(int(str(stopped.code)))


def _by_name(array: "np.memmap[Any, Any]") -> tuple[Any, tuple[Any, ...]]:
    """Send a memory-mapped file by its name, not by its content."""
    return _map, (array.filename, array.dtype.str, array.offset, array.shape)


def _map(filename: str, dtype: str, offset: int, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    return np.memmap(filename, dtype, "r", offset, shape)
