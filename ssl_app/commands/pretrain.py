"""Pretrain a backbone on unlabeled images by a pretext method.

With no argument it pretrains on scikit-learn's digits, in two minutes. Labels, where there are
any, are not used; a set's test part, and what --exclude names, is left out.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config, console, registry, runs
from ssl_app.commands import RecordedRun, RunSpec, record
from ssl_app.commands.base import DIGITS, data_of, hardware_of, out_flag, pixels_of, refuse_gpu_share
from ssl_app.errors import CheckpointError, RunError, Set, SettingsError, UserError
from ssl_app.locks import locked
from ssl_app.runs import Result
from ssl_app.settings import COLOR_CHANNELS, COLOR_METHOD, GRAY_METHOD, NO_RAY, PretrainSettings

if TYPE_CHECKING:
    from ssl_app.data.spec import DataSpec, PixelSpec
    from ssl_app.pretraining.inputs import PretrainSpec
    from ssl_app.pretraining.run import Pretraining
    from ssl_app.training.distributed import SingleProcess
    from ssl_app.training.hardware import Hardware

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app pretrain
ssl-app pretrain --data scans/ --image-size 64 --epochs 50
ssl-app pretrain --data all.csv --group patient --exclude labeled.csv
ssl-app pretrain --method sela --help
ssl-app pretrain --data scans/ --augment strong --show-views
ssl-app pretrain --data scans/ --seeds 3 --name scans
ssl-app pretrain --data scans/ --seeds 3 --name scans --ray auto
ssl-app pretrain --resume pretrain-20261121-101500
torchrun --nproc-per-node 2 -m ssl_app pretrain --data scans/
"""

FREE = (
    "any_threads",
    "threads",
    "workers",
    "save_every",
    "tracking_uri",
    "device",
    "ray",
    "gpu_share",
)  # may differ when a run goes on

EVERY_VERB = {"recipe", "json", "help"}  # flags that are no settings

Settings = PretrainSettings
ALIKE = (
    "budget", "data", "label", "group", "split", "axis", "test_fraction", "split_seed", "image_size", "channels",
    "intensity", "seed", "method", "backbone",
)  # fmt: skip


def joined(values: Mapping[str, Any]) -> type | None:
    """The settings of the method that the flags or the recipe name. Raises SettingsError for those of none."""
    if values.get("resume"):
        return None
    if "method" in values:
        return method_of(str(values["method"])).Config  # type: ignore[no-any-return]
    shared = {field.name for field in fields(Settings)} | EVERY_VERB
    for name in sorted(one for one in values if one.removeprefix("no_") not in shared):
        theirs = [one for one in registry.names("pretext") if name.removeprefix("no_") in _own_names(one)]
        if theirs:
            raise SettingsError(
                f"{config.flag(name)} is a setting of {', '.join(theirs)}, and no method is named",
                fix=Set("method", theirs[0]),
            )
    return None


def _own_names(method: str) -> set[str]:
    """Names of a method's own settings."""
    return {field.name for field in fields(method_of(method).Config)}


def method_of(name: str) -> Any:
    """The class of a method. Raises SettingsError for what is none."""
    method = registry.find("pretext", name)
    for needed in ("Config", "loss", "score"):
        if not hasattr(method, needed):
            raise SettingsError(
                f"--method {name} is no pretext method (no '{needed}'); derive from ssl_app.pretext.base.Pretext"
            )
    return method


