"""The report of a comparison: which method to take, the ranking, and the curves of its sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_app.checkpoints import SCRATCH
from ssl_app.report import about, sweep_figures
from ssl_app.report.blocks import (
    Column,
    Section,
    bullets,
    command,
    direction,
    lasted,
    paragraph,
    percent,
    points_with,
    section,
    table,
)
from ssl_app.report.document import document
from ssl_app.report.findings import Findings
from ssl_app.report.markup import Markup, tag
from ssl_app.report.run_facts import RunFacts


@dataclass(frozen=True, eq=False)
class CompareReport:
    """All that the report says beside what lies in every run."""

    facts: RunFacts
    findings: Findings | None  # of its sweep
    warnings: Mapping[str, str]  # of pretrainings, by method
    data: RunFacts | None  # its sweep, which has the data and the machine
    typed: str
    changed: Mapping[str, Any]

    def html(self) -> str:
        """The page."""
        facts, result = self.facts, self.facts.result or {}
        shown = facts if self.data is None else self.data
        sections: list[Section | None] = [self._ranking()]
        if self.findings is not None:
            sections.append(sweep_figures.efficiency(self.findings, "held-out training images"))
        sections += [
            self._confirmation(),
            self._left_out(),
            about.data_section(shown, result.get("overlap", {})),
            about.settings_section(facts, self.typed, self.changed),
            about.machine_section(shown, {"last command took": result.get("seconds")}),
        ]
        return document(facts, "Which method these images want", self._first(), sections)

    def _first(self) -> list[Markup]:
        """The advice, or why there is none yet."""
        result = self.facts.result
        if result is None:
            failed = self.facts.ended is not None and self.facts.ended["status"] == "FAILED"
            state = self.facts.state[:1].upper() + self.facts.state[1:]
            lines = [paragraph(state, "."), paragraph("To go on, type"), command(self.typed)]
            kind = "verdict failed" if failed else "verdict"
            return [tag("div", tag("p", "No recommendation yet", class_="outcome"), *lines, class_=kind)]
        best = str(result["wanted"][0])
        above = [one for one in result["ranking"] if one["name"] == best and (one["over_scratch"]["low"] or 0) > 0]
        head = f"Take {' or '.join(result['wanted'])}" if above else f"Try {best} first"
        claim = "A recommendation claims nothing: the methods were chosen by what these figures show."
        lines = [paragraph(str(result["advice"])), paragraph(claim, quiet=True)]
        return [tag("div", tag("p", head, class_="outcome"), *lines, class_="verdict helped" if above else "verdict")]

    def _ranking(self) -> Section | None:
        """Methods, the best first, with what they are ahead of and behind."""
        result = self.facts.result or {}
        columns = [
            Column("method", number=False),
            Column("balanced accuracy, %, mean of the budgets"),
            Column("minus scratch, points [95 %]"),
            Column("behind the best, points [95 %]"),
            Column("kNN, frozen, %"),
            Column("linear, frozen, %"),
            Column("pretraining"),
        ]
        frozen, seconds = result.get("frozen", {}), result.get("seconds_each", {})
        rows: list[list[object]] = []
        for one in result.get("ranking", ()):
            over, behind = one["over_scratch"], one["behind_best"]
            shown = points_with(over["mean"], over["low"], over["high"])
            found = frozen.get(one["name"], {})
            rows.append([
                one["name"],
                percent(one["mean"]),
                tag("span", shown, class_=direction(over["low"], over["high"])),
                "–" if behind is None else points_with(behind["mean"], behind["low"], behind["high"]),
                percent(found.get("knn")),
                percent(found.get("linear")),
                lasted(seconds.get(one["name"])),
            ])  # fmt: skip
        if rows and SCRATCH in frozen:
            own = frozen[SCRATCH]
            rows.append([SCRATCH, "–", "–", "–", percent(own.get("knn")), percent(own.get("linear")), "–"])
        note = "Intervals of differences hold for all methods at once." if rows else None
        return section("ranking", "Ranking", table(columns, rows, note))

    def _confirmation(self) -> Section | None:
        """What new pretrainings and draws allow to claim."""
        found = (self.facts.result or {}).get("confirmation")
        return None if found is None else section("confirmation", "Confirmation", paragraph(found["sentence"]))

    def _left_out(self) -> Section | None:
        """Methods that do not apply, and warnings of those that do."""
        reasons = (self.facts.result or {}).get("does_not_apply", {})
        lines = [why if why.startswith(f"{method} ") else f"{method}: {why}" for method, why in reasons.items()]
        warned = [f"{method}: {words}" for method, words in self.warnings.items()]
        return section(
            "left-out",
            "Warnings, and methods not ranked",
            bullets(warned),
            paragraph("Not ranked:") if lines else None,
            bullets(lines),
        )
