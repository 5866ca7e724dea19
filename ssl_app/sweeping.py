"""A sweep made ready: what is compared, what makes it the same sweep, which trials it has and which are missing."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ssl_app import config, handover, preparing, runs, trial
from ssl_app.data import splits
from ssl_app.errors import RunError, SettingsError
from ssl_app.handover import SCRATCH
from ssl_app.pool import Job, run_all
from ssl_app.runs import Say
from ssl_app.settings import SweepSettings
from ssl_app.training.hardware import Hardware
from ssl_app.trial import Bench

IDENTITY = "sweep.json"
# neither where a sweep lies, nor how many trials run at a time, nor what may grow, makes it another sweep
APART = ("out", "name", "jobs", "tracking_uri", "data", "init", "per_class", "draws", "strategy", "max_unreadable")
# in what the pretrainings of one verdict may differ
OWN = ("seed", "name", "resume", "out", "tracking_uri", "threads")


@dataclass(frozen=True)
class Sweep:
    """Benches by name, the folder, and every trial."""

    benches: dict[str, Bench]
    folder: Path
    digest: str  # a trial of another digest is another sweep's
    jobs: list[Job]

    @classmethod
    def prepare(cls, settings: SweepSettings, hardware: Hardware, say: Say) -> "Sweep":
        """Open everything, find or make the folder, save the draws. RunError where another sweep lies there."""
        benches = open_benches(settings, hardware, say)
        identity = identify(settings, benches, hardware)
        folder = place(settings, identity)
        return cls(benches, folder, identity["digest"], every_job(settings, benches, folder))

    def done(self) -> dict[str, dict[str, Any]]:
        """Results of the trials that have run, by key."""
        found = {}
        for job in self.jobs:
            path = self.folder / "trials" / job.key / runs.RESULT
            content = runs.read_json(path) if path.is_file() else {}
            if content.get("identity") == self.digest:
                found[job.key] = {name: value for name, value in content.items() if not name.startswith("test_")}
        return found

    def run(self, jobs: list[Job], at_once: int) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Run trials. -> (job, result) as they finish."""
        return run_all(self.benches, jobs, self.folder, max(1, min(at_once, len(jobs))), self.digest)

    def pooled(self) -> list[str]:
        """The inits that are pretrainings like the first in all but the seed: what the verdict is about."""
        names = [name for name in self.benches if name != SCRATCH]
        kinds = {name: {k: v for k, v in self.benches[name].start.settings.items() if k not in OWN} for name in names}
        return [name for name in names if kinds[name] == kinds[names[0]]]


def open_benches(settings: SweepSettings, hardware: Hardware, say: Say) -> dict[str, Bench]:
    """A bench for each initialisation and for scratch, which is built as the first of them is."""
    recipe = trial.recipe_of(settings, "within", settings.seed)
    benches: dict[str, Bench] = {}
    for init in settings.init:
        start = handover.load_initialisation(init, settings.out, settings.backbone)
        if start.name in benches:
            raise SettingsError(
                f"--init names two that the table would both call {start.name} ({init} is the second); "
                f"rename one of them"
            )
        bench = preparing.bench(settings, start, recipe, hardware, say)
        dataset, train = bench.opened.dataset, bench.opened.parts.train
        splits.draw(dataset, train, max(settings.per_class), seed=settings.seed, draw=0)  # else refused half-way
        if settings.head == "linear" and start.tensors is not None:
            bench = trial.features(bench, settings.out / "cache")
        benches[start.name] = bench
    if settings.baseline == SCRATCH and SCRATCH not in benches:
        first = next(iter(benches.values()))
        scratch = handover.Initialisation(SCRATCH, first.start.backbone)
        benches[SCRATCH] = replace(first, start=scratch, features=None)
    return benches


def every_job(settings: SweepSettings, benches: dict[str, Bench], folder: Path) -> list[Job]:
    """Every trial, the large ones first; draws are saved as CSV beside. Scratch is trained fully, and only so."""
    jobs = []
    for draw in range(settings.draws):
        for per_class in sorted(settings.per_class, reverse=True):
            for name, bench in benches.items():
                dataset, parts = bench.opened.dataset, bench.opened.parts
                drawn = splits.draw(dataset, parts.train, per_class, seed=settings.seed, draw=draw)
                path = folder / "draws" / f"k{per_class}_d{draw}.csv"
                if not path.is_file():
                    path.parent.mkdir(exist_ok=True)
                    splits.write_draw(path, dataset, drawn)
                for strategy in ("full-fine-tuning",) if name == SCRATCH else settings.strategy:
                    key = f"{name}-{strategy}-k{per_class}-d{draw}"
                    jobs.append(Job(key, name, strategy, per_class, draw, drawn))
    return jobs


def identify(settings: SweepSettings, benches: dict[str, Bench], hardware: Hardware) -> dict[str, Any]:
    """What makes two sweeps the same: weights, data, split, recipe and arithmetic."""
    inits = {
        name: {
            "weights": bench.start.content,
            "backbone": bench.start.backbone,
            "pixels": bench.pixels.to_json(),
            "data": bench.opened.dataset.hash,
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
        if not (folder / runs.SETTINGS).is_file():
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


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
