"""`pretrain --seeds` and `--ray`: pretrainings that differ in their seed, in turn on this machine or on a cluster."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, console, runs
from ssl_app.commands import RecordedRun, RunSpec, record
from ssl_app.commands.base import hardware_of, out_flag
from ssl_app.commands.pretrain import FREE, Settings, begin, complete, prepared, run, stored_settings
from ssl_app.errors import RunError, SettingsError, Unset
from ssl_app.locks import locked
from ssl_app.runs import Result
from ssl_app.settings import NO_RAY
from ssl_app.transfer.replicates import name_of

if TYPE_CHECKING:
    from ssl_app.pretraining.run import Pretraining
    from ssl_app.training.ray_cluster import Cluster

logger = logging.getLogger(__name__)


def every_seed(given: Settings, own: Any, seeds: int) -> Result:
    """A pretraining and those of its further seeds: what of them is missing, or was stopped. -> the first."""
    if given.resume is None:
        for seed in range(given.seed, given.seed + seeds):  # refused now, not when the first has had its time
            runs.prepare(given.out, given.name and name_of(given.name, seed, given.seed), "pretrain")
    else:
        _grow(runs.find_run(given.out, given.resume), seeds)
    first = _here(given, own) if given.ray == NO_RAY else _on_cluster(given, own)
    labels = "" if first.more.get("labeled") else " --labels FILE"
    verb = f"sweep --init {quote(first.run.name)}" if seeds > 1 else f"finetune --init {quote(first.run.name)}"
    made = f"{seeds} pretrainings that differ in their seed" if seeds > 1 else first.more["checkpoint"]
    logger.info(f"done: {made}; now type ssl-app {verb}{labels}{out_flag(given.out)}")
    return first


def _here(given: Settings, own: Any) -> Result:
    """One after the other, in this process."""
    folder = None if given.resume is None else runs.find_run(given.out, given.resume)
    first = run(given, own, several=False) if folder is None or not runs.finished(folder) else _result(folder)
    own = stored_settings(first.run)[1]
    for one in _missing(first.run, given):
        run(one, own, several=False)
    return first


def _on_cluster(given: Settings, own: Any) -> Result:
    """All that are missing at a time, as nodes come free; the first one's folder is there from the start."""
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.distributed import Launch
    from ssl_app.training.ray_cluster import connected
    from ssl_app.training.signals import Stopped

    if Launch.here() is not None:
        raise SettingsError("torchrun trains in processes of its own", fix=Unset("ray"))
    folder = None if given.resume is None else runs.find_run(given.out, given.resume)
    if folder is not None and (folder / TRAINING).is_file():  # it was stopped on this machine, where its bits are
        run(replace(given, ray=NO_RAY), several=False)
    with connected(given.ray, hardware_of(given), given.gpu_share) as cluster, ExitStack() as stack:
        works: dict[str, tuple[Pretraining, RunSpec]] = {}
        begun: dict[str, RecordedRun] = {}
        if folder is None or not runs.finished(folder):
            first, own = (given, own) if folder is None else _again(folder, given)
            work, about = _prepared(first, own, cluster)
            one = stack.enter_context(record(replace(about, keep=runs.SETTINGS), folder))
            logger.info(f"run {one.folder}")
            begin(one, work)
            folder, works[one.folder.name], begun[one.folder.name] = one.folder, (work, about), one
        own = stored_settings(folder)[1]
        for further in _missing(folder, given):
            if further.resume is not None:
                run(further, several=False)
                continue
            with console.muted():  # it has been said of the first
                works[str(further.name)] = _prepared(further, own, cluster)
        try:
            _train(cluster, works, begun, stack)
        except Stopped as stopped:
            stopped.add_note(
                f"type ssl-app pretrain --resume {quote(folder.name)} --ray {given.ray}{out_flag(given.out)} to go on"
            )
            raise
    return _result(folder)