def run(settings: Settings, own: Any = None, several: bool = True) -> Result:
    """Pretrain, or go on with a pretraining. `own` is the method's Config; None: its defaults.

    With several seeds it makes one run for each, unless `several` is off; the result is that of the first.
    """
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.distributed import processes

    if settings.show_views:
        return _show_views(settings, own)
    if settings.ray == NO_RAY:
        refuse_gpu_share(settings)
    again = _restarted(settings)
    if again is not None:
        settings, own = again, None
    if several and (settings.ray != NO_RAY or _seeds(settings) > 1):
        from ssl_app.commands._seeds import every_seed

        return every_seed(settings, own, _seeds(settings))
    started = time.monotonic()
    _refuse_two_lengths(settings)
    resumed: Path | None = None
    if settings.resume is not None:
        settings, own, resumed = _resumed(settings)
        if runs.finished(resumed):
            raise RunError(f"run {resumed} has finished; type ssl-app finetune --init {resumed.name}")
    elif _names_the_run():
        runs.prepare(settings.out, settings.name, "pretrain")
    hardware = hardware_of(settings)
    group = processes(hardware.device.type == "cuda")
    leader = group.rank == 0
    with closing(group):
        if not leader:
            console.hide_messages()
        logger.info(hardware.sentence())
        work, about = prepared(settings, own, hardware, group)
        if resumed is not None and leader:
            runs.clear_half_made(resumed)
        recorded = record(about, resumed, started) if leader else _unrecorded(about, started)
        with ExitStack() as stack:
            one = group.run_in_all(lambda: stack.enter_context(recorded))
            folder: Path = group.broadcast(one.folder)
            logger.info(f"run {folder}")
            if leader:
                _keep_launch(folder)
                begin(one, work)
            with _resumable(folder, settings.out):
                one.more = work.train(folder, _checkpointing(settings, folder), one.tracked, about.settings)
            complete(one, work, leader)
        if leader:
            (folder / TRAINING).unlink(missing_ok=True)  # not before: a kill in between would train all over
            logger.info(f"done: {one.more['checkpoint']}; {_following(work, settings.out)}")
        group.barrier()
    return replace(one.result(), run=folder)


def prepared(
    settings: Settings, own: Any, hardware: "Hardware", group: "SingleProcess"
) -> tuple["Pretraining", RunSpec]:
    """A pretraining before its first step, and what its run is recorded as. Raises UserError."""
    from ssl_app.pretraining.run import TRAINING, Pretraining

    work = group.run_in_all(lambda: Pretraining.prepare(_spec(settings, own, group), hardware, group))
    stored = config.as_json(_resolved(settings, work)) | {"method_settings": config.as_json(work.inputs.spec.config)}
    return work, RunSpec("pretrain", settings.out, settings.name, stored, settings.tracking_uri, TRAINING)


def begin(one: RecordedRun, work: "Pretraining") -> None:
    """Write what the data and the machine are."""
    _keep_about(work, one.folder)
    one.read(work.inputs.dataset, {"unlabeled": work.inputs.train, "validation": work.inputs.validation})


def complete(one: RecordedRun, work: "Pretraining", leader: bool = True) -> None:
    """Add to a trained run what is said of it, and its network to the tracking."""
    from ssl_app.training.initialization import BACKBONE

    one.more["labeled"] = int(work.inputs.dataset.labeled.sum())
    warning = one.more["warning"]
    one.more["warning"] = None if warning is None else warning.sentence(config.flag)
    if leader:
        one.keep_model(one.folder / BACKBONE, "unlabeled")
        one.note = _note(work, one.more)


def ensured(requested: Settings) -> dict[str, Any]:
    """result.json of a pretraining of this name, as part of another verb: as it is, gone on with, or new.

    Raises RunError where a run of this name is another, UserError where its place is at fault and not its method.
    """
    from ssl_app.pretraining.run import TRAINING

    assert requested.name is not None
    folder = requested.out / requested.name
    if (folder / runs.SETTINGS).is_file():
        _refuse_another(folder, config.as_json(requested))
    if runs.finished(folder):
        found: dict[str, Any] = runs.read_result(folder)
        return found
    if (folder / TRAINING).is_file():
        resumed = Settings(out=requested.out, resume=requested.name, tracking_uri=requested.tracking_uri)
        try:
            return dict(run(resumed, None).to_json())
        except CheckpointError as error:
            cure = f"ssl-app pretrain --resume {requested.name} --any-threads{out_flag(requested.out)}"
            raise CheckpointError(f"{error.sentence(config.flag)}: {cure}, and then the same again") from error
    if (folder / runs.SETTINGS).is_file():  # killed before its first checkpoint
        with locked(folder):
            shutil.rmtree(folder)
    try:
        return dict(run(requested, None).to_json())
    except (RunError, CheckpointError) as error:  # of the place, not of the method
        raise UserError(error.notice.found, expected=error.notice.expected, fix=error.notice.fixes) from error


