"""The section on classes: of a sweep's variant over all draws against scratch, or of one classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.ablation import difference
from ssl_app.evaluation.comparison import Answered
from ssl_app.evaluation.difference import ScoredPart
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.metrics import in_half
from ssl_app.report import classes, embedded
from ssl_app.report.blocks import (
    Column,
    Section,
    count,
    direction,
    heading,
    paragraph,
    percent,
    percent_with,
    points_with,
    section,
    table,
)
from ssl_app.report.findings import Findings, ScoredImages
from ssl_app.report.markup import Markup, tag
from ssl_app.report.run_facts import RunFacts


def of_sweep(findings: Findings, facts: RunFacts, cache: Path) -> Section | None:
    """The variant of the details: recall of each class against scratch, confusion and mistakes over its trials."""
    predictions = findings.predicted(findings.subject)
    if not predictions:
        return None
    labels = findings.tested.part.labels
    names = class_names(facts, predictions[0].shape[1])
    trials = count(len(predictions), "trial")
    note = f"{findings.subject_name} at {count(findings.per_class, 'label')} per class, {trials}."
    return section(
        "classes",
        "Classes",
        paragraph(note, quiet=True),
        _recalls(findings, names, predictions),
        heading("Confusion"),
        classes.matrix(classes.matrix_of(predictions, labels, len(names)), names),
        *mistakes(predictions, labels, facts, cache),
    )


def class_names(facts: RunFacts, number: int) -> list[str]:
    """Names of the classes, or their numbers where they are not known."""
    return facts.classes if len(facts.classes) == number else [f"class {k}" for k in range(number)]


def mistakes(
    predictions: Sequence[NDArray[np.float16]], labels: NDArray[np.int64], facts: RunFacts, cache: Path
) -> list[Markup]:
    """Heading, sentence and pictures of the images that are most often wrong."""
    found = classes.mistakes(predictions, labels)
    if not found:
        return [paragraph("No test image was wrongly classified.")]
    shown = found[: classes.MOST_MISTAKES]
    names = class_names(facts, predictions[0].shape[1])
    images = ScoredImages.of(facts.data, len(labels))
    drawn: list[Markup] | None = None
    note = None
    if images is not None and facts.data is not None:
        arrays = embedded.packed(cache, facts.data, [images.rows[one.image] for one in shown])
        if arrays is not None:
            paths = [images.paths[one.image] for one in shown]
            drawn = [embedded.picture(array, path) for array, path in zip(arrays, paths, strict=True)]
            height, width = arrays[0].shape[:2]
            note = f"Pictures are enlarged from the {width} × {height} px that are kept for the network."
        else:
            note = "The decoded images are no longer in the cache, so that there are names alone."
    sentence = classes.mistakes_sentence(len(found), len(shown), len(labels), len(predictions))
    gallery = classes.gallery(shown, names, None if images is None else images.paths, drawn)
    return [heading("Mistakes"), paragraph(" ".join(filter(None, [sentence, note])), quiet=True), gallery]


def _recalls(findings: Findings, names: Sequence[str], predictions: Sequence[NDArray[np.float16]]) -> Markup:
    """Recall of each class with its interval, and its difference from scratch."""
    columns = [Column("class", number=False), Column("test images"), Column("recall, % [95 %]")]
    if findings.baseline is not None:
        columns += [Column("scratch, % [95 %]"), Column("difference, points [95 %]")]
    columns.append(Column("precision, %"))
    counts = classes.matrix_of(predictions, findings.tested.part.labels, len(names))
    rows = []
    for k, name in enumerate(names):
        of_class = findings.tested.part.labels == k
        if not of_class.any():
            continue
        guessed = counts[:, k].sum()
        precision = percent(float(counts[k, k] / guessed)) if guessed else "–"
        rows.append([name, f"{of_class.sum():,}", *_against(findings, of_class), precision])
    return table(columns, rows)


def gains(findings: Findings, names: Sequence[str]) -> list[tuple[str, Interval]]:
    """What the details' variant is ahead of scratch, in recall of each class that was tested on."""
    labels, found = findings.tested.part.labels, []
    for k, name in enumerate(names if findings.baseline is not None else ()):
        if (labels == k).any():
            gap = _gap(only(findings.tested, labels == k), findings)
            found += [] if gap is None else [(name, gap)]
    return found


def _gap(tested: Answered, findings: Findings) -> Interval | None:
    """The details' variant minus scratch, on some of the images."""
    assert findings.baseline is not None
    return difference(tested, findings.subject, [findings.baseline], findings.per_class)


def _against(findings: Findings, of_class: NDArray[np.bool_]) -> list[object]:
    """Recall of one class, of scratch too where it is there, and the difference."""
    tested, budget = only(findings.tested, of_class), findings.per_class
    found = tested.curve(*findings.subject).get(budget)
    ours = "–" if found is None else percent_with(found.interval)
    if findings.baseline is None:
        return [ours]
    theirs = tested.curve(findings.baseline)[budget].interval
    gap = _gap(tested, findings)
    shown: object = "–"
    if gap is not None:
        shown = tag("span", points_with(gap.mean, gap.low, gap.high), class_=direction(gap.low, gap.high))
    return [ours, percent_with(theirs), shown]


def only(tested: Answered, chosen: NDArray[np.bool_]) -> Answered:
    """The answers for some of the images: of one class, balanced accuracy is its recall."""
    part = ScoredPart(tested.part.labels[chosen], tested.part.members[chosen])
    return replace(tested, part=part, right={one: right[chosen] for one, right in tested.right.items()})


@dataclass(frozen=True, eq=False)
class OneTest:
    """What one classifier answered, and its figures by class as they were reported."""

    probabilities: NDArray[np.float64]  # (N, K)
    labels: NDArray[np.int64]  # (N,)
    rows: Sequence[Sequence[object]]  # class, test images, recall, precision and F1 in percent


def of_one(found: OneTest, facts: RunFacts, cache: Path) -> Section | None:
    """One classifier: its figures by class, confusion and mistakes."""
    names = ("test images", "recall, %", "precision, %", "F1, %")
    columns = [Column("class", number=False), *(Column(name) for name in names)]
    predictions = [in_half(found.probabilities)]
    known = class_names(facts, found.probabilities.shape[1])
    held = classes.matrix(classes.matrix_of(predictions, found.labels, len(known)), known)
    wrong = mistakes(predictions, found.labels, facts, cache)
    return section("classes", "Classes", table(columns, found.rows), heading("Confusion"), held, *wrong)