def _train(
    cluster: "Cluster",
    works: "dict[str, tuple[Pretraining, RunSpec]]",
    begun: dict[str, RecordedRun],
    stack: ExitStack,
) -> None:
    """Train on the nodes, and record each as it comes back; those that are begun end with the stack."""
    from ssl_app.pretraining.on_cluster import train_all

    room = f"{cluster.at_once} at a time" if cluster.at_once > 1 else "one at a time"
    logger.info(f"pretrainings for the Ray cluster: {len(works)}, {room}")
    for name, trained in train_all(cluster, {name: (work, about.settings) for name, (work, about) in works.items()}):
        work, about = works[name]
        with ExitStack() as own:
            if name in begun:
                own.push(stack.pop_all())
                one = begun[name]
            else:
                one = own.enter_context(record(about, None, time.monotonic() - trained.seconds))
                begin(one, work)
            one.more = trained.keep(one.folder, one.tracked)
            complete(one, work)
        logger.info(f"run {one.folder} has finished; its training took {trained.seconds:.0f} s")


def _prepared(settings: Settings, own: Any, cluster: "Cluster") -> "tuple[Pretraining, RunSpec]":
    from ssl_app.training.distributed import SingleProcess

    return prepared(settings, own, cluster.hardware, SingleProcess())


def _grow(folder: Path, seeds: int) -> None:
    """Write into a run's settings how many seeds it has from now on."""
    with locked(folder):
        content = runs.read_json(folder / runs.SETTINGS)
        runs.write_json(folder / runs.SETTINGS, content | {"settings": content["settings"] | {"seeds": seeds}})


def _again(folder: Path, given: Settings) -> tuple[Settings, Any]:
    """The settings of a run, to make it anew in its folder."""
    saved, own = stored_settings(folder)
    return replace(saved, out=folder.parent, name=folder.name, resume=None, **_free(given)), own


def _missing(folder: Path, given: Settings) -> Iterator[Settings]:
    """The settings of a pretraining's further seeds that have not finished: made anew, or gone on with (`resume`)."""
    from ssl_app.pretraining.run import TRAINING

    saved = replace(stored_settings(folder)[0], out=folder.parent, resume=None)
    for one in _replicates(folder, saved):
        assert one.name is not None
        place = one.out / one.name
        if runs.finished(place):
            continue
        if (place / TRAINING).is_file():
            yield replace(given, out=one.out, resume=one.name, name=None, ray=NO_RAY)
            continue
        if place.is_dir():
            with locked(place):
                shutil.rmtree(place, ignore_errors=True)  # killed before its first checkpoint
        yield replace(one, **_free(given))


def _free(given: Settings) -> dict[str, Any]:
    """What was given of that which may differ when a run goes on."""
    return {name: getattr(given, name) for name in FREE if getattr(given, name) != getattr(Settings(), name)}


def _result(folder: Path) -> Result:
    """What a finished run left."""
    content = runs.read_result(folder)
    more = {name: value for name, value in content.items() if name not in ("verb", "run", "seconds", "settings")}
    return Result(content["verb"], folder, content["seconds"], content["settings"], more)


def _replicates(folder: Path, settings: Settings) -> list[Settings]:
    """The settings of a pretraining's further seeds. Raises RunError where another run has the name of one."""
    from ssl_app.transfer.replicates import name_of

    first = settings.seed
    settings = replace(settings, budget=None)  # of the length that the first was given by it: of one kind with it
    found = []
    for seed in range(first + 1, first + settings.seeds):
        one = replace(settings, seed=seed, seeds=1, name=name_of(folder.name, seed, first))
        assert one.name is not None
        taken = folder.parent / one.name / runs.SETTINGS
        if taken.is_file():
            content = runs.read_json(taken)
            theirs, ours = content["settings"], config.as_json(one)
            unlike = [
                name
                for name in ("method", "data", "backbone", "image_size", "epochs", "seed")
                if ours[name] is not None and theirs.get(name) != ours[name]
            ]
            if content["verb"] != "pretrain" or unlike:
                raise RunError(f"run {taken.parent} is no pretraining of {folder.name} with seed {seed}; remove it")
        found.append(one)
    return found
