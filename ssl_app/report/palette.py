"""Colors and markers that figures and pages share: those of Okabe and Ito, apart for all kinds of color vision."""

from collections.abc import Iterable

from ssl_app.checkpoints import SCRATCH

# each has its own marker, too; the last but one is kept for the baseline
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A6A6A", "#000000")
MARKERS = "osD^vPX*"
BASELINE = 6  # the gray one: place of scratch in both


def places(names: Iterable[str]) -> dict[str, int]:
    """The place of each curve in the palette: scratch is gray wherever it stands, the others follow in order."""
    found: dict[str, int] = {}
    free = [place for place in range(len(COLORS)) if place != BASELINE]
    for name in names:
        number = len(found) - (SCRATCH in found)
        found[name] = BASELINE if name == SCRATCH else free[number % len(free)]
    return found
