"""The report of a pretraining: its curves, its warnings, its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app.report import about
from ssl_app.report.blocks import Column, Section, bullets, command, folded, paragraph, section, table, tiles
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
# what a metric is, under its curve; those of all methods, then those of methods with clusters
NOTES = {
    "accuracy": "Share of the pretext task's answers that are right.",
    "retrieval": "Share of views whose nearest other view is of the same image.",
    "psnr_gain": "By how many dB what is restored is nearer to the image than what was damaged.",
    "loss": "What training makes small.",
    "effective_rank": "How many dimensions the features use; 1 is a collapse.",
    "feature_std": "How far the features of different images are apart; 0 is a collapse.",
    "embedding_std": "How far the embeddings are apart; 0 is a collapse.",
    "knn": "Accuracy of nearest neighbors with labels that are watched and choose nothing.",
    "ami_labels": "Agreement of clusters and labels, which choose nothing: 0 by chance, 1 where they are the same.",
    "ami": "Agreement of clusters and labels, which choose nothing: 0 by chance, 1 where they are the same.",
    "ami_before": "Agreement of the clusters with those before: 0 by chance, 1 where they have settled.",
    "nmi_labels": "As AMI, without taking off what chance does: it rises with the number of clusters.",
    "nmi": "As AMI, without taking off what chance does: it rises with the number of clusters.",
    "nmi_before": "As AMI, without taking off what chance does: it rises with the number of clusters.",
    "labels_changed": "Share of images whose cluster changed: near 0 at the end, not at the beginning.",
    "cluster_use": "How evenly clusters are used; 1 where all are as large.",
    "relabeled": "How often clusters were found anew, so far.",
}
FURTHER = (
    "relabeled",
    "sinkhorn_iterations",
    "sinkhorn_error",
    "images_per_second",
    "nmi_before",
    "nmi_labels",
    "nmi",
)
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
            lines = [bullets(self.warnings), paragraph("What the network is worth all the same, a sweep says. Type")]
        else:
            head, kind = "Finished without a warning", "verdict helped"
            lines = [
                paragraph(
                    "Neither the method's score nor the features look wrong. That says nothing yet of what "
                    "the network is worth for your classes: a sweep does. Type"
                )
            ]
        held = tag("div", tag("p", head, class_="outcome"), *lines, command(self.go_on), class_=kind)
        return [held, self._tiles()]

    def _tiles(self) -> Markup:
        """The last epoch's figures that people look for."""
        final = {name: value for row in self.history for name, value in row.items()}
        final |= (self.facts.result or {}).get("final", {})
        cells = []
        for name, words, note in (
            ("probe_knn", "kNN accuracy", "of labels that were watched and chose nothing"),
            ("ami_labels", "clusters and labels agree, AMI", "0 is chance, 1 the same; labels chose nothing"),
            ("effective_rank", "effective rank", "dimensions that the features use; 1 is a collapse"),
        ):
            if name in final:
                cells.append((words, f"{final[name]:.3g}", note))
        for name, guessed in self.chance.items():
            shown = final.get(f"val_{name}", final.get(name))
            if shown is not None:
                cells.insert(
                    0,
                    (
                        f"pretext {name.replace('_', ' ')}",
                        f"{shown:.3g}",
                        f"a network that knows nothing: {guessed:.3g}",
                    ),
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
        order = [name for name in NOTES if name in named] + [name for name in named if name not in NOTES]
        panels = {panel: self._panel(panel, named[panel]) for panel in order}
        shown = [one for name, one in panels.items() if name not in FURTHER]
        further = [one for name, one in panels.items() if name in FURTHER]
        last = {name: value for row in self.history for name, value in row.items()}  # some are not of every epoch
        every = [name for names in named.values() for name in names if name in last]
        rows = [[name.replace("_", " "), f"{last[name]:.4g}"] for name in every]
        columns = [Column("metric", number=False), Column("last epoch")]
        return section(
            "curves",
            "Curves of training",
            tag("div", *shown, class_="panels"),
            folded("Further curves", tag("div", *further, class_="panels")) if further else None,
            table(columns, rows),
        )

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
        chance = None if guessed is None else f"Dashed: a network that knows nothing, {guessed:.3g}."
        words = " ".join(filter(None, [NOTES.get(panel), chance]))
        return tag("figure", head, keys, chart.drawn(PANEL, None), tag("figcaption", words) if words else None)

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
