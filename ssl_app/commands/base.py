"""From the settings that verbs share to what the packages below take: data, pixels, initialization, hardware."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, locks, runs
from ssl_app.errors import Fix, Run, RunError, Set, SettingsError, Unset, UserError
from ssl_app.settings import (
    NO_RAY,
    ClusterSettings,
    DataSettings,
    FileSettings,
    PixelSettings,
    RunSettings,
    StageTwoSettings,
    TransferSettings,
    WorkerSettings,
)

if TYPE_CHECKING:
    from ssl_app.data.sources.base import Columns, Source
    from ssl_app.data.spec import DataSpec, PixelSpec
    from ssl_app.training.hardware import Hardware
    from ssl_app.training.initialization import Initialization
    from ssl_app.transfer.draw import TransferConfig
    from ssl_app.transfer.setup import Planned, Tested
    from ssl_app.transfer.workers import Workers

logger = logging.getLogger(__name__)

DIGITS = "digits"  # the data where the user names none
TEST_FRACTION = 0.2


def cache_of(out: Path) -> Path:
    """The folder of decoded images and features."""
    return out / "cache"


def columns_of(settings: DataSettings) -> "Columns":
    """The columns of labels, groups and splits."""
    from ssl_app.data.sources.base import Columns

    return Columns(settings.label, settings.group, settings.split, settings.axis, *names_of(vars(settings)))


def names_of(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """What settings, or those of a run before there were these, say of files and classes."""
    usual = FileSettings()
    omit, unlabeled = settings.get("omit", usual.omit), settings.get("unlabeled", usual.unlabeled)
    return tuple(omit), tuple(unlabeled), bool(settings.get("one_spelling", usual.one_spelling))


def names_typed(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """The same three for a command to type, where they are not the default; None for a flag without a value."""
    omit, unlabeled, one_spelling = names_of(settings)
    typed: dict[str, str | None] = {} if omit == FileSettings().omit else {"omit": ",".join(omit)}
    typed |= {"unlabeled": ",".join(unlabeled)} if unlabeled else {}
    return typed | ({"one_spelling": None} if one_spelling else {})


def typed_flags(settings: Any, names: Sequence[str]) -> dict[str, str | None]:
    """Settings that are not left to their defaults, for a command to type; None: a flag without a value."""
    default, typed = type(settings)(), names_typed(vars(settings))
    for name in names:
        value = getattr(settings, name)
        if name not in typed and name not in NAMES and value != getattr(default, name):
            typed[name] = None if value is True else f"{value:g}" if isinstance(value, float) else str(value)
    return typed


NAMES = ("omit", "unlabeled", "one_spelling")  # which `names_typed` has


def data_of(settings: DataSettings, out: Path, labels: Path | None = None, data: str | None = None) -> "DataSpec":
    """What the data settings name; `data` replaces theirs. With a table of labels --label is one of its columns."""
    from ssl_app.data.sources.base import UNUSED
    from ssl_app.data.spec import DataSpec

    columns = columns_of(settings)
    in_table = None if labels is None or columns.label == UNUSED else columns.label
    return DataSpec(
        data or settings.data or DIGITS,
        cache_of(out),
        columns if in_table is None else replace(columns, label=None),
        labels,
        in_table,
        settings.test_fraction or TEST_FRACTION,
        settings.split_seed or 0,
        settings.max_unreadable,
        bool(settings.allow_leak),
        settings.max_image_mb,
    )


def pixels_of(settings: PixelSettings, start: "Initialization", source: "Source") -> "PixelSpec":
    """The pixels that a network sees: the checkpoint's, else those of the settings, else by the first image.

    Raises CheckpointError where the settings ask for others than the checkpoint's.
    """
    from ssl_app.data.intensity import checked
    from ssl_app.data.opened import default_image_size
    from ssl_app.data.spec import PixelSpec
    from ssl_app.models.backbones import default_size

    requested = settings.intensity and checked(settings.intensity)
    start.refuse_other_pixels(settings.channels, requested, settings.image_size, settings.nodata, settings.fit)
    size = settings.image_size or start.image_size
    size = size or default_image_size(source, partial(default_size, start.backbone))
    intensity = requested if start.scaling is None else start.scaling.intensity
    side = start.pack_side if size == start.image_size else None
    nodata = settings.nodata if start.scaling is None else start.scaling.nodata
    fit = settings.fit or "crop" if start.scaling is None else start.scaling.fit
    return PixelSpec(size, settings.channels or start.channels, intensity or "range", side, nodata, fit)


def hardware_of(settings: RunSettings, threads: int | None = None) -> "Hardware":
    """The hardware of a run; `threads` where the settings name none."""
    from ssl_app.training.hardware import choose

    return choose(settings.device, settings.precision, settings.threads or threads)


@contextmanager
def workers_of(settings: WorkerSettings, hardware: "Hardware", threads: int | None) -> "Iterator[Workers]":
    """What runs the trials: processes of this machine, or a Ray cluster. Raises SettingsError, RunError."""
    from ssl_app.transfer.workers import LocalWorkers

    if settings.ray == NO_RAY:
        refuse_gpu_share(settings)
        yield LocalWorkers(jobs_at_once(settings.jobs, threads, hardware))
        return
    if settings.jobs is not None:
        raise SettingsError(
            f"--jobs {settings.jobs} is of this machine, and a Ray cluster runs as many trials as it has room for",
            fix=(Unset("jobs"), Unset("ray")),
        )
    from ssl_app.transfer.ray_workers import connected

    with connected(settings.ray, hardware, settings.gpu_share) as workers:
        yield workers


def refuse_gpu_share(settings: ClusterSettings) -> None:
    """Raise SettingsError where a share of a GPU is named, and no cluster."""
    if settings.gpu_share != 1:
        raise SettingsError(f"--gpu-share {settings.gpu_share:g} is of a Ray cluster", fix=Set("ray", "auto"))


def jobs_at_once(jobs: int | None, threads: int | None, hardware: "Hardware") -> int:
    """Trials at a time: as many as named, else one a core, or one on a GPU."""
    from ssl_app.training.hardware import cores
    from ssl_app.transfer.workers import MOST_JOBS

    if jobs is not None:
        return jobs
    return 1 if hardware.device.type != "cpu" else max(1, min(MOST_JOBS, cores() // (threads or 1)))


def transfer_config(
    settings: TransferSettings, start: "Initialization", validation: str, seed: int
) -> "TransferConfig":
    """How classifiers on this initialization's backbone are trained, the same for every strategy."""
    from ssl_app.models.backbones import preferred_optimizer
    from ssl_app.transfer.draw import ADAMW, SGD, TransferConfig

    preferred = preferred_optimizer(start.backbone)
    optimizer = settings.optimizer or preferred.name
    usual = SGD if optimizer == "sgd" else preferred if preferred.name == optimizer else ADAMW
    names = [field.name for field in fields(TransferConfig)]
    own = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    rates = {
        "lr": usual.lr if settings.lr is None else settings.lr,
        "weight_decay": usual.weight_decay if settings.weight_decay is None else settings.weight_decay,
    }
    return TransferConfig(**(own | rates | {"optimizer": optimizer, "validation": validation, "seed": seed}))


