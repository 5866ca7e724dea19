"""A check-up of a set: every image looked at once, at full size, and all that is wrong found together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data import class_names
from ssl_app.data.copies import Copies, copies
from ssl_app.data.dataset import described
from ssl_app.data.decoding.pillow import has_alpha
from ssl_app.data.images import Unreadable
from ssl_app.data.members import Members
from ssl_app.data.nodata import nothing
from ssl_app.data.prints import SIDE, Pairs, near_pairs, prints, thumbnail
from ssl_app.data.reduction import CROP, MUCH, STRETCH, Cut, Reduced, reduce
from ssl_app.data.sources.base import Source, origin
from ssl_app.data.spec import PixelSpec
from ssl_app.data.splits import one_sided, split, too_few
from ssl_app.data.store import SCALED, STRICT, Form
from ssl_app.data.unused_columns import means_group
from ssl_app.errors import Change, DataError, Fix, Notice, Set, Switch, of_count

Progress = Callable[[Any, int], Any]


@dataclass(frozen=True)
class Traits:
    """One image as it is in its file."""

    reduced: Reduced  # its small pixels are a thumbnail of SIDE
    dtype: np.dtype[Any]
    thumb: NDArray[np.int8]  # (1024,)


def traits(array: NDArray[Any], nodata: float | None = None) -> Traits:
    """What a check-up keeps of an image (H, W, C). Raises Unreadable."""
    reduced = reduce(array, SIDE, nodata, STRETCH)
    return Traits(reduced, array.dtype, thumbnail(reduced.small))


@dataclass(frozen=True)
class Finding:
    """One thing to know: its kind for a program, the sentence for people, and whether a run is refused for it."""

    kind: str
    notice: Notice
    count: int
    refused: bool = False


@dataclass(frozen=True, eq=False)
class ByFeatures:
    """M pairs of images that a network takes for near copies, the closest first; none that the hash finds."""

    network: str
    pairs: Pairs  # (M, 2)
    ratio: NDArray[np.float32]  # (M,) their distance over that to other near images
    turns: NDArray[np.int64]  # (M,) not 0: one of the two is mirrored or turned


@dataclass(frozen=True, eq=False)
class Checkup:
    """The readable images of a set, N of them, and those that are not."""

    source: Source
    pixels: PixelSpec
    rows: NDArray[np.int64]  # (N,) places in the source
    content: NDArray[np.int64]  # (N,)
    thumbs: NDArray[np.int8]  # (N, 1024)
    sizes: Counter[tuple[int, int]]  # height and width
    depths: Counter[str]
    channels: Counter[int]
    gray: int  # images of three equal channels
    unreadable: tuple[tuple[str, str], ...]  # key and reason
    pixel_findings: tuple[Finding, ...] = ()
    label_findings: tuple[Finding, ...] = ()  # of a table of labels that does not fit
    per_class: int | None = None
    max_unreadable: int = 0
    allow_leak: bool = False
    by_features: ByFeatures | None = None
    test_fraction: float = 0.2
    split_seed: int = 0
    unlabeled: tuple[str, ...] = ()  # labels that stand for none already

    @property
    def keys(self) -> list[str]:
        """(N,) names of the images."""
        return [self.source.keys[row] for row in self.rows]

    def of_rows(self, values: Sequence[str | None] | None) -> list[str | None]:
        """(N,) what the source knows of each readable image."""
        return [None] * len(self.rows) if values is None else [values[row] for row in self.rows]

    @cached_property
    def copies(self) -> Copies:
        """Exact copies."""
        return copies(self.content)

    @cached_property
    def near(self) -> tuple[Pairs, NDArray[np.float32]]:
        """Pairs of near copies that are no exact ones, the first of each picture, and their correlation."""
        first = np.sort(np.unique(self.content, return_index=True)[1])
        pairs, alike = near_pairs(prints(self.thumbs[first]))
        return first[pairs], alike

    @cached_property
    def conflicts(self) -> list[NDArray[np.int64]]:
        """Groups of exact copies with two labels or more."""
        labels = self.of_rows(self.source.labels)
        return [g for g in self.copies.groups if len({labels[i] for i in g} - {None}) > 1]

    @property
    def class_counts(self) -> dict[str, int]:
        """Labeled images of each class, the largest first."""
        counts = Counter(label for label in self.of_rows(self.source.labels) if label is not None)
        return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

    @property
    def formats(self) -> dict[str, int]:
        """Files by ending."""
        files = set(self.source.keys if self.source.file_names is None else self.source.file_names)
        counts = Counter(Path(file).suffix.lower() or "without an ending" for file in files)
        return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, refusals first."""
        found = [
            *self._unreadable(),
            *self.pixel_findings,
            *self.label_findings,
            *(Finding("files", note, 1) for note in self.source.notes),
            *self._copies(),
            *self._near(),
            *self._by_features(),
            *self._split(),
            *self._classes(),
            *self._one_sided(),
        ]
        return tuple(sorted(found, key=lambda one: not one.refused))

    def _unreadable(self) -> list[Finding]:
        if not self.unreadable:
            return []
        name, reason = self.unreadable[0]
        count = len(self.unreadable)
        sentence = f"{count} of {len(self.source.keys)} images cannot be read, first {name}: {reason}"
        fixes = (of_count(count, "fix or remove them"), Set("max_unreadable", count))
        return [Finding("unreadable", Notice(sentence, fixes=fixes), count, count > self.max_unreadable)]

    def _copies(self) -> list[Finding]:
        found, names = [], self.keys
        if extra := self.copies.extra:
            first, second = (names[i] for i in self.copies.groups[0][:2])
            many = "1 image is an exact extra copy" if extra == 1 else f"{extra} images are exact extra copies"
            what = Notice(f"{many} of others, in {counted(self.copies.groups)} ({second} of {first})", fixes=(CLEAN,))
            found.append(Finding("copies", what, extra))
        if self.conflicts:
            labels, group = self.of_rows(self.source.labels), self.conflicts[0]
            several = " and ".join(sorted({str(labels[i]) for i in group if labels[i] is not None}))
            what = Notice(
                f"{counted(self.conflicts)} of exact copies have several labels ({names[group[0]]} is {several})",
                fixes=(Fix("correct them"), CLEAN),
            )
            found.append(Finding("conflicting labels", what, len(self.conflicts)))
        blank = np.flatnonzero(~self.thumbs.any(axis=1))
        if len(blank):
            first = names[blank[0]]
            shown = (
                f"1 image is of one value ({first})" if len(blank) == 1 else f"{len(blank)} images are of one value"
            )
            found.append(
                Finding("blank", Notice(shown if len(blank) == 1 else f"{shown} ({first} the first)"), len(blank))
            )
        return found

    def _near(self) -> list[Finding]:
        pairs, alike = self.near
        if not len(pairs):
            return []
        best = int(alike.argmax())
        one, other = (self.keys[i] for i in pairs[best])
        images = len(np.unique(pairs))
        many = f"{len(pairs)} pair{'s' * (len(pairs) > 1)}"
        clauses = [f"{images} images are near copies of others, in {many} ({other} and {one})", *self._apart(pairs)]
        return [Finding("near copies", Notice("; ".join(clauses), fixes=(LOOK,)), images)]

    def _by_features(self) -> list[Finding]:
        found = self.by_features
        if found is None or not len(found.pairs):
            return []
        images, turned = len(np.unique(found.pairs)), int((found.turns > 0).sum())
        one, other = (self.keys[i] for i in found.pairs[0])
        many = "1 pair" if len(found.pairs) == 1 else f"{len(found.pairs)} pairs"
        if turned:
            many += f" ({turned} mirrored or turned)"
        clauses = [f"{images} images may be near copies by the features of {found.network}, in {many}"]
        clauses[0] += f": {one} and {other} the closest"
        clauses += self._apart(found.pairs)
        return [Finding("near copies by features", Notice("; ".join(clauses), fixes=(LOOK,)), images)]

    def _apart(self, pairs: Pairs) -> list[str]:
        """Of pairs: how many test images have one in train, and how many pairs are of two groups."""
        clauses, marks = [], self._marks()
        if marks is not None:
            across = pairs[marks[pairs[:, 0]] != marks[pairs[:, 1]]]
            if len(across):
                clauses.append(f"{len(np.unique(across[marks[across]]))} test images have one in train")
        groups = self.of_rows(self.source.groups)
        apart = sum(groups[one] != groups[other] for one, other in pairs) if self.source.groups else 0
        if apart:
            clauses.append(f"{apart} of the pairs are of different groups ({self.source.columns.group})")
        return clauses

    def _marks(self) -> NDArray[np.bool_] | None:
        """(N,) whether an image is test, by a split that came with the data; None without one."""
        if self.source.splits is None:
            return None
        marks = self.of_rows(self.source.splits)
        held = "test" if "test" in marks else "val"
        test = np.array([mark == held for mark in marks], dtype=bool)
        return test if test.any() and not test.all() else None

    def _split(self) -> list[Finding]:
        """What the parts of a given split have in common."""
        test = self._marks()
        if test is None:
            return []
        found, count = [], int(test.sum())
        marks = np.array([mark or "train" for mark in self.of_rows(self.source.splits)])
        where, groups = origin(str(self.source.columns.split)), self.of_rows(self.source.groups)
        rest = "train or val" if "val" in marks[~test] else "train"
        by = self.source.columns.group if self.source.groups is not None else "content"
        fixes = (Set("split", f"none to split by {by}"), Switch("allow_leak"))

        def add(kind: str, sentence: str, count: int) -> None:
            found.append(
                Finding(f"{kind} across the split", Notice(sentence, fixes=fixes), count, not self.allow_leak)
            )

        met = {part: {groups[i] for i in np.flatnonzero(of)} - {None} for part, of in
               ((rest, ~test), ("train", marks == "train"))}  # fmt: skip
        beside = {part: sum(groups[i] in held for i in np.flatnonzero(test)) for part, held in met.items()}
        if beside[rest]:
            alone = f" ({beside['train']} of them beside one of train)" if rest != "train" else ""
            what = f"{where} puts {beside[rest]} of {count} test images beside a {rest} image of the same {by}{alone}"
            add("groups", what, beside[rest])
        across = [group for group in self.copies.groups if len(set(marks[group].tolist())) > 1]
        if across:
            held = [group for group in across if len(set(test[group].tolist())) == 2]
            copied = sum(int(test[group].sum()) for group in held)
            what = f"{where} puts copies of one picture into two parts, in {counted(across)}"
            add("copies", f"{what}; {copied} of {count} test images have one in {rest}", len(across))
        return found

    def _classes(self) -> list[Finding]:
        counts = self.class_counts
        if not counts or self.per_class is None:
            return []
        few = {name: count for name, count in counts.items() if count < self.per_class}
        if not few:
            return []
        shown = ", ".join(f"'{name}' {count}" for name, count in list(few.items())[-5:])
        sentence = f"{len(few)} of {len(counts)} classes have fewer than {self.per_class} labeled images: {shown}"
        none = len(few) == len(counts)
        fix = Set("per_class", max(counts.values())) if none else Change("per_class", "a smaller")
        return [Finding("classes", Notice(sentence, fixes=(fix,)), len(few), none)]

    def _one_sided(self) -> list[Finding]:
        """Too few images, and classes that a training cannot be tested on, or not trained on, with this split."""
        images = self.thumbs.reshape(-1, SIDE, SIDE, 1)
        dataset = described(self.source, self.rows, self.content, images)
        try:
            parts = split(dataset, fraction=self.test_fraction, seed=self.split_seed, allow_leak=True)
        except DataError as error:
            return [Finding("split", error.notice, 1, refused=True)]
        few = too_few(len(parts.train) + len(parts.val), len(parts.test))
        found = [] if few is None else [Finding(TOO_FEW, few, len(dataset.keys), refused=True)]
        notice = one_sided(dataset, parts, self.unlabeled) if len(dataset.classes) > 1 else None
        return found + ([] if notice is None else [Finding("classes on one side", notice, 1)])


