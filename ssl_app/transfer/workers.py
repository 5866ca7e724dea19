"""Trials in parallel: each in a process of its own thread count, so that --jobs changes no bit."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import environment, runs
from ssl_app.errors import RunError
from ssl_app.training.loop import Diverged
from ssl_app.training.memory import keep_freed_memory
from ssl_app.training.signals import Stopped
from ssl_app.transfer import trial
from ssl_app.transfer.trial import Bench

TABLES = ("per_class", "confusion")  # metrics that are tables: kept in the trial's file, not in the sweep's result
MOST_JOBS = 8  # where the user names none: each holds torch and a network


class TrialDiverged(RunError):
    """A trial's loss became nan or infinite. Travels between processes."""

    def __init__(self, sentence: str, init: str) -> None:
        super().__init__(sentence)
        self.init = init

    def __reduce__(self) -> tuple[type["TrialDiverged"], tuple[str, str]]:
        return TrialDiverged, (str(self), self.init)


@dataclass(frozen=True)
class Job:
    """One trial to run: what, on which labels, and where its result goes."""

    key: str  # names its folder
    bench: str  # which initialization
    strategy: str
    per_class: int
    draw: int
    drawn: NDArray[np.int64]  # rows


def run_all(
    benches: dict[str, Bench], jobs: Sequence[Job], folder: Path, workers: int, identity: str
) -> Generator[tuple[Job, dict[str, Any]]]:
    """Run trials as they come free. -> (job, its result without tables), in order of completion.

    Raises RunError where a trial diverges, or its process is killed.
    """
    if workers == 1:
        for job in jobs:
            yield job, _run(benches[job.bench], job, folder, identity)
        return
    reduction.ForkingPickler.register(np.memmap, _by_name)
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used OpenMP may hang
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(workers, context, _enter, (benches, threads)) as pool:
        waiting = {pool.submit(_run_here, job, folder, identity): job for job in jobs}
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
                    "a trial's process was killed, perhaps for memory; the finished trials are kept: "
                    "type the same with --jobs 1"
                ) from error
            raise


def _run(bench: Bench, job: Job, folder: Path, identity: str) -> dict[str, Any]:
    try:
        outcome = trial.run(bench, job.strategy, job.drawn, job.draw)
    except Diverged as error:
        said = f"trial {job.key} of {folder}: {error}; the finished trials are kept"
        raise TrialDiverged(said, job.bench) from error
    content = {
        "identity": identity,
        "init": job.bench,
        "strategy": job.strategy,
        "per_class": job.per_class,
        "draw": job.draw,
        "labels_used": outcome.labels_used,
        "how": outcome.how,
        "seconds": outcome.seconds,
        **{name: value for name, value in outcome.test.items() if name not in TABLES},
    }
    write_trial(folder, job.key, content, {name: outcome.test[name] for name in TABLES})
    return content


def write_trial(folder: Path, key: str, content: dict[str, Any], tables: dict[str, Any]) -> None:
    """A finished trial's file: its result, and the tables apart."""
    place = folder / "trials" / key
    place.mkdir(parents=True, exist_ok=True)
    runs.write_json(place / runs.RESULT, content | {"tables": tables})


def read_trial(folder: Path, key: str, identity: str) -> dict[str, Any] | None:
    """The result in a trial's file, without the tables; None where this sweep has none."""
    path = folder / "trials" / key / runs.RESULT
    content: dict[str, Any] = runs.read_json(path) if path.is_file() else {}
    if content.get("identity") != identity:
        return None
    return {name: value for name, value in content.items() if name != "tables"}


HERE: dict[str, Bench] = {}  # of a worker process


def _enter(benches: dict[str, Bench], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the sweep's own ends these
    environment.prepare_environment()
    torch.set_num_threads(threads)
    keep_freed_memory()
    HERE.update(benches)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the process that started this one, however that ended: SIGKILL asks nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(job: Job, folder: Path, identity: str) -> dict[str, Any]:
    try:
        return _run(HERE[job.bench], job, folder, identity)
    except Stopped as stopped:  # a pool that takes it for a result would wait for this process for ever
        os._exit(int(str(stopped.code)))


def _by_name(array: "np.memmap[Any, Any]") -> tuple[Any, tuple[Any, ...]]:
    """Send a memory-mapped file by its name, not by its content."""
    return _map, (array.filename, array.dtype.str, array.offset, array.shape)


def _map(filename: str, dtype: str, offset: int, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    return np.memmap(filename, dtype, "r", offset, shape)
