"""Figures of a sweep: label efficiency, labels saved, paired differences, ablation by stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.ablation import stages
from ssl_app.evaluation.comparison import Point, name_of
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.evaluation.verdict import saved_sentence
from ssl_app.report.blocks import (
    Column,
    Section,
    count,
    direction,
    folded,
    heading,
    paragraph,
    percent_with,
    points,
    points_with,
    section,
    table,
)
from ssl_app.report.charts import (
    DASHES,
    Axis,
    Chart,
    Curve,
    Mark,
    Size,
    budget_axis,
    legend,
    share_axis,
)
from ssl_app.report.findings import Findings
from ssl_app.report.markup import Markup, tag
from ssl_app.report.palette import COLORS, MARKERS, places

MOST_ROWS = 12  # of a table of differences that is shown without a click
ALONE = 0.3  # octaves that the variants share where there is one budget
LOW = Size(960, 300), Size(352, 260, left=50, right=10)


def curves_of(series: Mapping[str, Mapping[int, Point]]) -> list[Curve]:
    """A curve for each variant: means, intervals, and every score as a dot."""
    placed = places(series)
    alone = len({budget for scores in series.values() for budget in scores}) == 1  # then means stand by their dots
    found = []
    for number, (name, scores) in enumerate(series.items()):
        step = ALONE / len(series) if alone else 0.05
        aside = 2 ** (step * (number - (len(series) - 1) / 2))  # no dot hides another
        marks = []
        for budget in sorted(scores):
            one = scores[budget].interval
            words = f"{name}\n{count(budget, 'label')} per class: {percent_with(one)} %\nn = {one.n}"
            marks.append(Mark(budget * aside if alone else budget, one.mean, one.low, one.high, words))
        dots = [(budget * aside, score) for budget in sorted(scores) for score in scores[budget].scores]
        place = placed[name]
        dashes = "7 4" if name == SCRATCH else DASHES[number // (len(COLORS) - 1) % len(DASHES)]
        found.append(Curve(name, marks, place, MARKERS[place], dots, dashes, whiskers=alone, band=not alone))
    return found


def efficiency(findings: Findings, scored: str) -> Section | None:
    """Score over labels per class of every variant, with bands; and the same as a table."""
    series = findings.tested.curves(findings.pooled)
    budgets = sorted({budget for scores in series.values() for budget in scores})
    every = [score for scores in series.values() for point in scores.values() for score in point.scores]
    margin = 0.05 * (max(every) - min(every)) or 0.02
    chart = Chart(
        "Balanced accuracy over labels per class",
        curves := curves_of(series),
        budget_axis("labels per class", budgets),
        share_axis("balanced accuracy, %", [max(0.0, min(every) - margin), min(1.0, max(every) + margin)]),
    )
    columns = [Column("balanced accuracy, %", number=False), *(Column(f"{k:,} per class") for k in budgets)]
    rows = [
        [name, *(percent_with(scores[k].interval) if k in scores else "–" for k in budgets)]
        for name, scores in series.items()
    ]
    n = len(findings.tested.part.labels)
    note = (
        f"Balanced accuracy on {n:,} {scored}. Lines are means, dots labeled draws, bands 95\u00a0% intervals that "
        "hold for other draws and other test images, and for other pretrainings where there are several."
    )
    figure = tag("figure", legend(curves), chart.drawn(), tag("figcaption", note))
    return section("curves", "Label efficiency", figure, table(columns, rows))


def saved(rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """How many times the labels scratch needs, over the budgets."""
    found = [LabelsSaved(**row) for row in rows]
    known = [one for one in found if one.factor is not None]
    if not found:
        return None
    columns = [Column("labels per class"), Column("labels saved", number=False)]
    lines = [[f"{one.per_class:,}", saved_sentence(one)] for one in found]
    figure = Markup("")
    if len(known) > 1:
        chart = _saved_chart(known)
        note = (
            "How many times the labels scratch needs for the same score: above 1, pretraining saves labels. Lines "
            "are 95\u00a0% intervals. An arrow is a bound: scratch was not tried with more, or fewer, labels."
        )
        figure = tag("figure", chart.drawn(*LOW), tag("figcaption", note))
    return section("saved", "Labels saved", figure, table(columns, lines))


def _saved_chart(known: Sequence[LabelsSaved]) -> Chart:
    """Factors on an axis of octaves; each bound has its own marker, and so is a curve of one kind."""
    every = [value for one in known for value in (one.factor, one.low, one.high, 1.0) if value]
    low, high = min(every) / 1.3, max(every) * 1.3
    octaves = [2.0**n for n in range(-6, 12) if low <= 2.0**n <= high]
    y = Axis("times the labels", low, high, [(value, f"{value:g}") for value in octaves], log=True)

    def mark(one: LabelsSaved) -> Mark:
        assert one.factor is not None
        words = f"{count(one.per_class, 'label')} per class: {saved_sentence(one)}"
        return Mark(one.per_class, one.factor, one.low or low, one.high or high, words)

    line = Curve("factor", [mark(one) for one in known], 0, whiskers=True, points=False)
    kinds: tuple[tuple[str | None, str], ...] = ((None, "o"), ("at least", "^"), ("at most", "v"))
    marked = [(shape, [mark(one) for one in known if one.bound == bound]) for bound, shape in kinds]
    shapes = [Curve("factor", marks, 0, shape, line=False, band=False) for shape, marks in marked if marks]
    return Chart(
        "Labels saved", [line, *shapes], budget_axis("labels per class", [k.per_class for k in known]), y, 1.0
    )


def differences(rows: Sequence[Mapping[str, Any]], per_class: int) -> Section | None:
    """Paired differences at the verdict's budget, drawn; and on demand all others."""
    known = [row for row in rows if row["low"] is not None]
    own = [row for row in known if row["per_class"] == per_class and "per_class" not in row["against"]]
    against = [row for row in own if row["against"]["init"] == SCRATCH]
    among = [row for row in own if row["against"]["init"] != SCRATCH]
    twice = [row for row in known if "per_class" in row["against"]]
    means = [row for row in known if row["per_class"] is None]
    others = [row for row in known if row["per_class"] not in (None, per_class) and "per_class" not in row["against"]]
    shown: list[object] = []
    for words, several in (
        (f"Minus scratch, {count(per_class, 'label')} per class", against),
        (f"Between strategies, {count(per_class, 'label')} per class", among),
        ("Mean of the budgets from 8 to 64", means),
        ("Against scratch with twice the labels", twice),
    ):
        if len(several) > MOST_ROWS:
            shown.append(folded(f"{words}: {len(several):,} differences", _bars(several)))
        elif several:
            shown += [heading(words), _bars(several)]
    if others:
        shown.append(folded(f"{count(len(others), 'difference')} at other budgets", _bars(others, budgets=True)))
    if len(known) < len(rows):
        left = f"{count(len(rows) - len(known), 'difference')} of one draw, without an interval, not shown."
        shown.append(paragraph(left, quiet=True))
    if not shown:
        return None
    note = paragraph(
        "Differences of balanced accuracy, paired over draws and test images, with 95 % intervals: for each alone, "
        "not for all at once.",
        quiet=True,
    )
    return section("differences", "Paired differences", note, *shown)