def _refuse_another(folder: Path, requested: Mapping[str, Any]) -> None:
    """Raise RunError where a run of this name is another pretraining."""
    content = runs.read_json(folder / runs.SETTINGS)
    kept = content["settings"]
    unlike = [key for key in ALIKE if requested[key] is not None and kept.get(key) != requested[key]]
    if content["verb"] != "pretrain" or unlike:
        what = f"other settings ({', '.join(unlike)})" if unlike else "another verb"
        raise RunError(f"run {folder} is of {what}; remove it, or type another --name")


def _restarted(given: Settings) -> Settings | None:
    """The settings to go on with where torchrun has started the same command anew; None: nothing is there.

    A run that was killed before its first checkpoint is removed, by the process that will make it again.
    """
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.distributed import Launch
    from ssl_app.transfer.replicates import first_of

    launch = Launch.here()
    if launch is None or not launch.restarts or given.resume is not None:
        return None
    for folder in reversed(runs.runs_of(given.out, "pretrain")):
        name, restarts = runs.read_json(folder / runs.SETTINGS).get("launch", ("", 0))
        if name != launch.name or restarts >= launch.restarts:  # what another process has made since is no end
            continue
        if (folder / TRAINING).is_file() or (runs.finished(folder) and given.seeds > 1):
            first = first_of(given.out, folder.name)
            logger.info(f"torchrun has started this anew: {first} goes on from its checkpoint")
            kept = {name: getattr(given, name) for name in FREE}
            return Settings(out=given.out, resume=first, seeds=given.seeds, **kept)
        if launch.leads and not runs.finished(folder):
            shutil.rmtree(folder)
    return None


def _names_the_run() -> bool:
    """Whether this process looks if the name is free: after a restart of torchrun the first is still removing it."""
    from ssl_app.training.distributed import Launch

    launch = Launch.here()
    return launch is None or launch.leads or not launch.restarts


def _keep_launch(folder: Path) -> None:
    """Write which torchrun makes the run, so that its restart finds it."""
    from ssl_app.training.distributed import Launch

    launch = Launch.here()
    if launch is not None:
        content = runs.read_json(folder / runs.SETTINGS)
        runs.write_json(folder / runs.SETTINGS, content | {"launch": [launch.name, launch.restarts]})


def _seeds(settings: Settings) -> int:
    """How many pretrainings are to be made: as many as were asked for now, or when the run was started."""
    if settings.resume is None:
        return settings.seeds
    return max(settings.seeds, stored_settings(runs.find_run(settings.out, settings.resume))[0].seeds)


def _show_views(settings: Settings, own: Any) -> Result:
    """Draw what the network of such a pretraining would see; no run is made. Raises SettingsError with a resume."""
    from ssl_app.pretraining.run import Pretraining
    from ssl_app.pretraining.views import VIEWS
    from ssl_app.training.distributed import SingleProcess

    started = time.monotonic()
    if settings.resume is not None:
        raise SettingsError(
            f"--show-views is for a new pretraining; the views of {settings.resume} are in its folder"
        )
    runs.prepare_out(settings.out)
    group = SingleProcess()
    spec = _spec(replace(settings, budget=None), own, group)
    work = Pretraining.prepare(spec, hardware_of(settings), group)
    name = VIEWS if settings.name is None else f"{settings.name}-{VIEWS}"
    path = work.draw_views(settings.out / name)
    logger.info(f"views: {path}; nothing was trained")
    stored = config.as_json(_resolved(settings, work)) | {"method_settings": config.as_json(spec.config)}
    return Result("pretrain", settings.out, time.monotonic() - started, stored, {"views": str(path)})


