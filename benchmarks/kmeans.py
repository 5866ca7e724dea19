"""What k-means costs and finds beside faiss and scikit-learn, as ratios measured in one run on one machine.

    python benchmarks/kmeans.py [--only mixture|noise] [--points 50000] [--dimensions 256] [--clusters 1000]
                                [--rounds 5] [--iterations 20] [--threads N] [--clock wall|cpu]
                                [--contenders f32,bf16,faiss,scikit-learn]

mixture: rows of length 1 about as many centers as there are clusters; noise: rows of length 1.
f32 and bf16 are `clustering.kmeans`, both from the same start; every contender's time holds its start, its
iterations and each point's label. Turn about, medians; scikit-learn takes part in a third of the rounds.
Targets: seconds at most those of faiss, objective at most 1.005 of faiss's.

An objective is the mean squared distance of a point to the nearest centroid, computed for all in the same way.
Ours and scikit-learn's end where an assignment repeats, faiss's does not. faiss-cpu is no dependency of the
project: where it is not there, the ratios are to scikit-learn.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering import kmeans
from ssl_app.clustering.products import bf16_multiplies
from ssl_app.training.hardware import choose, cores

SETS = ("mixture", "noise")
SLOW = "scikit-learn"  # in every third round
WIDTH = 1.0  # of a mixture's clusters, in units of the centers' spread
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Contender = Callable[[Tensor, int], Tensor]  # points and seed -> centroids


@dataclass
class Measured:
    """What one contender took and found, a round each."""

    seconds: dict[int, float] = field(default_factory=dict)
    objectives: dict[int, float] = field(default_factory=dict)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--only", choices=SETS)
    reader.add_argument("--points", type=int, default=50_000)
    reader.add_argument("--dimensions", type=int, default=256)
    reader.add_argument("--clusters", type=int, default=1000)
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--iterations", type=int, default=20)
    reader.add_argument("--threads", type=int, help="default: torch's")
    reader.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu is for a busy machine, one thread")
    reader.add_argument("--contenders", default="f32,bf16,faiss,scikit-learn")
    asked = reader.parse_args()
    hardware = choose(device="cpu", threads=asked.threads)
    print(f"{processor()}, {cores()} cores, load {os.getloadavg()[0]:.1f}; {hardware.sentence()}")
    names = ("torch", "numpy", "scikit-learn", "faiss-cpu")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {installed(name)}' for name in names)}")
    if find_spec("faiss") is None:
        print("faiss is not here; type pip install faiss-cpu to compare with it")
    if not bf16_multiplies(hardware.device):
        print("bf16: this processor has no units for it, and takes f32 unless asked")
    print(
        f"{asked.points} x {asked.dimensions}, {asked.clusters} clusters, {asked.iterations} iterations", flush=True
    )
    for name in SETS if asked.only is None else (asked.only,):
        points = made(name, asked.points, asked.dimensions, asked.clusters)
        every = contenders(asked.clusters, asked.iterations, hardware.threads)
        running = {contender: run for contender, run in every.items() if contender in asked.contenders.split(",")}
        compare(name, points, asked.clusters, running, asked.rounds, CLOCKS[asked.clock])


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def made(name: str, count: int, width: int, clusters: int) -> Tensor:
    """Rows of length 1, (N, d)."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(count, width, generator=random)
    if name == "mixture":
        centers = torch.randn(clusters, width, generator=random)
        rows = rows.mul_(WIDTH).add_(centers[torch.randint(clusters, (count,), generator=random)])
    return functional.normalize(rows, dim=1)


def contenders(k: int, iterations: int, threads: int) -> dict[str, Contender]:
    def ours(fast: bool) -> Contender:
        def run(points: Tensor, seed: int) -> Tensor:
            return kmeans.fit(points, k, iterations=iterations, seed=seed, fast=fast).centroids

        return run

    def theirs(points: Tensor, seed: int) -> Tensor:
        import faiss

        faiss.omp_set_num_threads(threads)
        found = faiss.Kmeans(
            points.shape[1], k, niter=iterations, seed=seed, max_points_per_centroid=10**7, min_points_per_centroid=1
        )  # fmt: skip
        found.train(points.numpy())
        found.index.search(points.numpy(), 1)  # the labels
        return torch.from_numpy(np.array(found.centroids))

    def scikit(points: Tensor, seed: int) -> Tensor:
        found = KMeans(k, init="random", n_init=1, max_iter=iterations, tol=0, algorithm="lloyd", random_state=seed)
        with threadpool_limits(threads):
            return torch.from_numpy(found.fit(points.numpy()).cluster_centers_)

    found: dict[str, Contender] = {"f32": ours(False), "bf16": ours(True)}
    if find_spec("faiss") is not None:
        found["faiss"] = theirs
    return found | {SLOW: scikit}


def compare(
    name: str, points: Tensor, clusters: int, running: dict[str, Contender], rounds: int, clock: Callable[[], float]
) -> None:
    """Turn about: a b c d, d c b a, ... so that a change of the machine's pace meets all."""
    for run in running.values():
        run(points[: 2 * clusters], 0)  # warm: threads, kernels, memory
    measured = {contender: Measured() for contender in running}
    for number in range(rounds):
        for contender in list(running)[:: 1 if number % 2 == 0 else -1]:
            if contender == SLOW and number % 3:
                continue
            started = clock()
            centroids = running[contender](points, number)
            measured[contender].seconds[number] = clock() - started
            measured[contender].objectives[number] = objective(points, centroids)
    base = "faiss" if "faiss" in running else SLOW
    for contender, found in measured.items():
        seconds, objectives = (statistics.median(each.values()) for each in (found.seconds, found.objectives))
        slower, higher = (
            ratio(found.seconds, measured[base].seconds),
            ratio(found.objectives, measured[base].objectives),
        )
        print(
            f"{name}, {contender}: {seconds:.3f} s, {slower:.3f} of {base}'s (target 1); objective {objectives:.5f}, "
            f"{higher:.4f} of {base}'s (target 1.005); medians, n = {len(found.seconds)}",
            flush=True,
        )


def objective(points: Tensor, centroids: Tensor) -> float:
    """Mean squared distance to the nearest centroid, in f32 products whoever found it."""
    return float(kmeans.nearest(points, centroids, fast=False)[1].mean(dtype=torch.float64))


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Median over the rounds that both took part in."""
    return statistics.median(ours[number] / theirs[number] for number in ours.keys() & theirs.keys())


if __name__ == "__main__":
    main()