LOOK = Set("page", "FILE.html to look at them")
TOO_FEW = "too few images"
CLEAN = Set("clean", "FILE.csv to leave them out")


def counted(groups: Sequence[object]) -> str:
    """`1 group`, `11 groups`."""
    return f"{len(groups)} group{'s' * (len(groups) != 1)}"


@dataclass
class _Pixels:
    """What the pixels of a set have in common, image by image."""

    form: Form
    nodata: float | None = None  # what the user says that holds nothing
    cut: Cut = field(default_factory=Cut)
    filled: list[str] = field(default_factory=list)
    far: dict[float, list[str]] = field(default_factory=dict)

    def add(self, key: str, image: Reduced) -> None:
        self.form.admit(key, image)
        self.cut.add(key, image)
        if image.filled:
            self.filled.append(key)
        if image.far is not None:
            self.far.setdefault(image.far, []).append(key)

    def findings(self, fit: str) -> list[Finding]:
        """What does not go together, what is cut away, what holds nothing."""
        seen = [("color", one) for one in self.form.settle()]
        seen += [("cut", one) for one in self.cut.found()] if fit == CROP else []
        kinds = {"intensity": "depths", "channels": "channels"}
        found = [
            Finding(kinds.get(_setting(error.notice), "channels"), error.notice, 1, refused=True)
            for error in self.form.refusals()
        ]
        found += [
            Finding(kind, Notice(words, fixes=tuple(Set(*one) for one in more)), 1) for kind, (words, more) in seen
        ]
        if self.filled:
            what = (
                f"{len(self.filled)} images (the first is {self.filled[0]}) have pixels that {nothing(self.nodata)}"
            )
            found.append(Finding("not finite", Notice(f"{what}: they take the image's mean"), len(self.filled)))
        for value, keys in sorted(self.far.items(), key=lambda one: -len(one[1]))[:1]:
            what = f"{len(keys)} images (the first is {keys[0]}) hold many pixels of {value:.9g}, far from all others"
            fix = Set("nodata", f"{value:.9g} if it means no pixel")
            found.append(Finding("nodata", Notice(what, fixes=(fix,)), len(keys)))
        return found


