"""Two processes on two cores against one process on one core: images/s of training, turn about in one run.

    torchrun --standalone --nproc-per-node 2 benchmarks/processes.py [--methods rotnet,simclr,sela] [--rounds 5]
                                                                     [--steps 12] [--batch 128] [--precision bf16]

Both train the same batch, 128 images of 64 px gray, with one thread a process; while one process trains, the other
sleeps. The share is that of twice the images/s of one process: 1 is a perfect division. Where other programs run, the
wall says little: the second share is of processor time, the images per second that processes computed. Two cores
share memory and clock, and seldom give twice one: the third share is that of two processes that train at once and
know nothing of each other, each a batch of its own. Of every training the second epoch of two is timed; SeLa relabels
once in it.
"""

import argparse
import os
import statistics
import time

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from ssl_app import registry
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.models.backbones import build
from ssl_app.pretext.base import Pretext, TrainingSet
from ssl_app.training.distributed import SingleProcess, processes
from ssl_app.training.hardware import bf16_units, choose
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan

SIDE, EPOCHS = 64, 2


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--methods", default="rotnet,simclr,sela")
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--steps", type=int, default=12, help="optimizer steps of an epoch")
    reader.add_argument("--batch", type=int, default=128)
    reader.add_argument("--precision", choices=["fp32", "bf16"], default="bf16" if bf16_units() else "fp32")
    asked = reader.parse_args()
    group = processes(cuda=False)
    for name in asked.methods.split(","):
        timing = Timing(name, asked.steps, asked.batch, asked.precision)
        timing.of(group), timing.of(SingleProcess(), group)  # warm
        found = [
            (timing.of(group), timing.of(SingleProcess(), group), timing.apart(group)) for _ in range(asked.rounds)
        ]
        walls, cpus = ([both[i] / (2 * one[i]) for both, one, _ in found] for i in (0, 1))
        aparts = [both[0] / apart for both, _, apart in found]
        if group.rank == 0:
            of_one = statistics.median(one[0] for _, one, _ in found)
            print(
                f"{name}: {statistics.median(walls):.3f} of twice one process by the wall ({min(walls):.2f} to "
                f"{max(walls):.2f}), {statistics.median(cpus):.3f} by processor time ({min(cpus):.2f} to "
                f"{max(cpus):.2f}), {statistics.median(aparts):.3f} of two apart by the wall ({min(aparts):.2f} to "
                f"{max(aparts):.2f}); {of_one:.0f} images/s of one process; medians of {asked.rounds} rounds of "
                f"{asked.steps} steps in {asked.precision}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    group.close()


class Timing:
    """A method's training, on one process or on all."""

    def __init__(self, name: str, steps: int, batch: int, precision: str) -> None:
        self.name, self.batch, self.count = name, batch, batch * steps
        self.hardware = choose("cpu", precision, threads=1)
        pack = round(1.15 * SIDE)
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (self.count, pack, pack, 1), dtype=np.uint8)

    def of(self, group: SingleProcess, waiting: SingleProcess | None = None) -> tuple[float, float]:
        """(images/s by the wall, images per second of processor time and process), in process 0.

        With `waiting`, process 0 of that group trains alone and the others wait.
        """
        wall = cpu = 1.0
        if waiting is None or waiting.rank == 0:
            wall, cpu = self._second_epoch(group)
        if waiting is not None:
            waiting.barrier()
            return self.count / wall, self.count / cpu
        total = float(group.all_reduce(torch.tensor([cpu], dtype=torch.float64)))
        return self.count / wall, self.count * group.world / total

    def apart(self, group: SingleProcess) -> float:
        """Images/s by the wall of all processes, each training alone at the same time."""
        group.barrier()
        wall, _ = self._second_epoch(SingleProcess())
        return float(group.all_reduce(torch.tensor([self.count / wall], dtype=torch.float64)))

    def _second_epoch(self, group: SingleProcess) -> tuple[float, float]:
        """Seconds by the wall and of this process's processor time: of the second epoch of two."""
        task = self._task()
        scaling = PixelScaling("range", 0.0, 255.0, (0.5,), (0.25,))
        rows = ImageRows(self.images, np.arange(len(self.images)), scaling, SIDE)
        batching = Batching(self.batch, 0, task.needs.views, group.world, group.rank, group.world)
        loader = Loader(rows, task.augmentation(rows.frame), batching)
        plan = Plan(rates=dict.fromkeys(task.parts(), 0.01), epochs=EPOCHS, batch_size=self.batch)
        ended: list[tuple[float, float]] = []
        hooks = Hooks(each_epoch=lambda history: ended.append((time.perf_counter(), time.process_time())))
        fit(task, loader, plan, self.hardware, hooks, group=group)
        (wall, cpu), (wall_after, cpu_after) = ended
        return wall_after - wall, cpu_after - cpu

    def _task(self) -> Pretext[object]:
        method: type[Pretext[object]] = registry.find("pretext", self.name)
        more = {"relabels": 4} if self.name == "sela" else {}  # one in the second epoch
        torch.manual_seed(0)
        return method(build("small-resnet", 1, SIDE), method.Config(**more), TrainingSet(self.count, EPOCHS))


if __name__ == "__main__":
    main()
