"""How often the intervals hold what they claim, over sweeps simulated whole; makes the figure of docs/statistics.md.

    python benchmarks/coverage.py [--sweeps 20000] [--figure FIGURE.png]

Right answers are drawn from a model whose true effects are known (tests/simulated_sweeps.py), with the spreads of our
measured tables, and given to the product's own functions. 20,000 sweeps take about 25 minutes on two cores.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl_app.evaluation.intervals import paired_t
from tests.simulated_sweeps import (
    FEW,
    METHODS,
    SMALL,
    STEEL,
    WORLDS,
    World,
    claimed,
    confirmed_wrongly,
    folds_hold,
    found,
    holds,
    saved_holds,
)

PARTS = 8  # of a task, for the processes
Counts = list[int]


def verdicts(name: str, pretrainings: int, draws: int, number: int, seed: int) -> Counts:
    """Intervals that hold the truth: ours, and t over draws alone; and those above zero without an effect."""
    world, generator = WORLDS[name], np.random.default_rng(seed)
    alone = world if pretrainings > 1 else replace(world, pretraining=0.0)
    held = before = above = 0
    for _ in range(number):
        difference, answers = found(world, pretrainings, draws, generator)
        held += holds(difference.interval, claimed(answers))
        before += holds(paired_t(difference.table.mean(0)), answers.of_others)
        above += (found(alone, pretrainings, draws, generator)[0].interval.low or 0.0) > 0
    return [held, before, above]


def saved(name: str, pretrainings: int, number: int, seed: int) -> Counts:
    """Intervals of labels saved that hold a true factor of two."""
    generator = np.random.default_rng(seed)
    return [sum(saved_holds(WORLDS[name], pretrainings, generator) for _ in range(number))]


def folds(name: str, per_class: int, pretrainings: int, repeats: int, number: int, seed: int) -> Counts:
    """Intervals of repeated cross-validation that hold the truth."""
    generator = np.random.default_rng(seed)
    return [sum(folds_hold(FEW[name], per_class, (pretrainings, repeats), generator) for _ in range(number))]


def confirmed(world: World, number: int, seed: int) -> Counts:
    """Claims of `compare --confirm` among equal methods: better than scratch, or than the other finalist."""
    generator = np.random.default_rng(seed)
    return [sum(confirmed_wrongly(world, generator) for _ in range(number))]


def shares(pool: ProcessPoolExecutor, task: Callable[..., Counts], *about: object, number: int) -> list[float]:
    """Shares over so many sweeps, made in parts."""
    each = -(-number // PARTS)
    parts = [pool.submit(task, *about, each, seed) for seed in range(PARTS)]
    return [sum(counts) / (each * PARTS) for counts in zip(*(part.result() for part in parts), strict=True)]


def figure(path: Path, rows: list[tuple[str, float, float]]) -> None:
    """Coverage of our intervals and of t over draws alone, a row a kind of sweep."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.5, 0.42 * len(rows) + 1.3), layout="constrained")
    axes = drawn.add_subplot()
    axes.axvspan(93, 97, color="#0072B2", alpha=0.13, lw=0)
    places = range(len(rows), 0, -1)
    axes.plot(
        [100 * one[2] for one in rows],
        places,
        "s",
        color="#D55E00",
        label="t over draws alone, of other pretrainings",
    )
    axes.plot(
        [100 * one[1] for one in rows], places, "o", color="#0072B2", label="ssl-app, of what the verdict claims"
    )
    axes.set_yticks(places, [one[0] for one in rows])
    axes.set_xlim(40, 100)
    axes.set_xlabel("intervals that hold the truth, %")
    axes.grid(axis="x", color="#DDDDDD", lw=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    FigureCanvasAgg(drawn)
    drawn.savefig(path, dpi=150, facecolor="white")


def main() -> None:
    """Print a table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--sweeps", type=int, default=20_000)
    reader.add_argument("--figure", type=Path)
    asked = reader.parse_args()
    number: int = asked.sweeps
    started, rows = time.monotonic(), []
    print(f"{number} sweeps each; shares in %")
    with ProcessPoolExecutor() as pool:
        print("verdict: holds the truth | t over draws alone, of other pretrainings | above zero without an effect")
        for name in WORLDS:
            for pretrainings, draws in ((1, 3), (1, 5), (1, 10), (3, 3), (3, 5)):
                held, before, above = shares(pool, verdicts, name, pretrainings, draws, number=number)
                title = f"{name}, {pretrainings} x {draws}"
                print(f"  {title:16} {100 * held:5.1f} | {100 * before:5.1f} | {100 * above:4.1f}", flush=True)
                rows.append(
                    (f"{name}: {pretrainings} pretraining{'s' * (pretrainings > 1)}, {draws} draws", held, before)
                )
        print("labels saved: holds the true factor")
        for name in WORLDS:
            for pretrainings in (1, 3):
                (held,) = shares(pool, saved, name, pretrainings, number=number // 10)
                print(f"  {name}, {pretrainings} x 5: {100 * held:.1f} (n = {number // 10})", flush=True)
        print("repeated cross-validation: holds the truth")
        for name in FEW:
            for per_class, pretrainings, repeats in ((4, 1, 3), (4, 1, 5), (8, 1, 3), (8, 1, 5), (8, 3, 5)):
                (held,) = shares(pool, folds, name, per_class, pretrainings, repeats, number=number // 4)
                print(f"  {name}, {per_class} per class, {pretrainings} x {repeats}: {100 * held:.1f}", flush=True)
        print(f"compare --confirm, {METHODS} equal methods: claims a difference")
        for name, world in (("steel", STEEL), ("small", SMALL)):
            (wrong,) = shares(pool, confirmed, world, number=number // 4)
            print(f"  {name}: {100 * wrong:.1f}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    if asked.figure is not None:
        figure(asked.figure, rows)


if __name__ == "__main__":
    main()
