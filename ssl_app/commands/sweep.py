"""Find out what pretraining is worth: initialisations x strategies x labels per class x draws, against scratch.

Every arm sees the same labelled draws for the same number of optimizer steps. The end is a table,
paired differences, the labels saved, and one sentence. The same command again, after a stop, does
only what is missing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_app import config, registry, runs
from ssl_app.config import option
from ssl_app.errors import RunError, SettingsError
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import StageTwoSettings

if TYPE_CHECKING:
    from ssl_app.handover import Initialisation
    from ssl_app.pool import Job
    from ssl_app.trial import Bench

EXAMPLES = """
ssl-app sweep
ssl-app sweep --data labelled.csv --group patient --per-class 1,2,4,8,16,32,64
ssl-app sweep --init run-a --init run-b --strategy two-stage --draws 10
ssl-app sweep --init run-a --init resnet18.pth --backbone resnet18
"""
IDENTITY = "sweep.json"


@dataclass(frozen=True)
class Settings(StageTwoSettings):
    """Settings of a sweep."""

    init: tuple[str, ...] = option(
        (), "run, checkpoint or weights file; repeat to compare; default: the newest finished pretraining",
        metavar="RUN|FILE", repeat=True,
    )  # fmt: skip
    strategy: tuple[str, ...] = option((), "comma list of strategies; default: all", metavar="S,S")
    per_class: tuple[int, ...] = option(
        (1, 2, 4, 8, 16, 32, 64), "labelled images of each class", at_least=1, metavar="N,N"
    )
    draws: int = option(5, "labelled draws of each size; they carry the intervals", at_least=1)
    baseline: Literal["scratch", "none"] = option("scratch", "what to compare with: random weights, trained fully")
    jobs: int | None = option(None, "trials at a time; default: one a core, up to 8; one on a GPU", at_least=1)


def run(settings: Settings, say: Say = to_stderr) -> Result:
    """Run what is missing of a sweep, and answer."""
    import torch

    from ssl_app import comparing, handover, preparing
    from ssl_app.evaluation.verdict import Leak
    from ssl_app.tracking import TrialRecord, open_tracker
    from ssl_app.training.hardware import choose

    started = time.monotonic()
    runs.prepare_out(settings.out)
    if settings.name is not None and not (settings.out / settings.name / IDENTITY).is_file():
        runs.prepare(settings.out, settings.name, "sweep")
    settings = _completed(settings, say)
    hardware = choose(settings.device, settings.precision, settings.threads or 1)
    jobs_at_once = _jobs_at_once(settings, hardware.device.type)
    say(f"{hardware.sentence()}; {jobs_at_once} trials at a time")
    benches = _benches(settings, hardware, say)
    names = [name for name in benches if name != handover.SCRATCH]
    identity = _identity(settings, benches, hardware.sentence(), torch.__version__)
    folder = _folder(settings, identity)
    jobs = _jobs(settings, benches, folder)
    missing, trials = _missing(jobs, folder, identity["digest"])
    say(f"run {folder}: {len(jobs)} trials, {len(missing)} to do")
    tracker = open_tracker(settings.out, settings.tracking_uri, "ssl-app", say)

    def record(content: dict[str, Any], job: "Job") -> TrialRecord:
        shown = {k: str(content[k]) for k in ("init", "strategy", "per_class", "draw")}
        shown |= {"sweep": folder.name, "arm": _arm(content)}
        numbers = {k: float(v) for k, v in content.items() if k in METRICS and isinstance(v, int | float)}
        return TrialRecord(f"{folder.name}/{job.key}", folder / "trials" / job.key, shown, job.per_class, numbers)

    by_key = {job.key: job for job in jobs}
    tracker.log_trials([record(content, by_key[key]) for key, content in trials.items()], folder)
    for number, (job, content) in enumerate(_run(benches, missing, folder, jobs_at_once, identity["digest"]), 1):
        trials[job.key] = content
        tracker.log_trials([record(content, job)], folder)
        left = (time.monotonic() - started) / number * (len(missing) - number)
        scored = f"{content['balanced_accuracy']:.3f} ({content['seconds']:.0f} s), about {left / 60:.0f} min left"
        say(
            f"trial {number} of {len(missing)}: {_arm(content)}, {job.per_class} per class, draw {job.draw}: {scored}"
        )
    ordered = [trials[job.key] for job in jobs]
    leaks = {name: found for name, bench in benches.items() if (found := preparing.leaks_of(bench)) is not None}
    pooled = _seeds_of_one(benches, names)
    worst = max((leaks[name] for name in pooled if name in leaks), key=lambda found: found.total, default=None)
    answer = comparing.answer(ordered, pooled, None if worst is None else Leak(worst.total, worst.of))
    _report(folder, ordered, answer, benches, tracker, say)
    more = {
        "trials": ordered,
        "comparisons": answer.comparisons,
        "labels_saved": answer.labels_saved,
        "verdict": answer.verdict,
        "leaks": {name: found.sentence() for name, found in leaks.items()},
        "n_test": len(next(iter(benches.values())).opened.parts.test),
    }
    result = Result("sweep", folder, time.monotonic() - started, config.as_json(settings), more)
    runs.write_json(folder / runs.RESULT, result.to_json())
    for line in comparing.table_lines(ordered):
        say(line)
    say(answer.verdict)
    say(f"curves: type ssl-app ui --out {settings.out}, or look at {folder / 'label-efficiency.png'}")
    return result


METRICS = ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "labels_used")


def _completed(settings: Settings, say: Say) -> Settings:
    """The settings with the inits and strategies that were left to us."""
    from ssl_app import handover

    strategies = settings.strategy or tuple(registry.names("transfer"))
    for strategy in strategies:
        registry.find("transfer", strategy)
    strategies = tuple(dict.fromkeys(strategy.replace("_", "-") for strategy in strategies))
    init = settings.init
    if not init:
        init = (handover.newest_pretraining(settings.out),)
        say(f"init: {init[0]}, the newest finished pretraining in {settings.out} (--init says otherwise)")
    if len(set(init)) < len(init):
        raise SettingsError(f"--init names {init[0]} twice; name each once")
    return replace(settings, strategy=strategies, init=init, per_class=tuple(sorted(set(settings.per_class))))


def _jobs_at_once(settings: Settings, device: str) -> int:
    from ssl_app.pool import MOST_JOBS
    from ssl_app.training.hardware import cores

    if settings.jobs is not None:
        return settings.jobs
    return 1 if device != "cpu" else max(1, min(MOST_JOBS, cores() // (settings.threads or 1)))


def _benches(settings: Settings, hardware: Any, say: Say) -> "dict[str, Bench]":
    """A bench for each initialisation and for scratch, which is built as the first of them is."""
    from ssl_app import handover, preparing, trial

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
        if settings.head == "linear" and start.tensors is not None:
            bench = trial.features(bench, settings.out / "cache")
        benches[start.name] = bench
    if settings.baseline == "scratch" and handover.SCRATCH not in benches:
        first = next(iter(benches.values()))
        scratch: Initialisation = handover.Initialisation(handover.SCRATCH, first.start.backbone)
        benches[handover.SCRATCH] = replace(first, start=scratch, features=None)
    return benches


def _jobs(settings: Settings, benches: "dict[str, Bench]", folder: Path) -> "list[Job]":
    """Every trial of the sweep, cheap to tell apart by its key; draws are saved as CSV beside."""
    from ssl_app.data import splits
    from ssl_app.handover import SCRATCH
    from ssl_app.pool import Job

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
                strategies = ("full-fine-tuning",) if name == SCRATCH else settings.strategy
                for strategy in strategies:
                    key = f"{name}-{strategy}-k{per_class}-d{draw}"
                    jobs.append(Job(key, name, strategy, per_class, draw, drawn))
    return jobs


def _identity(settings: Settings, benches: "dict[str, Bench]", hardware: str, torch_version: str) -> dict[str, Any]:
    """What makes two sweeps the same: contents, split, recipe and arithmetic; not where, nor how many at a time."""
    import hashlib
    import json
    from dataclasses import asdict

    apart = (
        "out",
        "name",
        "jobs",
        "tracking_uri",
        "data",
        "init",
        "per_class",
        "draws",
        "strategy",
        "max_unreadable",
    )
    chosen = {k: v for k, v in config.as_json(settings).items() if k not in apart}
    inits = {
        name: {
            "weights": bench.start.content,
            "backbone": bench.start.backbone,
            "pixels": bench.pixels.to_json(),
            "data": bench.opened.dataset.hash,
            "test": hashlib.blake2b(bench.opened.parts.test.tobytes(), digest_size=8).hexdigest(),
            "recipe": asdict(bench.recipe),
        }
        for name, bench in benches.items()
    }
    what = {"inits": inits, "settings": chosen, "hardware": hardware, "torch": torch_version}
    wanted = {"per_class": settings.per_class, "draws": settings.draws, "strategy": settings.strategy}
    digest = hashlib.blake2b(json.dumps(what, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
    named = hashlib.blake2b(
        json.dumps([what, wanted], sort_keys=True, default=str).encode(), digest_size=4
    ).hexdigest()
    return {"digest": digest, "named": named, **what, "wanted": wanted}


def _folder(settings: Settings, identity: dict[str, Any]) -> Path:
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
        changed = [
            key for key in ("inits", "settings", "hardware", "torch") if _plain(before[key]) != _plain(identity[key])
        ]
        details = [k for k in identity["settings"] if before["settings"].get(k) != _plain(identity["settings"][k])]
        what = ", ".join(f"--{k.replace('_', '-')}" for k in details) or ", ".join(changed)
        raise RunError(
            f"run {folder} is another sweep (it differs in {what}); type another --name, or the same settings"
        )
    return folder


def _plain(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))


def _missing(jobs: "Sequence[Job]", folder: Path, digest: str) -> "tuple[list[Job], dict[str, dict[str, Any]]]":
    """Trials still to run, and the results of the others."""
    missing, done = [], {}
    for job in jobs:
        path = folder / "trials" / job.key / runs.RESULT
        content = runs.read_json(path) if path.is_file() else {}
        if content.get("identity") == digest:
            done[job.key] = {name: value for name, value in content.items() if not name.startswith("test_")}
        else:
            missing.append(job)
    return missing, done


def _run(benches: "dict[str, Bench]", jobs: "Sequence[Job]", folder: Path, at_once: int, digest: str) -> Any:
    from ssl_app.pool import run_all

    return run_all(benches, jobs, folder, max(1, min(at_once, len(jobs))), digest)


def _arm(content: dict[str, Any]) -> str:
    from ssl_app.handover import SCRATCH

    return SCRATCH if content["init"] == SCRATCH else f"{content['init']} {content['strategy']}"


def _seeds_of_one(benches: "dict[str, Bench]", names: list[str]) -> list[str]:
    """The inits that are pretrainings like the first in all but the seed: what the verdict pools."""

    def kind(name: str) -> Any:
        own = benches[name].start.settings
        return {k: v for k, v in own.items() if k not in ("seed", "name", "resume", "out", "tracking_uri", "threads")}

    return [name for name in names if kind(name) == kind(names[0])]


def _report(folder: Path, trials: list[dict[str, Any]], answer: Any, benches: Any, tracker: Any, say: Say) -> None:
    """The table as CSV, the curves as PNG, and the views in MLflow."""
    import csv

    from ssl_app import comparing
    from ssl_app.report import plots

    columns = ["init", "strategy", "per_class", "draw", "labels_used", "n", *METRICS[:4], "how"]
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(trials)
    series = {
        ("scratch" if init == "scratch" else f"{init} {strategy}"): {k: list(by.values()) for k, by in arm.items()}
        for (init, strategy), arm in comparing.scores(trials).items()
    }
    data = next(iter(benches.values())).opened.dataset.name
    plots.label_efficiency(folder / "label-efficiency.png", series, str(data), "balanced accuracy on the test set")
    view = tracker.save_views(folder.name)
    if view is not None:
        say(f"view: {tracker.view_path(view)}")
