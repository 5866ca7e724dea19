"""The report of a finetune: the test, the classes, the mistakes, how sure the classifier is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.calibration import calibration
from ssl_app.report import about, class_section
from ssl_app.report.blocks import Column, bullets, command, count, heading, paragraph, percent, section, table, tiles
from ssl_app.report.document import document
from ssl_app.report.markup import Markup, tag
from ssl_app.report.reliability import reliability
from ssl_app.report.run_facts import RunFacts

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # that the page shows


@dataclass(frozen=True, eq=False)
class FinetuneReport:
    """All that the report says beside what lies in every run."""

    facts: RunFacts
    probabilities: NDArray[np.float64] | None  # of the test images, (N, K); None where they are not there
    labels: NDArray[np.int64] | None  # (N,)
    typed: str  # the command
    changed: Mapping[str, Any]
    next: str  # the command that uses the classifier
    doubtful: str  # and the one that leaves blank what is doubtful
    cache: Path

    def html(self) -> str:
        """The page."""
        facts, result = self.facts, self.facts.result or {}
        sections = []
        if self.probabilities is not None and self.labels is not None:
            rows = [
                [one["class"], f"{one['n']:,}", *(percent(one[name]) for name in ("recall", "precision", "f1"))]
                for one in result.get("test", {}).get("per_class", ())
            ]
            found = class_section.OneTest(self.probabilities, self.labels, rows)
            sections.append(class_section.of_one(found, facts, self.cache))
            name = str(facts.settings.get("strategy"))
            curve = {name: calibration(self.probabilities, self.labels)}
            held = [self._temperature(), reliability(curve), *self._abstention()]
            sections.append(section("calibration", "How sure it is", *held))
        overlap = {str(result["init"]): result["overlap"]} if result.get("init") else {}
        sections += [
            about.data_section(facts, overlap),
            about.settings_section(facts, self.typed, self.changed),
            about.machine_section(facts, {"took": result.get("seconds")}),
        ]
        labels = result.get("labels_used")
        of = f"by {facts.settings.get('strategy')}" if labels is None else f"from {count(labels, 'label')}"
        return document(facts, f"A classifier {of}", self._first(), sections)

    def _temperature(self) -> Markup | None:
        """Whether the probabilities are calibrated, how, and what that changed."""
        found = (self.facts.result or {}).get("calibration")
        if not found:
            return None
        if found["temperature"] is None:
            return paragraph(f"The probabilities are not calibrated: {found['how']}.", quiet=True)
        before = (
            ""
            if found.get("error_before") is None
            else f" Without it ECE is {percent(found['error_before'])} points."
        )
        words = f"The probabilities are calibrated: temperature {found['temperature']:.2f}, {found['how']}."
        return paragraph(words + before, quiet=True)

    def _abstention(self) -> list[Markup]:
        """What leaving doubtful images blank comes to on the test images, at a few thresholds."""
        every = {one["threshold"]: one for one in (self.facts.result or {}).get("abstention", ()) if one["kept"]}
        rows: list[list[object]] = []
        for threshold in THRESHOLDS:
            one = every.get(threshold)
            if one is None:
                continue
            interval = "" if one["low"] is None else f" [{percent(one['low'])}, {percent(one['high'])}]"
            blank = percent(1 - one["kept"] / one["n"])
            rows.append(
                [f"{100 * threshold:.0f}", blank, f"{one['kept']:,}", f"{percent(one['accuracy'])}{interval}"]
            )
        columns = [
            Column("left blank below a probability of, %", number=False),
            Column("left blank, %"),
            Column("test images predicted"),
            Column("of these right, % [95 %]"),
        ]
        if not rows:
            return []
        note = paragraph("To leave blank what it is not sure of, type")
        return [heading("Abstention"), table(columns, rows), note, command(self.doubtful)]

    def _first(self) -> list[Markup]:
        """What was trained, on what, and how good it is."""
        result = self.facts.result
        if result is None:
            failed = self.facts.ended is not None and self.facts.ended["status"] == "FAILED"
            state = self.facts.state[:1].upper() + self.facts.state[1:]
            lines = [paragraph(state, "."), paragraph("To run it again, type"), command(self.typed)]
            kind = "verdict failed" if failed else "verdict"
            return [tag("div", tag("p", "Not finished", class_="outcome"), *lines, class_=kind)]
        test = result["test"]
        unlabeled = f" and {count(result['unlabeled_used'], 'unlabeled image')}" if result["unlabeled_used"] else ""
        head = f"{percent(test['balanced_accuracy'])} % balanced accuracy"
        lines = [
            paragraph(f"Trained on {count(result['labels_used'], 'label')}{unlabeled} from {result['init']}."),
            paragraph(f"How: {result['how']}."),
            bullets(result.get("warnings", ())),
            paragraph("To classify new images, type"),
            command(self.next),
        ]
        box = tag("div", tag("p", head, class_="outcome"), *lines, class_="verdict")
        interval = "" if test["low"] is None else f"[{percent(test['low'])}, {percent(test['high'])}] "
        images = f"{test['n']:,} test images"
        cells = [
            ("balanced accuracy", f"{percent(test['balanced_accuracy'])} %", f"{interval}for other test images"),
            ("accuracy", f"{percent(test['accuracy'])} %", images),
            ("macro F1", f"{percent(test['macro_f1'])} %", images),
        ]
        if "top5_accuracy" in test:
            cells.append(("top-5 accuracy", f"{percent(test['top5_accuracy'])} %", images))
        return [box, tiles(cells)]