def _bars(rows: Sequence[Mapping[str, Any]], budgets: bool = False) -> Markup:
    """A table with an interval drawn in every row, all on one scale, whose ends the column names."""
    reach = max([0.01, *(abs(row[end]) for row in rows for end in ("low", "high"))])
    columns = [Column("difference", number=False), *([Column("labels per class")] if budgets else [])]
    scale = f"{points(-reach)} … 0 … {points(reach)}"
    columns += [Column("points [95 %]"), Column(scale, number=False), Column("n")]
    lines: list[list[object]] = []
    for row in rows:
        ours, other = (row["init"], row["strategy"]), (row["against"]["init"], row["against"]["strategy"])
        twice = row["against"].get("per_class")
        name = f"{name_of(ours)} minus {name_of(other)}"
        name += f", {row['per_class']} minus {twice} per class" if twice else ""
        cells: list[object] = [name, *([f"{row['per_class']:,}"] if budgets else [])]
        numbers = tag(
            "span", points_with(row["mean"], row["low"], row["high"]), class_=direction(row["low"], row["high"])
        )
        lines.append([*cells, numbers, _bar(row["mean"], row["low"], row["high"], reach), row["n"]])
    return table(columns, lines)


def _bar(mean: float, low: float, high: float, reach: float) -> Markup:
    """An interval around a line at zero. All in [0, 1]."""
    width, height = 200, 18

    def x(value: float) -> float:
        return round(width / 2 + value / reach * (width / 2 - 8), 1)

    zero = tag("line", class_="level", x1=x(0), x2=x(0), y1=0, y2=height)
    line = tag("line", class_="whisker", x1=x(low), x2=x(high), y1=height / 2, y2=height / 2)
    dot = tag("path", class_="dot", d=f"M{x(mean)},{height / 2}h.01")  # by its round ends, a circle at any width
    return tag(
        "svg", zero, line, dot, class_=f"bar s0 {direction(low, high) or ''}".strip(), width=width, height=height,
        viewBox=f"0 0 {width} {height}", preserveAspectRatio="none", aria_hidden="true",
    )  # fmt: skip


def ablation(findings: Findings) -> Section | None:
    """What each stage adds, at the verdict's budget."""
    inits = [init for init, _ in findings.subject if init != SCRATCH]
    found = stages(findings.tested, inits, findings.per_class) if inits else []
    if len(found) < 2:
        return None
    columns = [
        Column("stage", number=False),
        Column("strategy", number=False),
        Column("balanced accuracy, % [95 %]"),
        Column("minus", number=False),
        Column("points [95 %]"),
    ]
    rows: list[list[object]] = []
    for one in found:
        gain: object = "–"
        if one.gain is not None:
            kind = direction(one.gain.low, one.gain.high)
            gain = tag("span", points_with(one.gain.mean, one.gain.low, one.gain.high), class_=kind)
        rows.append([one.name, one.strategy, percent_with(one.score), one.over or "–", gain])
    whose = findings.pooled[0] if len(inits) == 1 else f"{len(inits)} pretrainings"
    note = f"At {count(findings.per_class, 'label')} per class, from {whose}."
    return section("stages", "Ablation by stage", table(columns, rows, note))
