"""A sweep made ready: what is compared, what makes it the same sweep, which trials it has and which are missing."""

import csv
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import config, console, runs
from ssl_app.checkpoints import SCRATCH
from ssl_app.data import splits
from ssl_app.data.dataset import Dataset
from ssl_app.errors import DataError, RunError, SettingsError
from ssl_app.settings import SweepSettings
from ssl_app.training import initialization
from ssl_app.training.hardware import Hardware
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import setup, trial
from ssl_app.transfer.trial import Bench
from ssl_app.transfer.workers import Job, read_trial, run_all

logger = logging.getLogger(__name__)

IDENTITY = "sweep.json"
# no part of the digest as typed: where the sweep lies, how many trials run at a time, and what may grow
# (per_class, draws, strategy); data and init are in it by content, so that they may be spelled in two ways
APART = ("out", "name", "jobs", "tracking_uri", "data", "init", "per_class", "draws", "strategy", "max_unreadable")
# what makes two pretrainings seeds of one; data by content, the method's own settings as one
RECIPE = (
    "method", "method_settings", "data_hash", "exclude", "init", "backbone", "image_size", "channels", "intensity",
    "batch_size", "accumulate", "lr", "optimizer", "weight_decay", "schedule", "warmup", "clip", "augment", "mirror",
)  # fmt: skip
LENGTH = ("epochs", "steps_per_epoch")


@dataclass(frozen=True)
class Sweep:
    """Benches by name, the folder, and every trial."""

    benches: dict[str, Bench]
    folder: Path
    digest: str  # a trial of another digest is another sweep's
    jobs: list[Job]

    @classmethod
    def prepare(cls, settings: SweepSettings, hardware: Hardware) -> "Sweep":
        """Open everything, find or make the folder, save the draws. RunError where another sweep lies there."""
        benches = open_benches(settings, hardware)
        identity = identify(settings, benches, hardware)
        folder = place(settings, identity)
        return cls(benches, folder, identity["digest"], every_job(settings, benches, folder))

    def done(self) -> dict[str, dict[str, Any]]:
        """Results of the trials that have run, by key."""
        read = {job.key: read_trial(self.folder, job.key, self.digest) for job in self.jobs}
        return {key: content for key, content in read.items() if content is not None}

    def run(self, jobs: list[Job], at_once: int) -> Generator[tuple[Job, dict[str, Any]]]:
        """Run trials. -> (job, result) as they finish."""
        return run_all(self.benches, jobs, self.folder, max(1, min(at_once, len(jobs))), self.digest)

    def pooled(self) -> list[str]:
        """The inits that the verdict is about: the first, and pretrainings of its recipe with other seeds."""
        outside = self.outside()
        return [name for name in self.benches if name != SCRATCH and name not in outside]

    def outside(self) -> dict[str, str]:
        """The other inits, each with the reason why the verdict leaves it out."""
        starts = [bench.start for name, bench in self.benches.items() if name != SCRATCH]
        taken, found = starts[:1], {}
        for start in starts[1:]:
            reason = why_apart(start, taken)
            if reason is None:
                taken.append(start)
            else:
                found[start.name] = reason
        return found


def why_apart(start: Initialization, taken: list[Initialization]) -> str | None:
    """Why a pretraining is no further seed of those in the verdict; None where it is one."""
    first = taken[0]
    if not start.settings:
        return "no pretraining of ssl-app"
    if not first.settings:
        return f"{first.name}, named first, is no pretraining of ssl-app"
    twin = next((other.name for other in taken if other.content == start.content), None)
    if twin is not None:
        return f"the same weights as {twin}"
    ours, theirs = start.settings, first.settings
    if ours.get("method") != theirs.get("method"):  # whose other settings are its own
        return f"another recipe: {_unlike('method', ours.get('method'), theirs.get('method'))}"
    length = LENGTH if ours.get("budget") is None else ("budget",)  # what fits a time differs from run to run
    unlike = [
        _unlike(key, ours.get(key), theirs.get(key)) for key in (*RECIPE, *length) if ours.get(key) != theirs.get(key)
    ]
    return f"another recipe: {', '.join(unlike)}" if unlike else None


