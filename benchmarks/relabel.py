"""LabelPooling against plain and smoothed labels, on images of several objects with one label; and its cost.

    python benchmarks/relabel.py CIFAR-10 OUT [--per-class 500] [--steps 1500] [--draws 3] [--threads N]

CIFAR-10 is whatever --data takes and has images of one size with labels (a pattern of tar shards, an .npz, a folder).
Of its images come, in OUT:

tiles.npz    single images: what the teacher is trained on
mosaics.npz  2x2 tiles. A training image has four different images and the label of one of them, by chance; a test
             image four images of one class, so that its label is right for every part of it

The teacher's maps of the mosaics come from `ssl-app relabel`. A sweep from random weights then trains the same
network on the same draws of mosaics and the same crops, for the same steps: on the label, on the smoothed label,
and on the pooled labels of the crops. Printed are the scores, the paired differences with a t interval over the
draws, and the time of a training image with maps over one with plain labels, by steps in turn.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from ssl_app.checkpoints import SCRATCH
from ssl_app.commands import finetune, relabel, sweep
from ssl_app.commands.base import hardware_of, planned_of, transfer_config
from ssl_app.console import show_messages
from ssl_app.data import splits
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.environment import prepare_environment
from ssl_app.evaluation.intervals import paired_t
from ssl_app.settings import StageTwoSettings, SweepSettings
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import trial
from ssl_app.transfer.draw_task import DrawTask
from ssl_app.transfer.fitting import Phase, train
from ssl_app.transfer.setup import prepare
from ssl_app.transfer.soft_targets import PooledLabels, pooled_targets

PLAIN, SMOOTHED, POOLED = "full-fine-tuning", "label-smoothing", "label-pooling"
TILES, TRAIN, TEST = 20000, 6000, 1000  # images: for the teacher, mosaics to train on and to test on
TIMED, ROUNDS = 10, 8  # steps of a stretch that is timed, and stretches of each kind


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("data")
    reader.add_argument("out", type=Path)
    reader.add_argument("--per-class", type=int, default=500)
    reader.add_argument("--steps", type=int, default=1500)
    reader.add_argument("--teacher-steps", type=int, default=3000)
    reader.add_argument("--draws", type=int, default=3)
    reader.add_argument("--threads", type=int)
    given = reader.parse_args()
    prepare_environment()
    show_messages()
    runs = given.out / "ssl-runs"
    common = {"out": runs, "threads": given.threads, "tracking_uri": "none"}
    make_sets(given.data, given.out)
    if not (runs / "teacher" / "result.json").is_file():
        tiles = {"data": str(given.out / "tiles.npz"), "image_size": 32, "steps": given.teacher_steps}
        finetune.run(finetune.Settings(**common, **tiles, init="none", strategy=PLAIN, name="teacher"))
    mosaics = str(given.out / "mosaics.npz")
    if not (runs / "maps" / "result.json").is_file():
        relabel.run(relabel.Settings(**common, teacher="teacher", data=mosaics, image_size=64, name="maps"))
    found = sweep.run(
        SweepSettings(
            **common, data=mosaics, image_size=64, init=("none",), relabel="maps", steps=given.steps, name="mosaics",
            baseline_strategy=(SMOOTHED, POOLED), strategy=(POOLED,), per_class=(given.per_class,), draws=given.draws,
            baseline_length="same", evaluate_on="test",
        )
    )  # fmt: skip
    report(found.more["trials"])
    cost(StageTwoSettings(**common, data=mosaics, image_size=64, relabel="maps"))


def make_sets(data: str, out: Path) -> None:
    """tiles.npz and mosaics.npz; a tile is in one of them, and on one side of the split."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "mosaics.npz").is_file():
        return
    source, generator = open_source(data, Columns()), np.random.default_rng(0)
    assert source.labels is not None
    order = generator.permutation(len(source.keys))[: TILES + 4 * (TRAIN + TEST)]
    wanted = set(order.tolist())
    read = {i: image for i, image in source.each(lambda image: image) if i in wanted}
    images = np.stack([np.asarray(read[i]) for i in order])  # (n, 32, 32, 3)
    labels = np.array([source.labels[i] for i in order])
    test = np.where(np.arange(TILES) < TILES // 8, "test", "train")
    np.savez(out / "tiles.npz", images=images[:TILES], labels=labels[:TILES], split=test)
    four, of_four = images[TILES:][: 4 * TRAIN], labels[TILES:][: 4 * TRAIN].reshape(TRAIN, 4)
    named = of_four[np.arange(TRAIN), generator.integers(0, 4, TRAIN)]
    rest, of_rest = images[TILES + 4 * TRAIN :], labels[TILES + 4 * TRAIN :]
    by_class = {name: np.flatnonzero(of_rest == name) for name in np.unique(labels)}
    alike = [(name, places[4 * n :][:4]) for name, places in by_class.items() for n in range(len(places) // 4)]
    pure = np.stack([mosaic(rest[places]) for _, places in alike])
    np.savez(
        out / "mosaics.npz",
        images=np.concatenate([np.stack([mosaic(one) for one in four.reshape(TRAIN, 4, *four.shape[1:])]), pure]),
        labels=np.concatenate([named, [name for name, _ in alike]]),
        split=np.array(["train"] * TRAIN + ["test"] * len(alike)),
    )


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """(4, S, S, C) -> (2 S, 2 S, C)."""
    return np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)], axis=0)


