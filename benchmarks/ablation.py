"""What each stage is worth: the trials of sweeps as one table by strategy, and a figure.

    python benchmarks/ablation.py --sweep "chest X-ray"=ssl-runs/chest --sweep "NEU steel"=ssl-runs/steel
                                  [--per-class 8] [--figure FILE.png]

Sweeps with `--strategy feature-extraction,label-propagation,two-stage,self-training,fixmatch,auto
--baseline-strategy fixmatch`; the seeds of a pretraining in one sweep are pooled. Printed are mean and half of the
95 % interval over draws, of the mean over pretrainings, and the median of a trial's seconds; the figure shows the
paired difference to scratch, with its interval over draws. Other test images and other pretrainings are not in these
intervals: those of the sweep's own verdict are wider.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssl_app.evaluation.intervals import Interval, paired_t
from ssl_app.report.palette import COLORS, MARKERS
from ssl_app.report.plots import DPI, FAINT, INK

SCRATCH = ("scratch", "full-fine-tuning")
ROWS = {
    SCRATCH: "scratch",
    ("scratch", "fixmatch"): "scratch + FixMatch",
    ("pretrained", "feature-extraction"): "pretrained, feature extraction",
    ("pretrained", "two-stage"): "pretrained, two-stage",
    ("pretrained", "label-propagation"): "pretrained, label propagation",
    ("pretrained", "self-training"): "pretrained, self-training",
    ("pretrained", "fixmatch"): "pretrained, FixMatch",
    ("pretrained", "auto"): "pretrained, auto",
}
Scores = dict[tuple[str, str], np.ndarray]  # (draws,) percent, the mean over pretrainings


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--sweep", required=True, action="append", metavar="NAME=FOLDER")
    reader.add_argument("--per-class", type=int, default=8)
    reader.add_argument("--figure", type=Path)
    given = reader.parse_args()
    sets = {name: Path(folder) for name, _, folder in (word.partition("=") for word in given.sweep)}
    found = {name: read(folder, given.per_class) for name, folder in sets.items()}
    print("| | " + " | ".join(f"{name} | seconds" for name in sets) + " |")
    print("|---" * (1 + 2 * len(sets)) + "|")
    for key, title in ROWS.items():
        cells = []
        for scores, seconds in found.values():
            cells += ["", ""] if key not in scores else [shown(paired_t(scores[key])), f"{seconds[key]:.3g}"]
        print(f"| {title} | " + " | ".join(cells) + " |")
    if given.figure is not None:
        draw({name: scores for name, (scores, _) in found.items()}, given.per_class, given.figure)


def read(folder: Path, per_class: int) -> tuple[Scores, dict[tuple[str, str], float]]:
    """Scores of each draw, and seconds, by (scratch or pretrained, strategy)."""
    paths = [path for path in sorted(folder.glob("trials/*/result.json")) if "-length-" not in path.parent.name]
    trials = [json.loads(path.read_text()) for path in paths]  # without those that chose scratch's length
    trials = [one for one in trials if one["per_class"] == per_class and "draw" in one]
    draws = sorted({one["draw"] for one in trials})
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for one in trials:
        key = ("scratch" if one["init"] == "scratch" else "pretrained", one["strategy"])
        scores.setdefault(key, {}).setdefault(one["draw"], []).append(100 * one["balanced_accuracy"])
        seconds.setdefault(key, []).append(one["seconds"])
    whole = {
        key: np.array([np.mean(by[draw]) for draw in draws]) for key, by in scores.items() if len(by) == len(draws)
    }
    return whole, {key: float(np.median(values)) for key, values in seconds.items()}


def shown(interval: Interval) -> str:
    """`71.3 ±2.5`."""
    half = "" if interval.low is None else f" ±{interval.mean - interval.low:.1f}"
    return f"{interval.mean:.1f}{half}"


def draw(found: dict[str, Scores], per_class: int, path: Path) -> None:
    """Differences to scratch, a row a strategy, a marker a set."""
    rows = [key for key in ROWS if key != SCRATCH and any(key in scores for scores in found.values())]
    figure = Figure(figsize=(7.5, 0.55 * len(rows) + 1.3), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, scores) in enumerate(found.items()):
        aside = 0.18 * (number - (len(found) - 1) / 2)
        places = [place for place, key in enumerate(rows) if key in scores]
        each = [paired_t(scores[rows[place]] - scores[SCRATCH]) for place in places]
        half = [0.0 if one.low is None else one.mean - one.low for one in each]
        axes.errorbar(
            [one.mean for one in each], [place + aside for place in places], xerr=half, fmt=MARKERS[number],
            color=COLORS[number], ms=6, lw=1.4, capsize=0, label=name,
        )  # fmt: skip
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(rows)), [ROWS[key] for key in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"points of balanced accuracy more than scratch, {per_class} labels per class")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper left", ncols=len(found), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
