"""Two processes on two cores against one process on one core: images/s of training, turn about in one run.

    torchrun --standalone --nproc-per-node 2 benchmarks/processes.py [--methods rotnet,simclr,sela] [--rounds 5]

Both train the same batch, 64 images of 64 px gray, with one thread a process; while one process trains, the other
sleeps. The share is that of twice the images/s of one process: 1 is a perfect division. Where other programs run, the
wall says little: the second share is of processor time, the images per second that processes computed.
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
from ssl_app.training.hardware import choose
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan

BATCH, SIDE = 64, 64
EPOCHS = 1000  # that SeLa spreads its labelings over: three of them fall into the first


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--methods", default="rotnet,simclr,sela")
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--steps", type=int, default=6, help="optimizer steps of one round")
    asked = reader.parse_args()
    group = processes(cuda=False)
    for name in asked.methods.split(","):
        timing = Timing(name, asked.steps)
        timing.of(group), timing.of(SingleProcess(), group)  # warm
        pairs = [(timing.of(group), timing.of(SingleProcess(), group)) for _ in range(asked.rounds)]
        walls, cpus = ([both[i] / (2 * one[i]) for both, one in pairs] for i in (0, 1))
        if group.rank == 0:
            of_one = statistics.median(one[0] for _, one in pairs)
            print(
                f"{name}: {statistics.median(walls):.3f} of twice one process by the wall ({min(walls):.2f} to "
                f"{max(walls):.2f}), {statistics.median(cpus):.3f} by processor time ({min(cpus):.2f} to "
                f"{max(cpus):.2f}); {of_one:.0f} images/s of one process; medians of {asked.rounds} rounds of "
                f"{asked.steps} steps, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    group.close()


class Timing:
    """A method's training, on one process or on all."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.hardware = choose("cpu", "fp32", threads=1)
        pack = round(1.15 * SIDE)
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (BATCH * steps, pack, pack, 1), dtype=np.uint8)

    def of(self, group: SingleProcess, waiting: SingleProcess | None = None) -> tuple[float, float]:
        """(images/s by the wall, images per second of processor time and process), in process 0.

        With `waiting`, process 0 of that group trains alone and the others wait.
        """
        task = self._task()
        wall, cpu = time.perf_counter(), time.process_time()
        if waiting is None or waiting.rank == 0:
            count = len(self.images)
            scaling = PixelScaling("range", 0.0, 255.0, (0.5,), (0.25,))
            rows = ImageRows(self.images, np.arange(count), scaling, SIDE)
            batching = Batching(BATCH, 0, task.needs.views, group.world, group.rank, group.world)
            loader = Loader(rows, task.augmentation(rows.frame), batching)
            plan = Plan(rates=dict.fromkeys(task.parts(), 0.01), epochs=1, batch_size=BATCH)
            fit(task, loader, plan, self.hardware, group=group)
        spent = time.process_time() - cpu
        wall = time.perf_counter() - wall
        if waiting is not None:
            waiting.barrier()
            return BATCH * self.steps / wall, BATCH * self.steps / spent
        total = float(group.all_reduce(torch.tensor([spent], dtype=torch.float64)))
        return BATCH * self.steps / wall, BATCH * self.steps * group.world / total

    def _task(self) -> Pretext[object]:
        method: type[Pretext[object]] = registry.find("pretext", self.name)
        torch.manual_seed(0)
        return method(build("small-resnet", 1, SIDE), method.Config(), TrainingSet(BATCH * self.steps, EPOCHS))


if __name__ == "__main__":
    main()
