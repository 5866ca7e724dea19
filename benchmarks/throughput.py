"""What the loop, the convex fits and the command line cost, as ratios measured in one run on one machine.

    python benchmarks/throughput.py [--only loop|fits|help|wait|augmentation] [--rounds 7] [--steps 20] [--threads N]
    python benchmarks/throughput.py --only fits --out ssl-runs --init RUN [--data D]

loop: images/s of fit + Loader + RotNet + small-resnet, over the same network and optimizer fed from
      memory; turn about, medians. Target: 0.95 or more.
fits: seconds of the convex fits of 7 budgets x 5 draws on cached features. Target: under 60 s.
help: `ssl-app --help` over `python -c "import click"`, whole processes, turn about. Target: under 2.
wait: images/s of two threads that sleep while they wait (OMP_WAIT_POLICY=PASSIVE), over two that spin.
augmentation: time of a view where our operations execute the transforms, over albumentations itself, turn
      about, medians, in batches of 32 and 128; CPU time of the thread. Target: under .25 where colors or noise
      are drawn.

Nothing outside the repository is read unless --out is given. On a machine where other programs run,
only the ratios of `loop` and `help` mean something, and those little; the load is printed.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import torch
from torch.nn import functional

from ssl_app.data import splits
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.data.transforms import PRESETS, Augmentation, Frame, preset, views_of_batch
from ssl_app.evaluation import logistic
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.parts.contrastive import views_of
from ssl_app.pretext.rotnet import RotNet, RotNetConfig, turn
from ssl_app.training.hardware import Hardware, choose, cores
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan, build_optimizer, factor, freeze, set_rates
from ssl_app.transfer.draw import FOLDS

BATCH = 128
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
SETS = {"64 px gray": (64, 1), "32 px RGB": (32, 3)}
BUDGETS, DRAWS, CLASSES = (1, 2, 4, 8, 16, 32, 64), 5, 10


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--only", choices=["loop", "fits", "help", "wait", "augmentation"])
    reader.add_argument("--rounds", type=int, default=7)
    reader.add_argument("--steps", type=int, default=20, help="optimizer steps of one round")
    reader.add_argument("--threads", type=int, help="default: torch's")
    reader.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="of loop; cpu is for a busy machine, one thread"
    )
    reader.add_argument("--out", type=Path, help="folder of runs, for fits on the features of --init")
    reader.add_argument("--init", help="run whose features are fitted")
    reader.add_argument("--data", help="labeled data; default: the data of --init")
    reader.add_argument("--pace", action="store_true", help=argparse.SUPPRESS)  # what `wait` starts
    asked = reader.parse_args()
    hardware = choose(threads=asked.threads)
    if asked.pace:
        print(pace(hardware, asked.steps, asked.rounds))
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "albumentations", "numpy", "scikit-learn"))
    print(f"{processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f}; {hardware.sentence()}")
    print(f"Python {platform.python_version()}, {versions}", flush=True)
    if asked.only in (None, "loop"):
        for name, (side, channels) in SETS.items():
            loop_ratio(
                name,
                LoopTiming(side, channels, hardware, asked.steps, CLOCKS[asked.clock]),
                asked.rounds,
                asked.clock,
            )
    if asked.only in (None, "fits"):
        convex_fits(asked.out, asked.init, asked.data, hardware)
    if asked.only in (None, "help"):
        help_ratio(asked.rounds + 3)
    if asked.only in (None, "wait"):
        wait_ratio(asked.steps, asked.rounds)
    if asked.only in (None, "augmentation"):
        for name, (side, channels) in SETS.items():
            augmentation_ratios(name, Frame(side, round(1.15 * side), channels), asked.rounds)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (names[0] if names else platform.processor()) + gpu


class LoopTiming:
    """The real loop and the bare one, on the same images with the same network."""

    def __init__(
        self, side: int, channels: int, hardware: Hardware, steps: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.hardware, self.steps, self.clock = hardware, steps, clock
        pack = round(1.15 * side)
        count = BATCH * steps
        images = np.random.default_rng(0).integers(0, 256, (count, pack, pack, channels), dtype=np.uint8)
        scaling = PixelScaling("range", 0.0, 255.0, (0.5,) * channels, (0.25,) * channels)
        workers = 0 if hardware.device.type == "cpu" else min(8, max(1, cores() - 1))
        rows = ImageRows(images, np.arange(count), scaling, side)
        self.loader = Loader(rows, preset("light", rows.frame), Batching(BATCH, seed=0, workers=workers))
        self.plan = Plan(rates={"all": 0.01}, epochs=1, batch_size=BATCH)
        self.task = RotNet(build("small-resnet", channels, side), RotNetConfig(), TrainingSet(count, 1))
        self.task.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
        ready = [
            micro[0].to(hardware.device, hardware.memory_format) for micro in self.loader.epoch(0, min(steps, 4))
        ]
        self.prepared = [turn(batch.images) for batch in ready]

    def real(self) -> float:
        """Images/s of fit."""
        started = self.clock()
        fit(self.task, self.loader, self.plan, self.hardware)
        return self._images_per_second(started)

    def bare(self) -> float:
        """Images/s of plain steps on turned batches that lie in memory."""
        freeze(self.task, self.plan)
        optimizer = build_optimizer(self.task, "main", self.plan)
        started = self.clock()
        for step in range(self.steps):
            turned, turns = self.prepared[step % len(self.prepared)]
            optimizer.zero_grad(set_to_none=True)
            with self.hardware.autocast():
                logits = self.task.head(self.task.backbone(turned)).float()
                loss = functional.cross_entropy(logits, turns)
            loss.backward()
            set_rates(optimizer, factor(self.plan, step, self.steps))
            optimizer.step()
        return self._images_per_second(started)

    def _images_per_second(self, started: float) -> float:
        if self.hardware.device.type == "cuda":
            torch.cuda.synchronize()
        return BATCH * self.steps / (self.clock() - started)


def loop_ratio(name: str, timing: LoopTiming, rounds: int, clock: str) -> None:
    timing.bare(), timing.real()  # warm: allocations, kernels, workers
    real, bare = turn_about(timing.real, timing.bare, rounds)
    ratio = statistics.median(one / other for one, other in zip(real, bare, strict=True))
    print(
        f"loop, {name}: {ratio:.3f} of bare steps (target 0.95); {statistics.median(real):.0f} against "
        f"{statistics.median(bare):.0f} images/s of {clock} time, medians of {rounds} rounds of {timing.steps} steps",
        flush=True,
    )


def turn_about(one: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Measure A B, B A, A B ... so that a change of the machine's pace meets both."""
    first: list[float] = []
    second: list[float] = []
    for number in range(rounds):
        for measure, values in ((one, first), (other, second))[:: 1 if number % 2 == 0 else -1]:
            values.append(measure())
    return first, second