def report(trials: list[dict[str, object]]) -> None:
    """Scores and paired differences of the variants from random weights."""
    scores = {
        strategy: np.array(
            [
                float(str(one["balanced_accuracy"]))
                for one in sorted(trials, key=lambda one: int(str(one["draw"])))
                if one["strategy"] == strategy and one["init"] == SCRATCH
            ]
        )
        for strategy in (PLAIN, SMOOTHED, POOLED)
    }
    for strategy, values in scores.items():
        print(f"{strategy:18} {100 * values.mean():5.1f} %  ({' '.join(f'{100 * v:.1f}' for v in values)})")
    for other in (PLAIN, SMOOTHED):
        interval = paired_t(scores[POOLED] - scores[other])
        low, high = (float("nan") if end is None else 100 * end for end in (interval.low, interval.high))
        print(f"{POOLED} - {other}: {100 * interval.mean:+.1f} points [{low:+.1f}, {high:+.1f}], n = {interval.n}")


def cost(settings: StageTwoSettings) -> None:
    """CPU time of a step with maps over one with plain labels, stretches in turn."""
    start = Initialization(SCRATCH, "small-resnet")
    hardware = hardware_of(settings)
    setup = prepare(planned_of(settings, start, "test"), transfer_config(settings, start, "within", 0), hardware)
    drawn = splits.draw(setup.dataset, setup.opened.parts.train, 100, seed=0, draw=0)
    classifier = trial.new_classifier(setup, drawn, 0)
    draw = trial.draw_of(setup, trial.Job(POOLED, drawn, 0), 0)
    task = PooledLabels(classifier, pooled_targets(draw, draw.labeled, classifier))
    taken: dict[str, list[float]] = {"plain": [], "maps": []}
    kinds: dict[str, DrawTask | None] = {"plain": None, "maps": task}
    for _ in range(ROUNDS + 1):
        for kind, trained in kinds.items():
            began = time.process_time()
            train(classifier, draw, Phase("timed", TIMED, {"head": 0.01, "backbone": 0.01}), trained)
            taken[kind].append((time.process_time() - began) / TIMED / draw.config.batch_size)
    plain, maps = (np.array(values[1:]) for values in taken.values())
    print(
        f"a training image: {1e3 * np.median(plain):.3f} ms plain, {1e3 * np.median(maps):.3f} ms with maps: "
        f"{np.median(maps / plain):.3f} times (quartiles {np.quantile(maps / plain, 0.25):.3f} to "
        f"{np.quantile(maps / plain, 0.75):.3f}; {hardware.place()})"
    )


if __name__ == "__main__":
    main()
