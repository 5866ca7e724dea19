"""DeepCluster's three curves: clusters against labels and against the epoch before, and score against K.

Figure 2 of Caron et al. (2018, arXiv:1807.05520). The first two are what a pretraining by clusters has logged.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ssl_app import runs
from ssl_app.report.palette import COLORS
from ssl_app.report.plots import DPI, FAINT, INK

OVER_EPOCHS = {"labels": "clusters against labels", "before": "clusters against the epoch before"}
Curves = Mapping[str, Sequence[float | None]]  # by name, and `epoch`


def of_history(history: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]] | None:
    """The agreement of a pretraining's clusters by epoch: `epoch`, and `nmi_` and `ami_` of what it has logged.

    Epochs without new clusters are left out; the first has no `before`. None where the pretraining made no clusters.
    """
    names = [f"{score}_{kind}" for kind in OVER_EPOCHS for score in ("nmi", "ami")]
    known = [name for name in names if any(name in row for row in history)]
    rows = [(number, row) for number, row in enumerate(history, start=1) if any(name in row for name in known)]
    if not rows:
        return None
    curves: dict[str, list[float | None]] = {"epoch": [number for number, _ in rows]}
    return curves | {name: [row.get(name) for _, row in rows] for name in known}


def sentences(curves: Curves) -> list[str]:
    """Where each curve begins and where it ends."""
    found = []
    for kind, name in OVER_EPOCHS.items():
        nmi, ami = _points(curves, f"nmi_{kind}"), _points(curves, f"ami_{kind}")
        if nmi:
            ends = zip(nmi, ami, strict=True) if len(nmi) == 1 else ((nmi[0], ami[0]), (nmi[-1], ami[-1]))
            shown = [f"epoch {at:g} {y:.3f} (AMI {z:.3f})" for (at, y), (_, z) in ends]
            found.append(f"{name}: NMI in {' and in '.join(shown)}")
    return found


def _points(curves: Curves, name: str) -> list[tuple[float, float]]:
    """Epoch and value where there is one."""
    pairs = zip(curves["epoch"], curves.get(name, ()), strict=False)
    return [(at, value) for at, value in pairs if at is not None and value is not None]


def draw(
    path: Path, curves: Curves | None, found: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]]
) -> None:
    """One panel for each curve that there is. `found` and `random` are a layer's k-means for each K."""
    kinds = [kind for kind in OVER_EPOCHS if curves and _points(curves, f"nmi_{kind}")]
    several = len(found) > 1
    figure = Figure(figsize=(4.0 * (len(kinds) + several), 3.2), layout="constrained")
    panels = figure.subplots(1, len(kinds) + several, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=False):
        assert curves is not None
        for color, score in zip(COLORS, ("nmi", "ami"), strict=False):
            x, y = zip(*_points(curves, f"{score}_{kind}"), strict=True)
            axes.plot(x, y, marker="o", ms=3, color=color, lw=1.6, label=score.upper())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _finish(axes, OVER_EPOCHS[kind], "epoch")
    if several:
        _against_k(panels[-1], found, random)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with runs.draft(path) as draft:
        figure.savefig(draft, dpi=DPI, facecolor="white", format=path.suffix[1:] or "png")


def _against_k(axes: Axes, found: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]]) -> None:
    sizes = [row["k"] for row in found]
    for rows, style, name in ((found, "-", ""), (random, "--", ", random weights")):
        for color, score in zip(COLORS, ("nmi", "ami"), strict=False):
            values = [row["train"][score] for row in rows]
            if values:
                axes.plot(sizes, values, style, marker="o", ms=4, color=color, lw=1.6, label=f"{score.upper()}{name}")
    chance = [row["train"]["nmi_by_chance"] for row in found]
    axes.plot(sizes, chance, ":", color=INK, lw=1.2, label="NMI by chance")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _finish(axes, "k-means of frozen features against labels", "K (training images)")


def _finish(axes: Axes, title: str, x_label: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x_label, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
