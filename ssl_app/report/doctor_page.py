"""The page of a check-up: what was found, what to type, and the pairs of copies side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.against import Shared
from ssl_app.data.checkup import Checkup
from ssl_app.data.images import Unreadable
from ssl_app.data.intensity import scaled_each
from ssl_app.data.nodata import filled
from ssl_app.data.reduction import padded
from ssl_app.report import page
from ssl_app.report.blocks import Column, Section, bullets, command, count, folded, paragraph, section, table
from ssl_app.report.document import document
from ssl_app.report.embedded import picture
from ssl_app.report.markup import Child, Markup, join, tag
from ssl_app.report.run_facts import RunFacts

SHOWN = 24  # pairs, in each section
LISTED = 200  # unreadable files
SIDE = 224  # pixels of a picture


@dataclass(frozen=True, eq=False)
class DoctorReport:
    """A check-up, what to type next, and how sentences are shown."""

    found: Checkup
    shared: Shared | None
    sentences: Sequence[tuple[str, bool]]  # each finding, and whether a run is refused for it
    settings: Sequence[tuple[str, str]]  # what to type, and why
    next: str

    def html(self) -> str:
        """The page."""
        found = self.found
        facts = RunFacts(Path(found.source.name), "doctor", {}, time.time(), None, None, None, None)
        labels = found.of_rows(found.source.labels)
        exact = [
            (found, int(group[0]), found, int(other), None) for group in found.copies.groups for other in group[1:]
        ]
        conflicts = [(found, int(group[0]), found, int(i), None) for group in found.conflicts for i in group[1:]]
        pairs, alike = found.near
        order = np.argsort(-alike, kind="stable")
        near = [(found, int(pairs[i, 0]), found, int(pairs[i, 1]), float(alike[i])) for i in order]
        sections = [
            section("files", "Images and files", self._facts()),
            section("classes", "Classes", _counts("class", found.class_counts) if found.class_counts else None),
            section("conflicts", "Exact copies with several labels", _side_by_side(conflicts, labels)),
            section("copies", "Exact copies", _side_by_side(exact, labels)),
            section("near", "Near copies", _side_by_side(near, labels)),
            *self._by_features(labels),
            *self._other(),
            section("unreadable", "Files that cannot be read", _unreadable(found.unreadable)),
        ]
        title = f"Check-up of {'/'.join(Path(found.source.name).parts[-2:])}"
        return document(facts, title, self._first(), sections, "Made by ssl-app; this page asks no network.")

    def _first(self) -> list[Markup]:
        """What was found, and what to type."""
        refused = sum(refuses for _, refuses in self.sentences)
        head = "Nothing found" if not self.sentences else f"{count(len(self.sentences), 'thing')} to know"
        if refused:
            head += f", {refused} that a run is refused for"
        lines = [
            tag("span", tag("strong", "Refused: "), words) if refuses else words for words, refuses in self.sentences
        ]
        rows = [[tag("code", typed), why] for typed, why in self.settings]
        box = [tag("p", head, class_="outcome"), bullets(lines)]
        box += [paragraph("To go on, type"), command(self.next)] if self.next else []
        suggested = table([Column("setting", number=False), Column("why", number=False)], rows)
        return [tag("div", *box, class_="verdict"), suggested]

    def _facts(self) -> Markup:
        found = self.found
        sizes = {f"{width} x {height}": n for (height, width), n in found.sizes.most_common(12)}
        channels = {str(channels): n for channels, n in sorted(found.channels.items())}
        if found.gray:
            channels["3, all equal"] = found.gray
        return join(
            [
                paragraph(f"{count(len(found.rows), 'image')}, {count(len(found.unreadable), 'unreadable file')}."),
                tag(
                    "div",
                    _counts("ending", found.formats),
                    _counts("size, pixels", sizes),
                    _counts("depth", found.depths),
                    _counts("channels", channels),
                    class_="beside",
                ),
            ]
        )

    def _by_features(self, labels: Sequence[str | None]) -> list[Section | None]:
        by = self.found.by_features
        if by is None:
            return []
        pairs = [
            (self.found, int(i), self.found, int(j), float(ratio))
            for (i, j), ratio in zip(by.pairs, by.ratio, strict=True)
        ]
        title = f"Near copies by the features of {by.network}, mirrored and turned ones too"
        return [section("features", title, _side_by_side(pairs, labels, "distance over that to other near images"))]

    def _other(self) -> list[Section | None]:
        if self.shared is None:
            return []
        one, other, name = self.shared.one, self.shared.other, self.shared.other.source.name
        exact = [(one, int(i), other, int(j), None) for i, j in self.shared.copies]
        near = [
            (one, int(i), other, int(j), float(alike))
            for (i, j), alike in zip(self.shared.near, self.shared.alike, strict=True)
        ]
        return [
            section("other", f"Exact copies in {name}", _side_by_side(exact, None)),
            section("other-near", f"Near copies in {name}", _side_by_side(near, None)),
        ]


Pair = tuple[Checkup, int, Checkup, int, float | None]  # two images, and how alike they are


def _side_by_side(
    pairs: Sequence[Pair], labels: Sequence[str | None] | None, measure: str = "correlation"
) -> Markup | None:
    """The first pairs, with what is known of both, and how alike they are by a measure."""
    if not pairs:
        return None
    rows: list[list[Child]] = []
    for one, i, other, j, alike in pairs[:SHOWN]:
        how = "equal" if alike is None else f"{alike:.4f}"
        rows.append([how, _shown(one, i, labels), _shown(other, j, labels)])
    columns = [Column(measure, number=False), Column("one", number=False), Column("other", number=False)]
    more = (
        None if len(pairs) <= SHOWN else paragraph(f"{len(pairs) - SHOWN:,} more pairs are in the JSON.", quiet=True)
    )
    return join([paragraph(count(len(pairs), "pair"), "."), table(columns, rows), more])


def _shown(found: Checkup, i: int, labels: Sequence[str | None] | None) -> Markup:
    """An image with its name, label, group and part."""
    row = int(found.rows[i])
    key, source = found.source.keys[row], found.source
    known = [
        None if labels is None else labels[i],
        None if source.groups is None else f"{source.columns.group} {source.groups[row]}",
        None if source.splits is None else source.splits[row],
    ]
    words = ", ".join(str(one) for one in known if one is not None)
    try:
        image = picture(_pixels(source.read(row), found.pixels.nodata), key)
    except Unreadable:  # it has changed since
        image = Markup("")
    return tag("figure", image, tag("figcaption", tag("code", key), f" {words}"))


def _pixels(array: NDArray[np.generic], nodata: float | None) -> NDArray[np.uint8]:
    """A whole image, scaled by its own range, at SIDE pixels."""
    small = scaled_each(padded(filled(array, nodata)[0], SIDE))
    return page.eight_bits(small if small.shape[-1] == 3 else small[..., :1])


def _counts(name: str, counts: Mapping[str, int]) -> Markup:
    return table([Column(name, number=False), Column("images")], [[key, f"{n:,}"] for key, n in counts.items()])


def _unreadable(files: Sequence[tuple[str, str]]) -> Markup | None:
    if not files:
        return None
    columns = [Column("file", number=False), Column("reason", number=False)]
    listed = table(columns, [[tag("code", name), reason] for name, reason in files[:LISTED]])
    more = None if len(files) <= LISTED else paragraph(f"{len(files) - LISTED:,} more are in the JSON.")
    return folded(count(len(files), "file"), listed, more)
