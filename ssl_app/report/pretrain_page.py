"""The report of a pretraining: its curves, its warnings, its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app.report import about
from ssl_app.report.blocks import Column, Section, bullets, command, paragraph, section, table, tiles
from ssl_app.report.charts import Axis, Chart, Curve, Mark, Size, legend, number_axis
from ssl_app.report.document import document
from ssl_app.report.embedded import from_file
from ssl_app.report.markup import Markup, tag
from ssl_app.report.palette import MARKERS
from ssl_app.report.run_facts import RunFacts

PANEL = Size(352, 230, left=60, right=12)
MOST_MARKS = 16  # epochs, above which only a curve's line is drawn, with every few a mark
ROOM = 3_000_000  # bytes of all pictures; what goes beyond is named and not embedded
WORDS = ("train", "val", "validation", "test")  # before the name of a metric that has a panel with others
NOT_SHOWN = ("history",)  # pictures that are drawn here anew
CAPTIONS = {
    "views": "What the network is given: images, their random views, and what the method makes of them.",
}


@dataclass(frozen=True, eq=False)
class PretrainReport:
    """All that the report says beside what lies in every run."""

    facts: RunFacts
    history: Sequence[Mapping[str, float]]  # metrics of each epoch
    warnings: Sequence[str]
    chance: Mapping[str, float]  # of the method's score, by its name
    typed: str  # the command
    go_on: str  # and the one that finishes it
    changed: Mapping[str, Any]

    def html(self) -> str:
        """The page."""
        facts, result = self.facts, self.facts.result or {}
        times = {"training took": result.get("training_seconds"), "last command took": result.get("seconds")}
        sections = [
            self._curves(),
            self._pictures(),
            about.data_section(facts, {}),
            about.settings_section(facts, self.typed, self.changed),
            about.machine_section(facts, times),
        ]
        return document(facts, f"Pretraining by {facts.settings.get('method')}", self._first(), sections)

    def _first(self) -> list[Markup]:
        """Whether it is well, and what to do next."""
        facts = self.facts
        if facts.result is None:
            kind = "verdict failed" if facts.ended and facts.ended["status"] == "FAILED" else "verdict"
            state = facts.state[:1].upper() + facts.state[1:]
            done = f"{len(self.history)} epochs are known." if self.history else "No epoch is known."
            lines = [paragraph(state, ". ", done), paragraph("To go on, type"), command(self.go_on)]
            return [tag("div", tag("p", "Not finished", class_="outcome"), *lines, class_=kind)]
        if self.warnings:
            head, kind = "Finished, with a warning", "verdict failed"
            lines = [bullets(self.warnings)]
        else:
            head, kind = "Finished without a warning", "verdict helped"
            lines = [
                paragraph("Neither the method's score nor the features look wrong. What it was worth, a sweep says:")
            ]
        held = tag("div", tag("p", head, class_="outcome"), *lines, command(self.go_on), class_=kind)
        return [held, self._tiles()]

    def _tiles(self) -> Markup:
        """The last epoch's figures that people look for."""
        final = dict((self.facts.result or {}).get("final", {}))
        cells = []
        for name, note in (
            ("effective_rank", "of the features, 1 is a collapse"),
            ("probe_knn", "kNN accuracy, labels watched only"),
        ):
            if name in final:
                cells.append((name.replace("_", " "), f"{final[name]:.3g}", note))
        for name, guessed in self.chance.items():
            shown = final.get(f"val_{name}", final.get(name))
            if shown is not None:
                cells.insert(
                    0, (name.replace("_", " "), f"{shown:.3g}", f"of a network that knows nothing {guessed:.3g}")
                )
        return tiles(cells)

    def _curves(self) -> Section | None:
        """One panel a metric; those that share all but their part share a panel. And the last epoch as a table."""
        if not self.history:
            return None
        named: dict[str, list[str]] = {}
        for name in dict.fromkeys(name for row in self.history for name in row):
            if name not in ("epoch", "ended"):
                named.setdefault(stem(name), []).append(name)
        panels = [self._panel(panel, members) for panel, members in named.items()]
        last = self.history[-1]
        every = [name for names in named.values() for name in names if name in last]
        rows = [[name.replace("_", " "), f"{last[name]:.4g}"] for name in every]
        columns = [Column("metric", number=False), Column("last epoch")]
        return section("curves", "Curves of training", tag("div", *panels, class_="panels"), table(columns, rows))

    def _panel(self, panel: str, members: Sequence[str]) -> Markup:
        """A small chart of one metric over epochs."""
        curves, values = [], []
        for place, name in enumerate(members):
            known = [(number, row[name]) for number, row in enumerate(self.history, 1) if name in row]
            every = max(1, -(-len(known) // MOST_MARKS))
            words = name.replace("_", " ")
            marks = [Mark(epoch, value, None, None, f"{words}\nepoch {epoch}: {value:.4g}") for epoch, value in known]
            values += [value for _, value in known]
            shown = [mark for number, mark in enumerate(marks) if number % every == 0 or number == len(marks) - 1]
            curves.append(Curve(words, marks, place, MARKERS[place], points=False))
            curves.append(Curve(words, shown, place, MARKERS[place], line=False))
        guessed = self.chance.get(panel)
        values += [] if guessed is None else [guessed]
        last = len(self.history)
        step = max(1, -(-last // 5))
        ticks = [(epoch, f"{epoch}") for epoch in range(step, last + 1, step)] or [(1, "1")]
        x = Axis("epoch", 0.5, last + 0.5, ticks)
        chart = Chart(panel.replace("_", " "), curves, x, number_axis("", values), guessed)
        head = tag("h3", panel.replace("_", " "))
        keys = legend([one for one in curves if one.line]) if len(members) > 1 else None
        note = None if guessed is None else tag("figcaption", f"Dashed: chance, {guessed:.3g}.")
        return tag("figure", head, keys, chart.drawn(PANEL, None), note)

    def _pictures(self) -> Section | None:
        """What the run has drawn: the views it was trained on, and the method's own."""
        shown: list[Markup] = []
        room = ROOM
        for path in sorted(self.facts.folder.glob("*.png"), key=lambda path: (path.stem != "views", path.name)):
            if path.stem in NOT_SHOWN:
                continue
            size = path.stat().st_size
            shown.append(_picture(path, whole=size <= room))
            room -= size if size <= room else 0
        return section("pictures", "Pictures", *shown)


def _picture(path: Path, whole: bool) -> Markup:
    """The picture, or where it lies."""
    if not whole:
        return paragraph(f"{path.name} lies in the run; it is too large for this page.", quiet=True)
    words = CAPTIONS.get(path.stem, f"{path.stem.replace('-', ' ').replace('_', ' ').capitalize()}.")
    return tag("figure", from_file(path, words), tag("figcaption", words))


def stem(name: str) -> str:
    """A metric's name without the part that it was measured on."""
    first, _, rest = name.partition("_")
    return rest if first in WORDS and rest else name