def _refuse_two_lengths(settings: Settings) -> None:
    for flag, length in (("--epochs", settings.epochs), ("--steps-per-epoch", settings.steps_per_epoch)):
        if settings.budget is not None and length is not None:
            raise SettingsError(f"--budget {settings.budget} and {flag} {length} are two lengths; leave one out")


def _spec(settings: Settings, own: object, group: "SingleProcess") -> "PretrainSpec":
    """All that decides the pretraining, from the settings. Raises UserError."""
    from ssl_app.checkpoints import SCRATCH
    from ssl_app.data.sources.base import open_source
    from ssl_app.pretraining.inputs import PretrainSpec
    from ssl_app.pretraining.schedule import Schedule
    from ssl_app.pretraining.time_budget import seconds_of
    from ssl_app.training.initialization import load_initialization

    method = method_of(settings.method or GRAY_METHOD)
    usual = method.defaults.backbone if settings.init in ("none", SCRATCH) else None  # a checkpoint knows its own
    start = load_initialization(settings.init, settings.out, settings.backbone or usual)
    data = data_of(settings, settings.out)
    pixels = pixels_of(settings, start, open_source(data.data, data.columns, data.max_image_mb))
    name = settings.method or group.leader_first(lambda: _usual_method(data, pixels))
    method = method_of(name)
    chosen = {field.name: getattr(settings, field.name) for field in fields(Schedule)}
    return PretrainSpec(
        name=name,
        method=method,
        config=method.Config() if own is None else own,
        initialization=start,
        data=data,
        pixels=pixels,
        schedule=Schedule(**chosen),
        budget=None if settings.budget is None else seconds_of(settings.budget),
        limit=settings.limit,
        exclude=None if settings.exclude is None else data_of(settings, settings.out, data=settings.exclude),
        probe=None if settings.probe_data is None else data_of(settings, settings.out, data=settings.probe_data),
        probe_every=settings.probe_every,
        augment=settings.augment,
        mirror=settings.mirror,
        vertical_flip=settings.vertical_flip,
        workers=settings.workers,
        seed=settings.seed,
    )


def _usual_method(data: "DataSpec", pixels: "PixelSpec") -> str:
    """The method where none is named: by the channels of the images, which are packed for that. Raises DataError."""
    from ssl_app.data.opened import open_images

    channels = pixels.channels or int(open_images(data, pixels).images.shape[-1])
    color = channels >= COLOR_CHANNELS
    name = COLOR_METHOD if color else GRAY_METHOD
    logger.info(f"method: {name}, for images {'in color' if color else 'in gray'}")
    return name


def _resolved(settings: Settings, work: "Pretraining") -> Settings:
    """The settings with what was left to us filled in, as they are saved and logged."""
    from ssl_app.pretext.base import Pretext

    spec, task = work.inputs.spec, work.task
    plain = type(task).augmentation is Pretext.augmentation  # else its own, which no preset's name stands for
    return replace(
        settings,
        **vars(spec.schedule),
        data=settings.data or DIGITS,
        method=spec.name,
        backbone=spec.initialization.backbone,
        image_size=spec.pixels.size,
        augment=settings.augment or (task.defaults.augment if plain else None),  # type: ignore[arg-type]
        precision=work.hardware.precision,  # type: ignore[arg-type]  # bf16 or fp32
    )


def _keep_about(work: "Pretraining", folder: Path) -> None:
    """Write what the data and the machine are, for a report."""
    from ssl_app.data.summary import write_summary
    from ssl_app.training.machine import write_machine

    inputs = work.inputs
    named = {"training": inputs.train, "validation": inputs.validation}
    kept = {name: indices for name, indices in named.items() if len(indices)}
    write_summary(folder, inputs.dataset, kept, "the test part of the data is left out", inputs.scaling)
    write_machine(folder, work.hardware)


def _note(work: "Pretraining", more: Mapping[str, Any]) -> str:
    """What came of it, for its page in MLflow."""
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in more["final"].items() if isinstance(value, float))
    epochs, name = work.plan.epochs, work.inputs.spec.name
    length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    lines = [f"**{name}** on {len(work.inputs.train):,} unlabeled images, {length}. At the end: {numbers}."]
    if more["warning"] is not None:
        lines.append(f"**Warning**: {more['warning']}")
    return "\n\n".join(lines)


