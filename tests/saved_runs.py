"""Runs as they lie on the disk, for reports: with predictions that nothing was trained for."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_app import checkpoints, config, runs
from ssl_app.checkpoints import SCRATCH
from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.sources.base import Columns
from ssl_app.data.summary import write_summary
from ssl_app.evaluation import comparison
from ssl_app.evaluation.comparison import BASELINE
from ssl_app.evaluation.metrics import classification
from ssl_app.evaluation.verdict import Around
from ssl_app.settings import PretrainSettings, SweepSettings
from ssl_app.training.hardware import choose
from ssl_app.training.initialization import BACKBONE
from ssl_app.training.machine import write_machine
from ssl_app.transfer import kept_predictions
from ssl_app.transfer.workers import write_trial

SCALING = PixelScaling("dtype", 0, 255, (0.5,), (0.2,))


@dataclass(frozen=True)
class Made:
    """What a sweep on the disk is made of."""

    classes: tuple[str, ...] = ("cat", "dog", "owl")
    strategies: tuple[str, ...] = ("auto", "two-stage")
    inits: tuple[str, ...] = ("pre",)
    per_class: tuple[int, ...] = (4, 8, 32)
    draws: int = 3
    images: int = 60  # to test on
    done: float = 1.0  # share of the trials; below 1 it has not finished
    ended: str | None = None  # why it failed


def dataset(out: Path, classes: Sequence[str], count: int) -> Dataset:
    """Twice so many images, half of them to test on; the pack lies in the cache."""
    images = np.random.default_rng(0).integers(0, 255, (2 * count, 8, 8, 1), dtype=np.uint8)
    pack = out / "cache" / "abc"
    pack.mkdir(parents=True, exist_ok=True)
    np.save(pack / "images.npy", images)
    return Dataset(
        "scans", images, tuple(f"scans/<i>{n}.png" for n in range(2 * count)), np.arange(2 * count), tuple(classes),
        np.arange(2 * count) % max(1, len(classes)), np.ones(2 * count, dtype=np.bool_), None, None,
        Columns("label"), (),
        (("broken.png", "no image"),), True, 8, "abc",
    )  # fmt: skip


def make_pretraining(out: Path, name: str, epochs: int = 12, warning: str | None = None) -> Path:
    """A finished pretraining of images without labels."""
    labeled = dataset(out, (), 40)
    data = replace(labeled, labels=np.zeros(80, np.int64), labeled=np.zeros(80, np.bool_))
    settings = config.as_json(PretrainSettings(name=name, method="rotnet", data="scans"))
    folder = runs.new_run(out, name, "pretrain", settings)
    write_summary(folder, data, {"training": np.arange(80)}, "no split", SCALING)
    write_machine(folder, choose("cpu", "fp32"))
    history = [
        {"accuracy": 1 - 0.75 / n, "val_accuracy": 0.9 - 0.6 / n, "loss": 1 / n, "effective_rank": 5.0 * n}
        for n in range(1, epochs + 1)
    ]
    checkpoints.write(folder / BACKBONE, {}, {"history": history})
    found = {"final": history[-1], "chance": 0.25, "warning": warning, "training_seconds": 60.0, "unreadable": []}
    result = {"verb": "pretrain", "run": str(folder), "seconds": 70.0, "settings": settings} | found
    runs.write_json(folder / runs.RESULT, result)
    return folder


def _settings(made: Made, name: str) -> dict[str, Any]:
    asked = SweepSettings(
        name=name, init=made.inits, strategy=made.strategies, per_class=made.per_class, draws=made.draws
    )
    return config.as_json(asked)


def make_sweep(out: Path, name: str, made: Made) -> Path:
    """A sweep in its folder."""
    data = dataset(out, made.classes, made.images)
    test = np.arange(made.images, 2 * made.images)
    labels, count = data.labels[test], len(made.classes)
    folder = runs.new_run(out, name, "sweep", _settings(made, name))
    write_summary(folder, data, {"training": np.arange(made.images), "test": test}, "split by content", SCALING)
    write_machine(folder, choose("cpu", "fp32"))
    runs.write_json(folder / "sweep.json", {"inits": {one: {} for one in (*made.inits, SCRATCH)}})
    (folder / "draws").mkdir()
    random, planned = np.random.default_rng(1), []
    for k in made.per_class:
        for d in range(made.draws):
            with (folder / "draws" / f"k{k}_d{d}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([["path", "label"], *([["x", "y"]] * k * count)])
            for init in (*made.inits, SCRATCH):
                planned += [(init, s, k, d) for s in ((BASELINE,) if init == SCRATCH else made.strategies)]
    finished = planned[: round(made.done * len(planned))]
    contents = []
    for init, strategy, k, d in finished:
        logits = random.normal(0, 1, (len(test), count)) + np.eye(count)[labels] * (0.4 + np.log2(k) / 4)
        logits += np.eye(count)[labels] * (init != SCRATCH) / 2
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        scored = classification(probabilities, labels, made.classes)
        key = kept_predictions.key_of(init, strategy, k, d)
        kept_predictions.write(folder, key, probabilities)
        tables = {table: scored.pop(table) for table in ("per_class", "confusion")}
        content = {"init": init, "strategy": strategy, "per_class": k, "draw": d, "labels_used": k * count,
                   "unlabeled_used": 0, "steps": 300, "how": "", "seconds": 1.0, **scored}  # fmt: skip
        write_trial(folder, key, content, tables)
        contents.append(content)
    if made.ended is not None:
        runs.write_json(folder / runs.ENDED, {"status": "FAILED", "why": made.ended, "at": 0.0})
    if made.done < 1:
        return folder
    keys = {kept_predictions.key_of(*one): [(kept_predictions.key_of(*one), None)] for one in finished}
    kept_predictions.gather(folder, keys, labels, [data.units[index] for index in test])
    _finish(folder, made, finished, contents)
    return folder


def _finish(folder: Path, made: Made, trials: list[Any], contents: list[dict[str, Any]]) -> None:
    """result.json, as a sweep writes it."""
    reuse = dict.fromkeys(made.per_class, 0.1)
    tested = kept_predictions.answered(folder, trials, reuse)
    found = comparison.answer(tested, made.inits, Around(folder.name, made.inits[0], True))
    assert found.next is not None
    typed = [one.command(config.flag) for one in found.next[1]]
    lines = [*found.verdict, f"{found.next[0]}, type {', and then '.join(typed)}."]
    more = {
        "trials": contents,
        "comparisons": found.comparisons,
        "labels_saved": found.labels_saved,
        "labels_saved_by_budget": found.labels_saved_by_budget,
        "outcome": found.outcome,
        "verdict": "\n".join(lines),
        "next": typed,
        "labels_shared": reuse,
        "overlap": {made.inits[0]: "2 of 60 test images are exact copies of pretraining images"},
        "n_test": made.images,
        "pooled": list(made.inits),
    }
    result = {"verb": "sweep", "run": str(folder), "seconds": 90.0, "settings": _settings(made, folder.name)} | more
    runs.write_json(folder / runs.RESULT, result)