def convex_fits(out: Path | None, init: str | None, data: str | None, hardware: Hardware) -> None:
    """Time of the 35 convex fits of a sweep, features at hand."""
    features, labels, about = random_features() if init is None else features_of(out, init, data, hardware)
    generator = np.random.default_rng(0)
    classes = int(labels.max()) + 1
    seconds, fits = 0.0, 0
    for _ in range(DRAWS):
        order = {label: generator.permutation(np.flatnonzero(labels == label)) for label in range(classes)}
        for budget in BUDGETS:
            rows = np.concatenate([order[label][:budget] for label in range(classes)])
            folds = splits.folds(labels[rows], [str(row) for row in rows], FOLDS, seed=0)
            started = time.perf_counter()
            logistic.fit(features[rows], labels[rows], classes, folds=folds)
            seconds += time.perf_counter() - started
            fits += 1
    print(
        f"fits: {seconds:.1f} s for {fits} (target 60 s) on {about}, budgets {BUDGETS[0]} to {BUDGETS[-1]}",
        flush=True,
    )


def random_features() -> tuple[np.ndarray, np.ndarray, str]:
    generator = np.random.default_rng(0)
    dimension = build("small-resnet", 1, 64).shape()[0]
    labels = np.repeat(np.arange(CLASSES), max(BUDGETS))
    means = generator.normal(size=(CLASSES, dimension))
    features = np.maximum(means[labels] + 2 * generator.normal(size=(len(labels), dimension)), 0).astype(np.float32)
    return features, labels, f"random features of {dimension} numbers and {CLASSES} classes"


