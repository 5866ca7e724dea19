"""The report of a sweep: its verdict, its curves, what its classifiers know and how sure they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app.evaluation.ablation import difference
from ssl_app.evaluation.calibration import BINS, Calibration
from ssl_app.evaluation.comparison import METRIC, Variant, name_of
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.evaluation.verdict import saved_range
from ssl_app.report import about, class_section, sweep_figures
from ssl_app.report.blocks import (
    Column,
    Section,
    bullets,
    command,
    count,
    direction,
    facts,
    folded,
    lasted,
    paragraph,
    percent,
    points,
    points_with,
    section,
    table,
    tiles,
)
from ssl_app.report.document import document
from ssl_app.report.findings import Findings
from ssl_app.report.markup import Markup, join, tag
from ssl_app.report.reliability import reliability
from ssl_app.report.run_facts import RunFacts

MOST_MISSING = 20  # trials that are named
OUTCOMES = {"helped": "helped", "hurt": "hurt"}  # classes of the page's style
FIRST = "a network that also learned from unlabeled images"
MEANINGS = {
    "helped": f"In short: with the same labels, {FIRST} classifies better than one that did not, by more than chance "
    "explains.",
    "hurt": f"In short: with the same labels, {FIRST} classifies worse than one that did not, by more than chance "
    "explains.",
    "no difference that matters": f"In short: with the same labels, {FIRST} classifies about as well as one that did "
    "not.",
    "no difference shown": f"In short: it is open whether {FIRST} classifies better than one that did not; this "
    "sweep is too small to tell.",
}
MOST_NAMED = 6  # classes, for their differences to stand on the first screen


@dataclass(frozen=True, eq=False)
class SweepReport:
    """All that the report says beside what lies in every run."""

    facts: RunFacts
    findings: Findings | None  # None where no trial's predictions can be read
    trials: Sequence[Mapping[str, Any]]
    missing: Sequence[str]
    calibrations: Mapping[tuple[str, int], float]  # ECE, mean over trials, by variant's name and labels per class
    reliability: Mapping[str, Calibration]  # of the details
    pretrainings: Sequence[RunFacts]
    typed: str  # the command of the sweep
    go_on: str  # and the one that finishes it
    changed: Mapping[str, Any]  # its settings that are no defaults
    cache: Path

    def html(self) -> str:
        """The page."""
        run, findings, result = self.facts, self.findings, self.facts.result or {}
        sections: list[Section | None] = []
        if findings is not None:
            sections += [
                sweep_figures.efficiency(findings, self._scored()),
                sweep_figures.saved(result.get("labels_saved_by_budget", ())),
                sweep_figures.differences(result.get("comparisons", ()), findings.per_class),
                sweep_figures.ablation(findings),
                class_section.of_sweep(findings, run, self.cache),
                self._calibration(),
            ]
        sections += [
            self._trials(),
            self._pretrainings(),
            about.data_section(run, result.get("overlap", {})),
            about.settings_section(run, self.typed, self.changed),
            about.machine_section(run, self._times()),
        ]
        return document(run, f"What pretraining was worth on {_short(run)}", self._first(), sections)

    def _scored(self) -> str:
        """What the scores are of."""
        if any("fold" in one for one in self.trials):
            return "images by cross-validation"
        validation = self.facts.settings.get("evaluate_on") == "validation"
        return "held-out training images" if validation else "test images"

    def _times(self) -> dict[str, float | None]:
        """Seconds of the last command, and of all trials, which may be of several."""
        last = None if self.facts.result is None else float(self.facts.result["seconds"])
        return {"last command took": last, "all trials took": sum(float(one["seconds"]) for one in self.trials)}

    def _first(self) -> list[Markup]:
        """The verdict, or why there is none, and its numbers."""
        result = self.facts.result
        if result is None:
            failed = self.facts.ended is not None and self.facts.ended["status"] == "FAILED"
            done = f"{len(self.trials):,} of {len(self.trials) + len(self.missing):,} trials have finished."
            state = self.facts.state
            lines = [paragraph(state[:1].upper() + state[1:], ". ", done), paragraph("To go on, type")]
            lines.append(command(self.go_on))
            kind = "verdict failed" if failed else "verdict"
            return [tag("div", tag("p", "No verdict yet", class_="outcome"), *lines, class_=kind), *self._tiles()]
        outcome = result.get("outcome")
        *found, last = str(result["verdict"]).splitlines()
        commands = [str(one) for one in result.get("next", ())]
        typed = f", type {', and then '.join(commands)}."
        end = [paragraph(last)]
        if commands and last.endswith(typed):
            end = [paragraph(f"{last.removesuffix(typed)}, type"), *map(command, commands)]
        meaning = [paragraph(MEANINGS[outcome])] if outcome in MEANINGS else []
        held = [*meaning, *map(paragraph, found), *self._by_class(), *end]
        if outcome and not found:  # its verdict is that of the comparison
            return [tag("div", tag("p", "Part of a comparison", class_="outcome"), *held, class_="verdict")]
        head = tag("p", found[0].partition(":")[0] if outcome else "No verdict", class_="outcome")
        kind = f"verdict {OUTCOMES.get(str(outcome), '')}".strip()
        return [tag("div", head, *held, class_=kind), *self._tiles(), self._words()]

    def _by_class(self) -> list[Markup]:
        """For which classes it was worth something; of many classes the table below says it."""
        if self.findings is None or len(self.facts.classes) > MOST_NAMED:
            return []
        gained = class_section.gains(self.findings, self.facts.classes)
        if len(gained) < 2:
            return []
        each = [
            join(
                [
                    name,
                    " ",
                    tag(
                        "span",
                        points_with(gap.mean, gap.low, gap.high),
                        class_=direction(gap.low, gap.high) or "level",
                    ),
                ]
            )
            for name, gap in gained
        ]
        link = tag("a", "By class", href="#classes")
        return [paragraph(link, ", recall minus scratch's, in points: ", join(each, "; "), ".")]

    def _words(self) -> Markup:
        """What a reader who has not seen such a page needs to know."""
        if self.findings is None:
            return Markup("")
        known, labels = len(self.facts.classes), self.findings.tested.part.labels
        guessing = 100 / (known or int(labels.max()) + 1)
        words = (
            ("scratch", "the same network, trained on the same labels from random weights, without unlabeled images"),
            (
                "balanced accuracy",
                f"the mean of the classes' recalls, the shares that are recognized: {guessing:.3g} % by guessing",
            ),
            ("labels per class", "so many labeled images of each class are all that training and its choices see"),
            ("draw", "one random choice of the images that get labels; pretrained and scratch get the same"),
            ("[low, high]", "95 % interval: where the value may lie for other draws and other test images"),
        )
        return tag("div", facts(words), class_="words")

    def _tiles(self) -> list[Markup]:
        """Score, baseline, difference, labels saved."""
        findings = self.findings
        if findings is None:
            return []
        budget = count(findings.per_class, "label") + " per class"
        ours = findings.tested.curve(*findings.subject).get(findings.per_class)
        cells = []
        if ours is not None:
            note = f"{findings.subject_name}, {budget}"
            cells.append(("with unlabeled images", f"{percent(ours.interval.mean)} %", note))
        if findings.baseline is not None:
            theirs = findings.tested.curve(findings.baseline).get(findings.per_class)
            if theirs is not None:
                cells.append(("without: scratch", f"{percent(theirs.interval.mean)} %", f"random weights, {budget}"))
            gap = difference(findings.tested, findings.subject, [findings.baseline], findings.per_class)
            if gap is not None:
                interval = points_with(gap.mean, gap.low, gap.high).partition(" ")[2]
                note = f"95 % interval {interval}" if interval else "one draw gives no interval"
                cells.append(("difference, points", points(gap.mean), note))
        saved = (self.facts.result or {}).get("labels_saved")
        if saved and saved["factor"] is not None and (saved["bound"] != "at least" or saved["factor"] > 1):
            bound = f"{saved['bound']} " if saved["bound"] else ""
            note = f"the labels, for the same score{saved_range(LabelsSaved(**saved))}"
            cells.append(("scratch needs", f"{bound}{saved['factor']:.1f} times", note))
        return [tiles(cells)]

    def _calibration(self) -> Section | None:
        """Reliability of the details, and ECE of every variant at every budget."""
        findings = self.findings
        assert findings is not None
        if not self.reliability:
            return None
        names = list(dict.fromkeys(name for name, _ in self.calibrations))
        budgets = sorted({budget for _, budget in self.calibrations})
        columns = [
            Column("ECE, points, mean over trials", number=False),
            *(Column(f"{k:,} per class") for k in budgets),
        ]
        rows = [[name, *(percent(self.calibrations.get((name, k))) for k in budgets)] for name in names]
        note = paragraph(
            "Expected calibration error (ECE): the mean distance between the probability of the predicted class and "
            f"the share that is right, over {BINS} bins. The curves are of {count(findings.per_class, 'label')} per "
            "class, all draws together. ECE has no interval, and is too large where images are few. The "
            "classifiers of a sweep are not calibrated; finetune can calibrate its own.",
            quiet=True,
        )
        return section("calibration", "Calibration", note, reliability(self.reliability), table(columns, rows))

    def _trials(self) -> Section | None:
        """Times, warnings, what is missing, and every trial on demand."""
        by_variant: dict[Variant, list[Mapping[str, Any]]] = {}
        for one in self.trials:
            by_variant.setdefault((one["init"], one["strategy"]), []).append(one)
        columns = [
            Column("variant", number=False), Column("trials"), Column("seconds a trial, mean"), Column("in all"),
        ]  # fmt: skip
        rows: list[list[object]] = []
        for variant, several in sorted(by_variant.items()):
            seconds = [float(one["seconds"]) for one in several]
            rows.append([name_of(variant), len(several), f"{sum(seconds) / len(seconds):.1f}", lasted(sum(seconds))])
        warnings = [
            f"{name_of((one['init'], one['strategy']))}, {one['per_class']} per class, draw {one['draw']}: {warning}"
            for one in self.trials
            for warning in one.get("warnings", ())
        ]
        missing = self.missing[:MOST_MISSING]
        rest = [f"and {len(self.missing) - MOST_MISSING:,} more"] if len(self.missing) > MOST_MISSING else []
        gone = folded(f"{count(len(self.missing), 'trial')} without a result", bullets([*missing, *rest]))
        return section(
            "trials",
            "Trials",
            gone if self.missing else None,
            self._pages(),
            table(columns, rows),
            bullets(warnings),
            folded(f"All {len(self.trials):,} trials", self._every()) if self.trials else None,
        )

    def _pages(self) -> Markup | None:
        """Links to MLflow's pages of the sweep; None where it was not tracked."""
        pages = (self.facts.result or {}).get("pages") or {}
        links = [tag("a", name, href=address) for name, address in pages.items()]
        return (
            paragraph("In MLflow, while ", tag("code", "ssl-app ui"), " runs: ", join(links, ", "), ".")
            if links
            else None
        )

    def _every(self) -> Markup:
        names = ("labels per class", "draw", "labels", "steps", "balanced accuracy, %", "seconds")
        columns = [Column("variant", number=False), *(Column(name) for name in names)]
        rows = [
            [
                name_of((one["init"], one["strategy"])),
                one["per_class"],
                f"{one['draw']}, fold {one['fold']}" if "fold" in one else one["draw"],
                one["labels_used"],
                one["steps"],
                percent(one[METRIC]),
                f"{one['seconds']:.1f}",
            ]
            for one in self.trials
        ]
        return table(columns, rows)

    def _pretrainings(self) -> Section | None:
        """Where the networks come from, and whether their training was well."""
        columns = [
            Column("pretraining", number=False), Column("method", number=False), Column("epochs"),
            Column("training"), Column("warning", number=False),
        ]  # fmt: skip
        rows: list[list[object]] = []
        for one in self.pretrainings:
            result = one.result or {}
            epochs, method = one.settings.get("epochs"), one.settings.get("method")
            seconds = result.get("training_seconds")
            rows.append([one.name, method, epochs, lasted(seconds), result.get("warning") or "none"])
        return section("pretrainings", "Pretrainings", table(columns, rows))


def _short(facts: RunFacts) -> str:
    """The data's name, without the folders that it lies in."""
    name = str(facts.data["name"] if facts.data else facts.settings.get("data") or "these images")
    return "/".join(Path(name).parts[-2:])
