"""Every method: images/s of its training over its bare steps, and the share of the matrix peak that a step reaches.

    python benchmarks/methods.py [--methods rotnet,sela] [--side 64] [--rounds 5] [--steps 8] [--threads 1]
                                 [--precision bf16] [--half]

Real is the loop with its loader and augmentation; bare are the method's own losses, backward passes and optimizer
steps on batches that lie in memory. Both turn about in one run, and the ratio is the median over rounds. Targets:
.95, and .90 for methods of two players. Operations are counted by torch (convolutions and matrix products, forwards
and backwards); the peak is the fastest of some products of 2,048 x 2,048 in the same arithmetic, on as many threads.
With one thread times are of the processor, so that other programs matter less, else of the wall. Methods that
relabel between steps (sela, deepcluster) do so before the timed ones. --half: at half the side, where most steps are.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_app import registry
from ssl_app.data.batch import Batch
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.models.backbones import build
from ssl_app.pretext.base import Pretext, TrainingSet
from ssl_app.training.hardware import Hardware, bf16_units, choose
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan, build_optimizer, freeze

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.throughput import processor, turn_about

BATCH, EPOCHS = 128, 1000  # epochs that SeLa spreads its labelings over
PEAK_SIDE, PEAK_TRIES = 2048, 5


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--methods", help="default: all that need nothing but images")
    reader.add_argument("--side", type=int, default=64)
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--steps", type=int, default=8, help="optimizer steps of one round")
    reader.add_argument("--threads", type=int, default=1)
    reader.add_argument("--precision", choices=["fp32", "bf16"], default="bf16" if bf16_units() else "fp32")
    reader.add_argument("--half", action="store_true")
    asked = reader.parse_args()
    hardware = choose(precision=asked.precision, threads=asked.threads)
    clock = time.process_time if asked.threads == 1 else time.perf_counter
    peak = matrix_peak(hardware, clock)
    kinds = {name: registry.find("pretext", name) for name in registry.names("pretext")}
    names = asked.methods.split(",") if asked.methods else [name for name in kinds if kinds[name].standalone]
    print(f"{processor()}, load {os.getloadavg()[0]:.1f}; {hardware.sentence()}; torch {torch.__version__}")
    print(
        f"matrix peak {peak / 1e9:.0f} GFLOP/s; {asked.side} px{', half the side' * asked.half}, batches of {BATCH}"
    )
    print("| method | real, images/s | bare | ratio | share of the peak, bare |\n|---|---|---|---|---|")
    for name in names:
        timing = Timing(kinds[name], asked.side, hardware, asked.steps, clock, asked.half)
        timing.bare(), timing.real()  # warm
        real, bare = turn_about(timing.real, timing.bare, asked.rounds)
        ratio = statistics.median(one / other for one, other in zip(real, bare, strict=True))
        share = timing.operations / BATCH * statistics.median(bare) / peak
        print(
            f"| {name} | {statistics.median(real):.0f} | {statistics.median(bare):.0f} | {ratio:.3f} | {share:.2f} |",
            flush=True,
        )


def matrix_peak(hardware: Hardware, clock: Callable[[], float]) -> float:
    """Operations a second of a product of matrices, in the arithmetic that is trained in."""
    dtype = torch.bfloat16 if hardware.bf16 else torch.float32
    one, other = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(hardware.device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(PEAK_TRIES + 1):
        began = clock()
        one @ other
        best = min(best, clock() - began)
    return 2 * PEAK_SIDE**3 / best


class Timing:
    """A method's training, as it is and bare, on the same images with the same weights."""

    def __init__(
        self,
        method: type[Pretext[object]],
        side: int,
        hardware: Hardware,
        steps: int,
        clock: Callable[[], float],
        half: bool,
    ) -> None:
        self.hardware, self.steps, self.clock = hardware, steps, clock
        self.half = half and method.progressive_resizing
        channels = method.needs.channels or 1
        count, pack = BATCH * steps, round(1.15 * side)
        images = np.random.default_rng(0).integers(0, 256, (count, pack, pack, channels), dtype=np.uint8)
        scaling = PixelScaling("range", 0.0, 255.0, (0.5,) * channels, (0.25,) * channels)
        rows = ImageRows(images, np.arange(count), scaling, side)
        torch.manual_seed(0)
        backbone = build("vit-tiny" if method.__name__ == "MAE" else "small-resnet", channels, side)
        self.task = method(backbone, method.Config(), TrainingSet(count, EPOCHS))
        self.task.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
        self.loader = Loader(rows, self.task.augmentation(rows.frame), Batching(BATCH, 0, method.needs.views))
        self.plan = Plan(
            rates=dict.fromkeys(self.task.parts(), 0.001), epochs=1, batch_size=BATCH, half_size=float(self.half)
        )
        fit(self.task, self.loader, replace(self.plan, steps_per_epoch=1), hardware)  # labels, where it makes them
        self.labeled = copy.deepcopy(self.task)
        self.prepared = [self._placed(micro[0]) for micro in self.loader.epoch(0, min(steps, 4))]
        with FlopCounterMode(display=False) as counter:
            for _ in self._steps(1):
                pass
        self.operations: int = counter.get_total_flops()

    def real(self) -> float:
        """Images/s of fit, the labels of all images at hand."""
        task = copy.deepcopy(self.labeled)
        task.start_epoch = lambda epoch, map_dataset: {}  # type: ignore[method-assign]
        task.before_step = lambda progress, map_dataset: {}  # type: ignore[method-assign]
        task.finish = lambda map_dataset: None  # type: ignore[method-assign]
        began = self.clock()
        fit(task, self.loader, self.plan, self.hardware)
        return BATCH * self.steps / (self.clock() - began)

    def bare(self) -> float:
        """Images/s of plain steps on batches in memory."""
        began = self.clock()
        for _ in self._steps(self.steps):
            pass
        return BATCH * self.steps / (self.clock() - began)

    def _steps(self, count: int) -> Iterator[int]:
        freeze(self.task, self.plan)
        players = self.task.players
        optimizers = {player: build_optimizer(self.task, player, self.plan) for player in players}
        moved = {p: [w for group in one.param_groups for w in group["params"]] for p, one in optimizers.items()}
        for step in range(count):
            for player in players:
                for other in players if len(players) > 1 else ():
                    for parameter in moved[other]:
                        parameter.requires_grad_(other == player)
                optimizers[player].zero_grad(set_to_none=True)
                with self.hardware.autocast():
                    loss, _ = self.task.loss(self.prepared[step % len(self.prepared)], player)
                loss.backward()
                optimizers[player].step()
            yield step

    def _placed(self, batch: Batch) -> Batch:
        found = batch.to(self.hardware.device, self.hardware.memory_format)
        return found.halved() if self.half else found


if __name__ == "__main__":
    main()
