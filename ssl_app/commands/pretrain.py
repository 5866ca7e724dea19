"""Learn a backbone from unlabeled images by a pretext method.

With no argument it learns from scikit-learn's digits, in about a minute. Labels, where there are
any, are not used; a set's test part, and what --exclude names, is not looked at.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import config, console, registry, runs
from ssl_app.errors import RunError, SettingsError
from ssl_app.runs import Result
from ssl_app.settings import PretrainSettings

if TYPE_CHECKING:
    from ssl_app.pretraining.run import Pretraining

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app pretrain
ssl-app pretrain --data scans/ --image-size 64 --epochs 50
ssl-app pretrain --data all.csv --group patient --exclude labeled.csv
ssl-app pretrain --method rotnet --help
ssl-app pretrain --resume pretrain-20261121-101500
torchrun --nproc-per-node 2 -m ssl_app pretrain --data scans/
"""


Settings = PretrainSettings


def joined(values: Mapping[str, Any]) -> type | None:
    """The settings of the method that the flags or the recipe name."""
    method = str(values.get("method", "rotnet"))
    return None if values.get("resume") else method_of(method).Config


def method_of(name: str) -> Any:
    """The class of a method. Raises SettingsError for what is none."""
    method = registry.find("pretext", name)
    for needed in ("Config", "loss", "score"):
        if not hasattr(method, needed):
            raise SettingsError(
                f"--method {name} is no pretext method (no '{needed}'); derive from ssl_app.pretext.base.Pretext"
            )
    return method


def run(settings: Settings, own: Any = None) -> Result:
    """Pretrain, or go on with a pretraining. `own` is the method's Config; None: its defaults."""
    from ssl_app.pretraining.run import TRAINING, Pretraining
    from ssl_app.training.distributed import processes
    from ssl_app.training.hardware import choose

    started = time.monotonic()
    for flag, length in (("--epochs", settings.epochs), ("--steps-per-epoch", settings.steps_per_epoch)):
        if settings.budget is not None and length is not None:
            raise SettingsError(f"--budget {settings.budget} and {flag} {length} are two lengths; leave one out")
    resumed: Path | None = None
    if settings.resume is not None:
        settings, own, resumed = _resumed(settings)
        if runs.finished(resumed):
            raise RunError(f"run {resumed} has finished; type ssl-app finetune --init {resumed.name}")
    else:
        runs.prepare(settings.out, settings.name, "pretrain")
    method = method_of(settings.method)
    own = method.Config() if own is None else own
    hardware = choose(settings.device, settings.precision, settings.threads)
    group = processes(hardware.device.type == "cuda")
    try:
        if group.rank:
            console.hide_messages()
        logger.info(hardware.sentence())
        work = group.agree(lambda: Pretraining.prepare(settings, method, own, hardware, group))
        settings = work.settings  # with the backbone that --init brings
        stored = config.as_json(settings) | {"method_settings": config.as_json(own)}
        folder = group.share(group.agree(lambda: _folder(settings, stored, resumed) if group.rank == 0 else None))
        assert folder is not None
        logger.info(f"run {folder}")
        with _resumable(folder, settings.out) if group.rank == 0 else nullcontext():
            more = work.train(folder)
            result = Result("pretrain", folder, time.monotonic() - started, stored, more)
            if group.rank == 0:
                runs.write_json(folder / runs.RESULT, result.to_json())
        if group.rank == 0:
            (folder / TRAINING).unlink(missing_ok=True)  # not before: a kill in between would train all over
            finetune = f"ssl-app finetune --strategy two-stage {_labels(work)}{runs.out_flag(settings.out)}"
            logger.info(f"done: {more['checkpoint']}; now type {finetune}")
        group.wait()
    finally:
        group.close()
    return result


def _labels(work: "Pretraining") -> str:
    """Flags of a finetune on these images: as many labels as there are, or where they are to come from."""
    import numpy as np

    from ssl_app.data.splits import fewest

    material = work.material
    if not material.dataset.labeled.any():
        return "--per-class 32 --labels FILE"
    count = fewest(material.dataset, np.concatenate([material.learnt, material.held_out]))[1]
    return f"--per-class {min(32, 2 ** (max(1, count).bit_length() - 1))}"


@contextmanager
def _resumable(folder: Path, out: Path) -> Iterator[None]:
    """A run that ends before its first checkpoint leaves nothing; a later one says how to go on."""
    from ssl_app.pretraining.run import TRAINING

    with runs.whole(folder, keep=TRAINING):
        try:
            yield
        except OSError as error:
            if error.errno not in runs.DISK_FULL or not (folder / TRAINING).exists():
                raise
            raise RunError(
                f"the disk is full ({error.filename or 'while writing'}); free some space and type "
                f"ssl-app pretrain --resume {folder.name}{runs.out_flag(out)}"
            ) from error


def _folder(settings: Settings, stored: Mapping[str, Any], resumed: Path | None) -> Path:
    """The run's folder, new or to go on with."""
    if resumed is None:
        return runs.new_run(settings.out, settings.name, "pretrain", stored)
    runs.clear_half_made(resumed)
    return resumed


def _resumed(given: Settings) -> tuple[Settings, Any, Path]:
    """The settings of the run to go on with. A flag that says otherwise is refused, not dropped."""
    assert given.resume is not None
    folder = runs.find_run(given.out, given.resume)
    content = runs.read_json(folder / runs.SETTINGS)
    if content["verb"] != "pretrain":
        raise RunError(
            f"run {folder} is of verb {content['verb']}; --resume takes a pretraining, a sweep goes on by itself"
        )
    stored = dict(content["settings"])
    own = config.from_json(method_of(stored["method"]).Config, stored.pop("method_settings"))
    saved = config.from_json(Settings, stored)
    free = (
        "resume",
        "out",
        "name",
        "any_threads",
        "threads",
        "workers",
        "save_every",
        "tracking_uri",
        "device",
    )
    default = Settings()
    for field in fields(Settings):
        asked = getattr(given, field.name)
        if field.name not in free and asked not in (getattr(default, field.name), getattr(saved, field.name)):
            flag = f"--{field.name.replace('_', '-')}"
            raise SettingsError(
                f"{flag} {asked} is not what run {folder.name} was started with "
                f"({getattr(saved, field.name)}); leave it out, or start a new run"
            )
    kept = {name: getattr(given, name) for name in ("resume", "any_threads", "out")}
    kept |= {n: getattr(given, n) for n in free[4:] if getattr(given, n) != getattr(default, n)}
    return replace(saved, **kept), own, folder