def _unlike(key: str, ours: Any, theirs: Any) -> str:
    if key == "data_hash":
        return "other data"
    if key == "method_settings" and isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        return ", ".join(_unlike(name, ours.get(name), theirs.get(name)) for name in keys)
    shown = ["the default" if value is None else str(value) for value in (ours, theirs)]
    return f"{key.replace('_', ' ')} {shown[0]}, not {shown[1]}"


def open_benches(settings: SweepSettings, hardware: Hardware) -> dict[str, Bench]:
    """A bench for each initialization and for scratch, which is built as the first of them is.

    Raises DataError and RunError where two would differ in more than their weights.
    """
    recipe = trial.recipe_of(settings, "within", settings.seed)
    starts = load_starts(settings)
    benches: dict[str, Bench] = {}
    with console.without_repeats():  # of data that all of them share
        for start in [start for start in starts if start.name != SCRATCH] or starts:
            bench = setup.bench(settings, start, recipe, hardware)
            dataset, train = bench.opened.dataset, bench.opened.parts.train
            for first in list(benches.values())[:1]:
                refuse_unlike(first, bench)
            splits.refuse_more(dataset, train, settings.per_class)  # else refused half-way
            if settings.head == "linear" and start.tensors is not None:
                bench = trial.features(bench, settings.out / "cache")
            benches[start.name] = bench
    wanted = settings.baseline == SCRATCH or any(start.name == SCRATCH for start in starts)
    if wanted and SCRATCH not in benches:
        one = next(iter(benches.values()))
        benches[SCRATCH] = replace(one, start=Initialization(SCRATCH, one.start.backbone), features=None)
    return benches


def load_starts(settings: SweepSettings) -> list[Initialization]:
    """What --init names, in order. Raises SettingsError where a table could not tell two of them apart."""
    starts: list[Initialization] = []
    for init in settings.init:
        start = initialization.load_initialization(init, settings.out, settings.backbone)
        if any(start.name == other.name for other in starts):
            raise SettingsError(
                f"--init names two that the table would both call {start.name} ({init} is the second); "
                f"rename one of them"
            )
        if start.name == SCRATCH and start.tensors is not None:
            raise SettingsError(f"--init {init} would be called {SCRATCH}, as random weights are; rename it")
        starts.append(start)
    return starts


def refuse_unlike(one: Bench, other: Bench) -> None:
    """Raise DataError or RunError where two arms would not share data, split, network and size of images."""
    ours, theirs = one.opened, other.opened
    a, b = ours.dataset, theirs.dataset
    names = f"--init {one.start.name} and --init {other.start.name}"
    if (a.hash, a.classes) != (b.hash, b.classes):
        raise DataError(f"{names} would see different data ({a.name} and {b.name}); type --data D, one set for all")
    if not all(np.array_equal(getattr(ours.parts, part), getattr(theirs.parts, part)) for part in ("train", "test")):
        cure = "--split COLUMN"
        if ours.parts.seed is not None:
            cure = f"--split-seed {ours.parts.seed} --test-fraction {ours.parts.fraction:g}"
        raise DataError(
            f"{names} would be tested on different images of {a.name} ({ours.parts.how}, and {theirs.parts.how}); "
            f"type --data {a.name} {cure}, one split for all"
        )
    pairs = (
        ("backbone", one.start.backbone, other.start.backbone),
        ("image size", f"{a.image_size} px", f"{b.image_size} px"),
        ("channels", a.images.shape[-1], b.images.shape[-1]),
    )
    unlike = ", ".join(f"{what} ({x} and {y})" for what, x, y in pairs if x != y)
    if unlike:
        raise RunError(f"{names} differ in {unlike}, and one scratch cannot serve both; type one sweep for each")
    if one.pixels != other.pixels:
        logger.info(
            f"remark: {other.start.name} scales pixels in another way than {one.start.name}, each as its weights "
            f"need it; scratch does as {one.start.name}"
        )