def _checkpointing(settings: Settings, folder: Path) -> Any:
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.resume import Checkpointing

    return Checkpointing(folder / TRAINING, settings.save_every, settings.resume is not None, settings.any_threads)


@contextmanager
def _unrecorded(spec: RunSpec, started: float) -> Iterator[RecordedRun]:
    """What a process but the first has: its run is recorded by the first."""
    from ssl_app.tracking import Nowhere

    tracker = Nowhere()
    yield RecordedRun(spec, spec.out, tracker.start("", spec.out, {}), tracker, started)


def _following(work: "Pretraining", out: Path) -> str:
    """What to type next: a finetune, or what its labels lack."""
    if work.inputs.lacking is not None:
        return f"before a finetune: {work.inputs.lacking.sentence(config.flag)}"
    return f"now type ssl-app finetune {_labels(work)}{out_flag(out)}"


def _labels(work: "Pretraining") -> str:
    """Flags of a finetune on these images: as many labels as there are, or where they are to come from."""
    import numpy as np

    from ssl_app.data.splits import fewest

    inputs = work.inputs
    if not inputs.dataset.labeled.any():
        return "--per-class 32 --labels FILE"
    count = fewest(inputs.dataset, np.concatenate([inputs.train, inputs.validation]))[1]
    return f"--per-class {min(32, 2 ** (max(1, count).bit_length() - 1))}"


@contextmanager
def _resumable(folder: Path, out: Path) -> Iterator[None]:
    """A run that is stopped, or finds the disk full, after its first checkpoint says how to go on."""
    from ssl_app.pretraining.run import TRAINING
    from ssl_app.training.signals import Stopped
    from ssl_app.transfer.replicates import first_of

    go_on = f"ssl-app pretrain --resume {quote(first_of(out, folder.name))}{out_flag(out)}"
    try:
        yield
    except Stopped as stopped:
        if (folder / TRAINING).exists():
            stopped.add_note(f"type {go_on} to go on")
        raise
    except OSError as error:
        if error.errno not in runs.DISK_FULL or not (folder / TRAINING).exists():
            raise
        where = error.filename or "while writing"
        raise RunError(f"the disk is full ({where}); free some space and type {go_on}") from error


def stored_settings(folder: Path) -> tuple[Settings, Any]:
    """The settings that a pretraining was started with, and its method's. Raises RunError for another verb's run."""
    content = runs.read_json(folder / runs.SETTINGS)
    if content["verb"] != "pretrain":
        raise RunError(f"run {folder} is of verb {content['verb']}; --resume of pretrain takes a pretraining")
    stored = dict(content["settings"])
    own = config.from_json(method_of(stored["method"]).Config, stored.pop("method_settings"))
    return config.from_json(Settings, stored), own


def _resumed(given: Settings) -> tuple[Settings, Any, Path]:
    """The settings of the run to go on with. A flag that says otherwise is refused, not dropped."""
    assert given.resume is not None
    folder = runs.find_run(given.out, given.resume)
    saved, own = stored_settings(folder)
    default = Settings()
    plain = {name: config.as_json(one) for name, one in (("given", given), ("saved", saved), ("default", default))}
    for field in fields(Settings):
        requested = getattr(given, field.name)
        allowed = (plain["default"][field.name], plain["saved"][field.name])  # paths from another folder are alike
        if field.name not in (*FREE, "resume", "out", "name", "seeds") and plain["given"][field.name] not in allowed:
            raise SettingsError(
                f"{config.flag(field.name)} {requested} is not what run {folder.name} was started with "
                f"({getattr(saved, field.name)}); leave it out, or start a new run"
            )
    kept = {name: getattr(given, name) for name in ("resume", "any_threads", "out")}
    kept |= {n: getattr(given, n) for n in FREE if getattr(given, n) != getattr(default, n)}
    return replace(saved, **kept), own, folder