def features_of(
    out: Path | None, init: str, data: str | None, hardware: Hardware
) -> tuple[np.ndarray, np.ndarray, str]:
    from ssl_app.commands.base import planned_of, transfer_config
    from ssl_app.commands.sweep import Settings
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.setup import prepare
    from ssl_app.transfer.trial import with_features

    settings = Settings(out=out or Path("ssl-runs"), data=data, init=(init,))
    start = load_initialization(init, settings.out, None)
    config = transfer_config(settings, start, "within", 0)
    made = with_features(prepare(planned_of(settings, start, "test"), config, hardware), settings.out / "cache")
    train = made.opened.parts.train
    found = np.asarray(made.features_of(made.config.layer)[train])
    return found, made.dataset.labels[train], f"{found.shape[1]} features of {init} on {made.dataset.name}"


def help_ratio(rounds: int) -> None:
    def seconds(*words: str) -> Callable[[], float]:
        def measure() -> float:
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - started

        return measure

    script = Path(sys.executable).with_name("ssl-app")
    helped, bare = seconds(str(script), "--help"), seconds("-c", "import click")
    helped(), bare()
    ours, theirs = turn_about(helped, bare, rounds)
    one, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"help: {one / other:.2f} times import click (target 2); {one:.3f} s against {other:.3f} s, n = {rounds}",
        flush=True,
    )


def wait_ratio(steps: int, rounds: int) -> None:
    """Two processes in turn, one a policy: it is read when torch starts its threads."""

    def images_per_second(policy: str) -> Callable[[], float]:
        words = [sys.executable, __file__, "--pace", "--threads", "2", "--steps", str(steps), "--rounds", "3"]
        # without a policy libgomp spins for a while and then sleeps, which is what a user has who sets nothing
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        environment |= {"OMP_WAIT_POLICY": policy} if policy else {}

        def measure() -> float:
            return float(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout)

        return measure

    passive, default = turn_about(images_per_second("PASSIVE"), images_per_second(""), max(1, rounds // 2))
    one, other = statistics.median(passive), statistics.median(default)
    print(
        f"wait: {one / other:.3f} with OMP_WAIT_POLICY=PASSIVE over the default, 2 threads on 64 px gray; "
        f"{one:.0f} against {other:.0f} images/s, medians of {max(1, rounds // 2)} processes each",
        flush=True,
    )


def pace(hardware: Hardware, steps: int, rounds: int) -> float:
    """Images/s of the real loop in this process."""
    timing = LoopTiming(*SETS["64 px gray"], hardware, steps)
    timing.real()
    return statistics.median(timing.real() for _ in range(rounds))


def augmentation_ratios(name: str, frame: Frame, rounds: int) -> None:
    """Of every preset that draws, and of the views of contrastive methods."""
    builds: dict[str, Callable[[], Augmentation]] = {
        **{f"--augment {one}": partial(preset, one, frame) for one in PRESETS if one != "none"},
        **{f"--views {one}": partial(views_of, frame, one) for one in ("light", "strong", "mixed")},
    }
    for about, build_one in builds.items():
        ours, theirs = build_one(), build_one()
        for pipeline in getattr(theirs, "by_image", [theirs]):
            pipeline.operations = None  # as if it held a transform that is unknown
        for batch in (32, 128):
            one, other = turn_about(per_view(ours, frame, batch), per_view(theirs, frame, batch), rounds)
            ratio = statistics.median(mine / its for mine, its in zip(one, other, strict=True))
            print(
                f"augmentation, {name}, {about}, batch {batch}: {ratio:.2f} of albumentations' time; "
                f"{statistics.median(one):.0f} against {statistics.median(other):.0f} us a view, n = {rounds}",
                flush=True,
            )


def per_view(augmentation: Augmentation, frame: Frame, batch: int) -> Callable[[], float]:
    """Microseconds of a view, over 128 images."""
    generator = np.random.default_rng(0)
    images = generator.random((batch, frame.pack_size, frame.pack_size, frame.channels), np.float32)
    seeds = generator.integers(0, 2**63, (128 // batch, batch), np.uint64)

    def measure() -> float:
        views_of_batch(augmentation, images, seeds[0], 1)  # warm
        started = time.thread_time()
        for some in seeds:
            views_of_batch(augmentation, images, some, 0)
        return (time.thread_time() - started) / seeds.size * 1e6

    return measure


if __name__ == "__main__":
    main()
