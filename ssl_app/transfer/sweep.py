"""A sweep: what is compared, what makes it the same sweep, which trials it has and which are missing."""

import csv
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import console, runs
from ssl_app.checkpoints import SCRATCH
from ssl_app.data import splits
from ssl_app.data.dataset import Dataset
from ssl_app.errors import Change, DataError, Fix, RunError, Set, SettingsError
from ssl_app.training.hardware import Hardware
from ssl_app.training.initialization import Initialization
from ssl_app.transfer.draw import TransferConfig
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.trial import Job, TrialSetup, with_features
from ssl_app.transfer.workers import Place, PlannedTrial, read_trial, run_all

logger = logging.getLogger(__name__)

IDENTITY = "sweep.json"
BASELINE_STRATEGY = "full-fine-tuning"  # of scratch
# not in the digest as typed: where the sweep lies, how many trials run at a time, and what may grow
# (per_class, draws, strategy); data and init are in it by content, so that they may be spelled in two ways
APART = ("out", "name", "jobs", "tracking_uri", "data", "init", "per_class", "draws", "strategy", "max_unreadable")
# what makes two pretrainings seeds of one; data by content, the method's own settings as one
ALIKE = (
    "method", "method_settings", "data_hash", "exclude", "init", "backbone", "image_size", "channels", "intensity",
    "batch_size", "accumulate", "lr", "optimizer", "weight_decay", "schedule", "warmup", "clip", "augment", "mirror",
)  # fmt: skip
LENGTH = ("epochs", "steps_per_epoch")


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep compares."""

    planned: Sequence[Planned]  # one for each initialization
    strategies: tuple[str, ...]
    per_class: tuple[int, ...]
    draws: int
    baseline: bool  # whether scratch is among the initializations
    config: TransferConfig
    out: Path
    name: str | None
    settings: Mapping[str, Any]  # as typed, in JSON


@dataclass(frozen=True)
class Sweep:
    """Setups by name of the initialization, where results lie, and every trial."""

    setups: dict[str, TrialSetup]
    place: Place
    trials: list[PlannedTrial]

    @classmethod
    def prepare(cls, spec: SweepSpec, hardware: Hardware) -> "Sweep":
        """Open everything, find or make the folder, save the draws. RunError where another sweep lies there."""
        setups = open_setups(spec, hardware)
        identity = identify(spec, setups)
        place = Place(folder_of(spec, identity), identity["digest"])
        return cls(setups, place, every_trial(spec, setups, place.folder))

    @property
    def folder(self) -> Path:
        """Of the sweep."""
        return self.place.folder

    def done(self) -> dict[str, dict[str, Any]]:
        """Results of the trials that have run, by key."""
        read = {one.key: read_trial(self.place, one.key) for one in self.trials}
        return {key: content for key, content in read.items() if content is not None}

    def run(self, trials: list[PlannedTrial], workers: int) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """Run trials. -> (trial, result) as they finish."""
        return run_all(self.setups, trials, self.place, max(1, min(workers, len(trials))))

    def pooled(self) -> list[str]:
        """The inits that the verdict is about: the first, and replicates of it with other seeds."""
        outside = self.outside()
        return [name for name in self.setups if name != SCRATCH and name not in outside]

    def outside(self) -> dict[str, str]:
        """The other inits, each with the reason why the verdict leaves it out."""
        starts = [setup.initialization for name, setup in self.setups.items() if name != SCRATCH]
        taken, found = starts[:1], {}
        for start in starts[1:]:
            reason = why_apart(start, taken)
            if reason is None:
                taken.append(start)
            else:
                found[start.name] = reason
        return found


def why_apart(start: Initialization, taken: list[Initialization]) -> str | None:
    """Why a pretraining is no replicate, with another seed, of those in the verdict; None where it is one."""
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
        return f"other settings: {_unlike('method', ours.get('method'), theirs.get('method'))}"
    length = LENGTH if ours.get("budget") is None else ("budget",)  # what fits a time differs from run to run
    unlike = [
        _unlike(key, ours.get(key), theirs.get(key)) for key in (*ALIKE, *length) if ours.get(key) != theirs.get(key)
    ]
    return f"other settings: {', '.join(unlike)}" if unlike else None


def _unlike(key: str, ours: Any, theirs: Any) -> str:
    if key == "data_hash":
        return "other data"
    if key == "method_settings" and isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        return ", ".join(_unlike(name, ours.get(name), theirs.get(name)) for name in keys)
    shown = ["the default" if value is None else str(value) for value in (ours, theirs)]
    return f"{key.replace('_', ' ')} {shown[0]}, not {shown[1]}"


def open_setups(spec: SweepSpec, hardware: Hardware) -> dict[str, TrialSetup]:
    """A setup for each initialization and for scratch, which is built as the first of them is.

    Raises DataError and RunError where two would differ in more than their weights.
    """
    _refuse_same_names([one.initialization for one in spec.planned])
    setups: dict[str, TrialSetup] = {}
    pretrained = [one for one in spec.planned if one.initialization.name != SCRATCH]
    with console.without_repeats():  # of data that all of them share
        for one in pretrained or spec.planned:
            setup = prepare(one, spec.config, hardware)
            for first in list(setups.values())[:1]:
                refuse_unlike(first, setup)
            splits.refuse_more(setup.dataset, setup.opened.parts.train, spec.per_class)  # else refused half-way
            if spec.config.head == "linear" and one.initialization.pretrained:
                setup = with_features(setup, spec.out / "cache")
            setups[one.initialization.name] = setup
    wanted = spec.baseline or len(pretrained) < len(spec.planned)
    if wanted and SCRATCH not in setups:
        first = next(iter(setups.values()))
        scratch = Initialization(SCRATCH, first.initialization.backbone)
        setups[SCRATCH] = replace(first, initialization=scratch, features=None)
    return setups


def _refuse_same_names(starts: Sequence[Initialization]) -> None:
    """Raise SettingsError where a table could not tell two initializations apart."""
    names: set[str] = set()
    for start in starts:
        if start.name in names:
            raise SettingsError(
                f"two initializations have the same name, {start.name} ({start.source} is the second)",
                fix=Fix("rename one of them"),
            )
        if start.name == SCRATCH and start.pretrained:
            raise SettingsError(
                f"{start.source} would be called {SCRATCH}, as random weights are", fix=Fix("rename it")
            )
        names.add(start.name)


def refuse_unlike(one: TrialSetup, other: TrialSetup) -> None:
    """Raise DataError or RunError where two would not share data, split, network and size of images."""
    ours, theirs = one.opened, other.opened
    a, b = ours.dataset, theirs.dataset
    first, second = one.initialization, other.initialization
    names = f"the initializations {first.name} and {second.name}"
    if (a.hash, a.classes) != (b.hash, b.classes):
        raise DataError(
            f"{names} would see different data ({a.name} and {b.name})",
            expected="one set for all",
            fix=Set("data", "D"),
        )
    if not all(np.array_equal(getattr(ours.parts, part), getattr(theirs.parts, part)) for part in ("train", "test")):
        also: tuple[tuple[str, object], ...] = (("split", "COLUMN"),)
        if ours.parts.seed is not None:
            also = (("split_seed", ours.parts.seed), ("test_fraction", f"{ours.parts.fraction:g}"))
        raise DataError(
            f"{names} would be tested on different images of {a.name} ({ours.parts.how}, and {theirs.parts.how})",
            expected="one split for all",
            fix=Set("data", a.name, also),
        )
    pairs = (
        ("backbone", first.backbone, second.backbone),
        ("image size", f"{a.image_size} px", f"{b.image_size} px"),
        ("channels", a.images.shape[-1], b.images.shape[-1]),
    )
    unlike = ", ".join(f"{what} ({x} and {y})" for what, x, y in pairs if x != y)
    if unlike:
        raise RunError(
            f"{names} differ in {unlike}, and one scratch cannot serve both", fix=Fix("run one sweep for each")
        )
    if one.scaling != other.scaling:
        logger.info(
            f"remark: {second.name} scales pixels in another way than {first.name}, each as its weights "
            f"need it; scratch does as {first.name}"
        )


def every_trial(spec: SweepSpec, setups: dict[str, TrialSetup], folder: Path) -> list[PlannedTrial]:
    """Every trial, the large ones first; draws are saved as CSV beside. Scratch is fully trained, and only so."""
    opened = next(iter(setups.values())).opened  # the same for all of them
    trials = []
    for draw in range(spec.draws):
        for per_class in sorted(spec.per_class, reverse=True):
            drawn = splits.draw(opened.dataset, opened.parts.train, per_class, seed=spec.config.seed, draw=draw)
            keep_draw(folder / "draws" / f"k{per_class}_d{draw}.csv", opened.dataset, drawn)
            for name in setups:
                for strategy in (BASELINE_STRATEGY,) if name == SCRATCH else spec.strategies:
                    key = f"{name}-{strategy}-k{per_class}-d{draw}"
                    trials.append(PlannedTrial(key, name, per_class, Job(strategy, drawn, draw)))
    return trials


def keep_draw(path: Path, dataset: Dataset, drawn: NDArray[np.int64]) -> None:
    """Write a draw; where it lies already, compare. Raises RunError where other images or labels lie there."""
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        splits.write_draw(path, dataset, drawn)
        return
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        before = [(row.get("path"), row.get("label")) for row in csv.DictReader(file)]
    if before != [(dataset.keys[index], dataset.classes[dataset.labels[index]]) for index in drawn.tolist()]:
        raise RunError(
            f"{path} lists other images or labels than this sweep draws",
            fix=(Change("name"), Fix(f"remove {path.parent.parent}")),
        )


def identify(spec: SweepSpec, setups: dict[str, TrialSetup]) -> dict[str, Any]:
    """What makes two sweeps the same: weights, data, split, settings and arithmetic."""
    inits = {
        name: {
            "weights": setup.initialization.content,
            "backbone": setup.initialization.backbone,
            "pixels": setup.scaling.to_json(),
            "data": setup.dataset.hash,
            "train": _digest(setup.opened.parts.train.tobytes(), 8),
            "test": _digest(setup.opened.parts.test.tobytes(), 8),
            "config": asdict(setup.config),
        }
        for name, setup in setups.items()
    }
    chosen = {k: v for k, v in spec.settings.items() if k not in APART}
    hardware = next(iter(setups.values())).hardware.place()
    what = {"inits": inits, "settings": chosen, "hardware": hardware, "torch": torch.__version__}
    wanted = {"per_class": spec.per_class, "draws": spec.draws, "strategy": spec.strategies}
    text = json.dumps(what, sort_keys=True, default=str)
    named = _digest((text + json.dumps(wanted)).encode(), 4)
    return {"digest": _digest(text.encode(), 8), "named": named, **json.loads(text), "wanted": wanted}


def folder_of(spec: SweepSpec, identity: dict[str, Any]) -> Path:
    """The sweep's folder, new or to go on with. Raises RunError where another sweep lies there."""
    name = spec.name or f"sweep-{identity['named']}"
    folder = spec.out / name
    if not (folder / IDENTITY).is_file():
        if begun(folder):
            shutil.rmtree(folder / "draws", ignore_errors=True)  # nobody knows of what sweep they were
            content = {"verb": "sweep", "settings": dict(spec.settings), "started": time.time()}
            runs.write_json(folder / runs.SETTINGS, content)
        else:
            folder = runs.new_run(spec.out, name, "sweep", spec.settings)
        runs.write_json(folder / IDENTITY, identity)
        return folder
    runs.clear_half_made(folder)
    before = runs.read_json(folder / IDENTITY)
    if before["digest"] != identity["digest"]:
        settings = [k.replace("_", " ") for k, v in identity["settings"].items() if before["settings"].get(k) != v]
        others = [key for key in ("inits", "hardware", "torch") if before[key] != identity[key]]
        raise RunError(
            f"run {folder} is another sweep (it differs in {', '.join(settings) or ', '.join(others)})",
            fix=(Change("name"), Fix("the same settings")),
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
