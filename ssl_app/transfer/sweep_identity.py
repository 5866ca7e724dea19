"""What makes a sweep the same sweep: its identity on disk, which a command must match to go on with it."""

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import locks, runs, tables
from ssl_app.data import splits
from ssl_app.data.dataset import Dataset
from ssl_app.errors import Change, Fix, RunError
from ssl_app.transfer.trial import TrialSetup
from ssl_app.transfer.workers import Place

if TYPE_CHECKING:
    from ssl_app.transfer.sweep import SweepSpec

IDENTITY = "sweep.json"
OF_IDENTITY = {"inits": dict, "settings": dict}  # what it holds at least
LAYOUT = 3  # of a sweep's folder: predictions of every trial, scratch's length chosen
# not in the digest as typed: where the sweep lies, how many trials run at a time, and what may grow
# (init, strategy, per_class, baseline_per_class, draws); data and init are in it by content, however they are spelled
APART = (
    "out", "name", "jobs", "tracking_uri", "resume", "data", "init", "per_class", "baseline_strategy",
    "baseline_per_class", "draws", "strategy", "max_unreadable",
    "max_image_mb", "ray", "gpu_share",
)  # fmt: skip


def keep_draw(path: Path, dataset: Dataset, drawn: NDArray[np.int64]) -> None:
    """Write a draw; where it lies already, compare. Raises RunError where other images or labels lie there."""
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        splits.write_draw(path, dataset, drawn)
        return
    try:
        before = [tuple(row[:2]) for row in tables.read(path)[1]]
    except (ValueError, csv.Error):  # damaged
        before = []
    if before != [(dataset.keys[index], dataset.classes[dataset.labels[index]]) for index in drawn.tolist()]:
        raise RunError(
            f"{path} lists other images or labels than this sweep draws",
            fix=(Change("name"), Fix(f"remove {path.parent.parent}")),
        )


def identify(spec: "SweepSpec", setups: dict[str, TrialSetup]) -> dict[str, Any]:
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
            **({} if setup.maps is None else {"maps": setup.maps.digest}),
        }
        for name, setup in setups.items()
    }
    chosen = {k: v for k, v in spec.settings.items() if k not in APART}
    hardware = next(iter(setups.values())).hardware.place()
    shared = {"layout": LAYOUT, "settings": chosen, "hardware": hardware, "torch": torch.__version__}
    wanted = {"per_class": spec.per_class, "draws": spec.draws, "strategy": spec.strategies}
    plain: dict[str, Any] = json.loads(json.dumps(shared | {"inits": inits}, sort_keys=True, default=str))
    return {"named": _digest(json.dumps([plain, wanted]).encode(), 4), **plain}


def place_of(spec: "SweepSpec", identity: dict[str, Any]) -> Place:
    """The sweep's folder, new or to go on with. Raises RunError where another sweep lies there."""
    shared = {key: identity[key] for key in ("layout", "settings", "hardware", "torch")}
    digests = {
        name: _digest(json.dumps([shared, init], sort_keys=True).encode(), 8)
        for name, init in identity["inits"].items()
    }
    return Place(_folder_of(spec, identity), digests)


def _folder_of(spec: "SweepSpec", identity: dict[str, Any]) -> Path:
    name = spec.name or f"sweep-{identity['named']}"
    folder = spec.out / name
    locks.refuse_at_work(folder, (Change("name"),))
    if not (folder / IDENTITY).is_file():
        if begun(folder):
            shutil.rmtree(folder / "draws", ignore_errors=True)  # nobody knows of what sweep they were
        else:
            folder = runs.new_run(spec.out, name, "sweep", spec.settings)
    else:
        runs.clear_half_made(folder)
        _refuse_another(folder, runs.read_json(folder / IDENTITY, OF_IDENTITY), identity)
    return folder


def keep_identity(folder: Path, settings: Mapping[str, Any], identity: dict[str, Any]) -> None:
    """Write what the sweep is now, when no other process works on it."""
    content = {"verb": "sweep", "settings": dict(settings) | {"name": folder.name}, "started": runs.started(folder)}
    runs.write_json(folder / runs.SETTINGS, content)
    runs.write_json(folder / IDENTITY, identity)


def _refuse_another(folder: Path, before: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise RunError where what lies there cannot be gone on with."""
    if before.get("layout") != LAYOUT:
        raise RunError(
            f"run {folder} was written by another version of ssl-app, which kept other files of its trials",
            fix=(Change("name"), Fix("remove it")),
        )
    settings = [k.replace("_", " ") for k, v in identity["settings"].items() if before["settings"].get(k) != v]
    others = [key for key in ("hardware", "torch") if before[key] != identity[key]]
    left = [name for name in before["inits"] if name not in identity["inits"]]
    inits = [name for name, init in before["inits"].items() if name not in left and identity["inits"][name] != init]
    unlike = settings or others or [f"the weights or the data of {name}" for name in inits]
    if unlike or left:
        what = f"it differs in {', '.join(unlike)}" if unlike else f"it holds {', '.join(left)} too"
        raise RunError(f"run {folder} is another sweep ({what})", fix=(Change("name"), Fix("the same settings")))


def begun(folder: Path) -> bool:
    """Whether a sweep lies there that can go on, be it one that was killed before its identity was written."""
    if (folder / IDENTITY).is_file():
        return True
    if not (folder / runs.SETTINGS).is_file() or runs.finished(folder):
        return False
    return bool(runs.read_json(folder / runs.SETTINGS).get("verb") == "sweep")


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
