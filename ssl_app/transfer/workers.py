"""Workers: trials in parallel, each in a process of its own thread count, so that their number changes no bit."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_app import environment, runs
from ssl_app.errors import Fix, RunError, Set
from ssl_app.training.loop import Diverged
from ssl_app.training.memory import keep_freed_memory
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


def run_all(
    setups: dict[str, TrialSetup], trials: Sequence[PlannedTrial], place: Place, workers: int
) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
    """Run trials as workers come free. -> (trial, its result without tables), in order of completion.

    Raises RunError where a trial diverges, or its process is killed.
    """
    if workers == 1:
        for one in trials:
            yield one, _run(setups[one.init], one, place)
        return
    reduction.ForkingPickler.register(np.memmap, _by_name)
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used OpenMP may hang
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(workers, context, _enter, (setups, threads)) as pool:
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


def _run(setup: TrialSetup, one: PlannedTrial, place: Place) -> dict[str, Any]:
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
    kept_predictions.write(place.folder, one.key, outcome.probabilities)
    write_trial(place.folder, one.key, content, {name: outcome.test[name] for name in TABLES})
    return content


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the sweep's own ends these
    environment.prepare_environment()
    torch.set_num_threads(threads)
    keep_freed_memory()
    HERE.update(setups)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the process that started this one, however that ended: SIGKILL asks nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(one: PlannedTrial, place: Place) -> dict[str, Any]:
    try:
        return _run(HERE[one.init], one, place)
    except Stopped as stopped:  # a pool that takes it for a result would wait for this process for ever
        os._exit(int(str(stopped.code)))


def _by_name(array: "np.memmap[Any, Any]") -> tuple[Any, tuple[Any, ...]]:
    """Send a memory-mapped file by its name, not by its content."""
    return _map, (array.filename, array.dtype.str, array.offset, array.shape)


def _map(filename: str, dtype: str, offset: int, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    return np.memmap(filename, dtype, "r", offset, shape)