def planned_of(settings: StageTwoSettings, start: "Initialization", tested: "Tested") -> "Planned":
    """An initialization with its labeled data: the pretraining's where the user named none, and its split."""
    from ssl_app.data.sources.base import open_source
    from ssl_app.transfer.setup import Planned

    merged = with_data_of(settings, start)
    data = data_of(merged, settings.out, settings.labels)
    pixels = pixels_of(merged, start, open_source(data.data, data.columns, data.max_image_mb))
    inherited = settings.data is None and bool(start.settings)
    maps = None if settings.relabel is None else class_maps_of(settings.relabel, settings.out)
    return Planned(start, data, pixels, inherited, tested, settings.strict, maps)


def class_maps_of(named: str, out: Path) -> Path:
    """The file of class maps that a user names by itself or by its run. Raises RunError where the run holds none."""
    from ssl_app.data.class_maps import FILE

    if Path(named).is_file():
        return Path(named)
    folder = runs.find_run(out, named)
    path = folder / FILE
    if path.is_file():
        return path
    locks.refuse_at_work(folder)
    stopped = runs.read_json(folder / runs.SETTINGS).get("verb") == "relabel"
    fixes = (Run("relabel", (("resume", folder.name),)),) if stopped else (Run("relabel", (("teacher", named),)),)
    raise RunError(f"run {folder} holds no {FILE}", expected="finished class maps", fix=fixes)


def stage_two_of(settings: RunSettings) -> StageTwoSettings:
    """The settings that a verb shares with stage two, the others by default: for verbs that train no classifier."""
    names = [field.name for field in fields(StageTwoSettings) if hasattr(settings, field.name)]
    return StageTwoSettings(**{name: getattr(settings, name) for name in names})


@contextmanager
def run_in_place_of_init() -> Iterator[None]:
    """Refusals that the verbs with an init share, in the words of a verb where RUN is typed."""
    try:
        yield
    except UserError as error:
        notice = error.notice
        fixes = [Fix(fix.text(config.flag).replace("--init", "RUN")) for fix in notice.fixes]
        raise type(error)(notice.found, expected=notice.expected, fix=fixes) from error


def with_data_of(settings: StageTwoSettings, start: "Initialization") -> StageTwoSettings:
    """The settings, with the pretraining's data where the user named none, and its split; a flag given beats it."""
    if not start.settings:
        return settings
    if settings.data is not None:  # the split is by content: of the same images it is the same, in another list too
        missing = [name for name in ("test_fraction", "split_seed", "axis") if getattr(settings, name) is None]
        split = {name: start.settings[name] for name in missing if start.settings.get(name) is not None}
        if split:
            shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in split.items())
            logger.info(f"{shown}, as in {start.name}")
        return replace(settings, **split)
    ours = {f.name: getattr(settings, f.name) for f in fields(DataSettings) if getattr(settings, f.name) != f.default}
    theirs = {field.name: start.settings.get(field.name, field.default) for field in fields(DataSettings)}
    merged: dict[str, Any] = theirs | ours
    merged["data"] = merged["data"] or DIGITS
    logger.info(f"data: {merged['data']}, as in {start.name} (--data says otherwise)")
    return replace(settings, **merged)


def newest_or(init: str | None, out: Path) -> str:
    """The initialization that the user named, or the newest finished pretraining, of several seeds the first.

    Raises RunError.
    """
    from ssl_app.training.initialization import newest_pretraining
    from ssl_app.transfer.replicates import first_of

    if init is not None:
        return init
    found = first_of(out, newest_pretraining(out))
    logger.info(f"init: {found}, the newest finished pretraining in {out} (--init says otherwise)")
    return found


def out_flag(out: Path) -> str:
    """` --out DIR` for a command to type, where it is not the default."""
    from shlex import quote

    return "" if out == runs.OUT else f" --out {quote(str(out))}"