def every_job(settings: SweepSettings, benches: dict[str, Bench], folder: Path) -> list[Job]:
    """Every trial, the large ones first; draws are saved as CSV beside. Scratch is trained fully, and only so."""
    opened = next(iter(benches.values())).opened  # the same for all of them
    jobs = []
    for draw in range(settings.draws):
        for per_class in sorted(settings.per_class, reverse=True):
            drawn = splits.draw(opened.dataset, opened.parts.train, per_class, seed=settings.seed, draw=draw)
            keep_draw(folder / "draws" / f"k{per_class}_d{draw}.csv", opened.dataset, drawn)
            for name in benches:
                for strategy in ("full-fine-tuning",) if name == SCRATCH else settings.strategy:
                    key = f"{name}-{strategy}-k{per_class}-d{draw}"
                    jobs.append(Job(key, name, strategy, per_class, draw, drawn))
    return jobs


def keep_draw(path: Path, dataset: Dataset, drawn: NDArray[np.int64]) -> None:
    """Write a draw; where it lies already, compare. Raises RunError where other images or labels lie there."""
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        splits.write_draw(path, dataset, drawn)
        return
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        before = [(row.get("path"), row.get("label")) for row in csv.DictReader(file)]
    if before != [(dataset.keys[row], dataset.classes[dataset.labels[row]]) for row in drawn.tolist()]:
        raise RunError(
            f"{path} lists other images or labels than this sweep draws; type another --name, or remove "
            f"{path.parent.parent}"
        )


def identify(settings: SweepSettings, benches: dict[str, Bench], hardware: Hardware) -> dict[str, Any]:
    """What makes two sweeps the same: weights, data, split, recipe and arithmetic."""
    inits = {
        name: {
            "weights": bench.start.content,
            "backbone": bench.start.backbone,
            "pixels": bench.pixels.to_json(),
            "data": bench.opened.dataset.hash,
            "train": _digest(bench.opened.parts.train.tobytes(), 8),
            "test": _digest(bench.opened.parts.test.tobytes(), 8),
            "recipe": asdict(bench.recipe),
        }
        for name, bench in benches.items()
    }
    chosen = {k: v for k, v in config.as_json(settings).items() if k not in APART}
    what = {"inits": inits, "settings": chosen, "hardware": hardware.sentence(), "torch": torch.__version__}
    wanted = {"per_class": settings.per_class, "draws": settings.draws, "strategy": settings.strategy}
    text = json.dumps(what, sort_keys=True, default=str)
    named = _digest((text + json.dumps(wanted)).encode(), 4)
    return {"digest": _digest(text.encode(), 8), "named": named, **json.loads(text), "wanted": wanted}


def place(settings: SweepSettings, identity: dict[str, Any]) -> Path:
    """The sweep's folder, new or to go on with. Raises RunError where another sweep lies there."""
    name = settings.name or f"sweep-{identity['named']}"
    folder = settings.out / name
    if not (folder / IDENTITY).is_file():
        if begun(folder):
            shutil.rmtree(folder / "draws", ignore_errors=True)  # nobody knows of what sweep they were
            content = {"verb": "sweep", "settings": config.as_json(settings), "started": time.time()}
            runs.write_json(folder / runs.SETTINGS, content)
        else:
            folder = runs.new_run(settings.out, name, "sweep", config.as_json(settings))
        runs.write_json(folder / IDENTITY, identity)
        return folder
    runs.clear_half_made(folder)
    before = runs.read_json(folder / IDENTITY)
    if before["digest"] != identity["digest"]:
        flags = [k for k, v in identity["settings"].items() if before["settings"].get(k) != v]
        others = [key for key in ("inits", "hardware", "torch") if before[key] != identity[key]]
        what = ", ".join(f"--{k.replace('_', '-')}" for k in flags) or ", ".join(others)
        raise RunError(
            f"run {folder} is another sweep (it differs in {what}); type another --name, or the same settings"
        )
    return folder


def begun(folder: Path) -> bool:
    """Whether a sweep lies there that can go on, be it one that was killed before its identity was written."""
    if (folder / IDENTITY).is_file():
        return True
    if not (folder / runs.SETTINGS).is_file() or runs.finished(folder):
        return False
    return bool(runs.read_json(folder / runs.SETTINGS).get("verb") == "sweep")


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
