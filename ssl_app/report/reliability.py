"""Calibration as a figure: accuracy over the probability of the predicted class, against the diagonal."""

from collections.abc import Mapping

from ssl_app.evaluation.calibration import Bin, Calibration
from ssl_app.report.blocks import Column, count, percent, table
from ssl_app.report.charts import Axis, Chart, Curve, Mark, Size, legend
from ssl_app.report.markup import Markup, join, tag
from ssl_app.report.palette import MARKERS, places

SQUARE = Size(520, 420), Size(352, 320, left=50, right=10)
SHARES = [(n / 5, f"{20 * n}") for n in range(6)]


def reliability(found: Mapping[str, Calibration]) -> Markup:
    """The curves of some classifiers, and what they come to."""
    placed = places(found)
    curves = []
    for name, calibration in found.items():
        marks = [
            Mark(one.confidence, one.accuracy, None, None, _words(name, one))
            for one in calibration.bins
            if one.confidence is not None and one.accuracy is not None
        ]
        curves.append(Curve(name, marks, placed[name], MARKERS[placed[name]]))
    x = Axis("probability of the predicted class, %", 0, 1, SHARES)
    chart = Chart("Reliability", curves, x, Axis("of these images right, %", 0, 1, SHARES), diagonal=True)
    note = "On the dashed line probabilities are right; below it the classifier is surer than it should be."
    columns = [
        Column("classifier", number=False),
        Column("ECE, points"),
        Column("mean probability, %"),
        Column("accuracy, %"),
        Column("predictions"),
    ]
    rows = [
        [name, percent(one.ece), percent(one.confidence), percent(one.accuracy), f"{one.n:,}"]
        for name, one in found.items()
    ]
    figure = tag("figure", legend(curves), chart.drawn(*SQUARE), tag("figcaption", note))
    return join([figure, table(columns, rows)])


def _words(name: str, one: Bin) -> str:
    """What a bin shows."""
    return f"{name}\n{percent(one.confidence)} % sure, {percent(one.accuracy)} % right\n{count(one.n, 'image')}"