def _setting(notice: Notice) -> str:
    return next((fix.words for fix in notice.fixes if isinstance(fix, Set)), "")


WITH_ALPHA = (".png", ".webp", ".gif")  # of TIFF further channels are kept


def alpha_findings(source: Source, rows: Sequence[int]) -> list[Finding]:
    """How many of the files have transparency, which no training sees."""
    if not isinstance(source, Members):
        return []
    lying = [row for row in rows if source.members[row].path.suffix.lower() in WITH_ALPHA]
    having = [row for row in lying if has_alpha(source.members[row].path)]
    if not having:
        return []
    first, count = source.keys[having[0]], len(having)
    have = f"1 image has transparency ({first})"
    if count > 1:
        have = f"{count} images have transparency ({first} the first)"
    notice = Notice(f"{have}: it is dropped, and pixels under it are seen in their color")
    return [Finding("transparency", notice, count)]


def examine(source: Source, pixels: PixelSpec, progress: Progress = lambda items, total: items) -> Checkup:
    """Look at every image of a source once. Nothing in them raises; a source that is empty has no images."""
    depth = SCALED if pixels.intensity == "dtype" else STRICT
    common = _Pixels(Form(pixels.channels, depth), pixels.nodata)
    rows: list[int] = []
    content: list[int] = []
    thumbs: list[NDArray[np.int8]] = []
    unreadable: list[tuple[str, str]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    depths: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    gray = 0
    for i, one in progress(source.each(lambda array: traits(array, pixels.nodata)), len(source.keys)):
        if isinstance(one, Unreadable):
            unreadable.append((source.keys[i], str(one)))
            continue
        rows.append(i)
        content.append(one.reduced.content)
        thumbs.append(one.thumb)
        sizes[one.reduced.size] += 1
        depths[one.dtype.name] += 1
        channels[one.reduced.channels] += 1
        gray += one.reduced.gray and one.reduced.channels == 3
        common.add(source.keys[i], one.reduced)
    return Checkup(
        source=source,
        pixels=pixels,
        rows=np.array(rows, np.int64),
        content=np.array(content, np.int64),
        thumbs=np.stack(thumbs) if thumbs else np.empty((0, SIDE * SIDE), np.int8),
        sizes=sizes,
        depths=depths,
        channels=channels,
        gray=gray,
        unreadable=tuple(unreadable),
        pixel_findings=(*common.findings(pixels.fit), *alpha_findings(source, rows)),
    )


def suggestions(found: Checkup) -> list[tuple[str, str, str]]:
    """Settings to type, each with a value and its reason: (name, value, reason)."""
    source, result = found.source, []
    if found.sizes:
        sides = np.repeat([min(size) for size in found.sizes], list(found.sizes.values()))
        median = int(np.median(sides))
        side = min(64, max(16, median))
        result.append(
            ("image_size", str(side), f"the median short side is {median} px; more than 64 costs time first")
        )
    if len(found.depths) > 1:
        result.append(("intensity", "dtype", f"bit depths are mixed: {', '.join(sorted(found.depths))}"))
    mixed = any(one.kind == "channels" and one.refused for one in found.findings)
    if mixed and {1, 3} >= set(found.channels):
        few_color = found.channels[3] - found.gray < len(found.rows) / 2
        result.append(("channels", "1" if few_color else "3", "color lies beside gray"))
    group = next((name for name in source.unused if means_group(name)), None)
    if source.groups is None and group is not None:
        result.append(("group", group, f"images of one {group} should not lie on both sides of the split"))
    for one in found.findings:
        if one.kind == "cut" and found.pixels.fit == CROP:
            result.append(("fit", "pad", f"the center square loses more than {100 * MUCH:.0f} % of some images"))
        if one.kind == "nodata":
            value = next(str(fix.value).split()[0] for fix in one.notice.fixes if isinstance(fix, Set))
            result.append(("nodata", value, "if it means that a pixel holds nothing"))
        if one.kind == "unreadable" and one.refused:
            result.append(("max_unreadable", str(one.count), "files that cannot be read"))
    labels = [label for label in source.labels or () if label is not None]
    if none := class_names.standing_for_none(labels):
        result.append(("unlabeled", ",".join(sorted(none)), "labels that stand for none"))
    if class_names.spellings(labels):
        result.append(("one_spelling", "", "classes with several spellings"))
    if any("across the split" in one.kind for one in found.findings):
        by = source.columns.group if source.groups is not None else "content"
        result.append(("split", "none", f"a new split by {by} has nothing on both sides"))
    meant = class_names.without(found.of_rows(source.labels), none, bool(class_names.spellings(labels)))
    counts = Counter(label for label in meant if label is not None)  # with the settings suggested above
    if counts:
        fewest = min(counts.values())
        few = max(1, min(32, 2 ** (max(1, int(0.8 * fewest)).bit_length() - 1)))
        result.append(
            ("per_class", str(few), f"the smallest class has {fewest} images, a fifth of them for the test")
        )
    return result
