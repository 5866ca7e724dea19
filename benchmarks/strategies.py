"""What a step of the strategies that look at unlabeled images costs, in steps on labeled images alone.

    python benchmarks/strategies.py [--side 64] [--rounds 5]

Times stretches of two-stage, self-training and FixMatch in turn, on the same images of noise and one thread, and
prints the ratio of each pair of stretches: the median, and the range of the middle half. `COST` in
transfer/semi_supervised.py is from here. Also label propagation on 10, 50 and 200 thousand rows of 256 features, with
seconds and peak memory.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ssl_app.data.intensity import PixelScaling
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.evaluation import propagated_head
from ssl_app.models import backbones
from ssl_app.training.hardware import choose
from ssl_app.training.initialization import Initialization
from ssl_app.transfer.draw import TransferConfig
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.trial import Job, TrialSetup, run

CLASSES, IMAGES, PER_CLASS, STEPS = 3, 600, 8, 12
ROWS, WIDTH = (10_000, 50_000, 200_000), 256


def setup(side: int, folder: Path) -> TrialSetup:
    """Images of noise, and random weights that stand for a pretraining's."""
    generator = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    split = np.where(np.arange(IMAGES) < IMAGES - 30, "train", "test")
    images = generator.integers(0, 256, (IMAGES, side, side)).astype(np.uint8)
    np.savez(folder / "noise.npz", images=images, labels=labels.astype(str), split=split)
    tensors = {f"backbone.{k}": t for k, t in backbones.build("small-resnet", 1, side).state_dict().items()}
    scaling = PixelScaling("range", 0.0, 255.0, (0.5,), (0.29,), "uint8")
    start = Initialization("noise", "small-resnet", tensors, "noise", side, 1, scaling, content="noise")
    config = TransferConfig(
        steps=STEPS, batch_size=64, lr=0.15, weight_decay=5e-4, clip=5.0, optimizer="sgd", augment="standard",
        mirror=True, head="linear", layer=None, validation="within", seed=0,
    )  # fmt: skip
    planned = Planned(start, DataSpec(str(folder / "noise.npz"), folder / "cache"), PixelSpec(side, 1))
    return prepare(planned, config, choose("cpu", "auto", 1))


def seconds(one: TrialSetup, strategy: str, steps: int) -> float:
    """Of a trial with so many steps."""
    drawn = np.arange(CLASSES * PER_CLASS)
    began = time.monotonic()
    run(one, Job(strategy, drawn, 0, steps=steps))
    return time.monotonic() - began


def step_ratios(one: TrialSetup, rounds: int) -> None:
    """Time of further steps, of which all else is taken off, in pairs with two-stage."""
    found: dict[str, list[float]] = {"self-training": [], "fixmatch": []}
    for _ in range(rounds):
        usual = seconds(one, "two-stage", 3 * STEPS) - seconds(one, "two-stage", STEPS)
        for strategy, ratios in found.items():
            ratios.append((seconds(one, strategy, 3 * STEPS) - seconds(one, strategy, STEPS)) / usual)
    for strategy, ratios in found.items():
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"{strategy}: {middle:.2f} steps of two-stage [{low:.2f}, {high:.2f}], n = {rounds}", flush=True)


def propagation() -> None:
    """Seconds and memory of the head on propagated labels."""
    generator = np.random.default_rng(0)
    for rows in ROWS:
        labels = generator.integers(0, 10, rows)
        features = (generator.normal(size=(rows, WIDTH)) + generator.normal(size=(10, WIDTH))[labels]).astype("f4")
        drawn = np.concatenate([np.flatnonzero(labels == k)[:8] for k in range(10)])
        began = time.monotonic()
        head, found = propagated_head.fit(features, drawn, labels[drawn], 10)
        spent, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        right = (head.logits(features[:5000]).argmax(1) == labels[:5000]).mean()
        print(
            f"propagation: {rows:,} rows, {spent:.0f} s on {torch.get_num_threads()} threads, peak {peak:.2f} GB, "
            f"{found.reached.mean():.0%} reached, {right:.3f} right",
            flush=True,
        )


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--side", type=int, default=64)
    reader.add_argument("--rounds", type=int, default=5)
    asked = reader.parse_args()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as made:
        torch.set_num_threads(1)
        step_ratios(setup(asked.side, Path(made)), asked.rounds)
    torch.set_num_threads(threads)
    propagation()
