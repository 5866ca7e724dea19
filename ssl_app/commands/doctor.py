"""Look at a set of images before anything is trained: all that is wrong with it, and what to type.

DATA is what --data takes. Every image is decoded once. Nothing is trained, and nothing is written but for --page and
--clean. Exact copies are equal pixel by pixel; near copies look the same (size, compression, brightness). With --init
near copies are looked for by a network's features too, mirrored and turned ones among them: each image is read
eight times by the network, and kept with its features in OUT/cache.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ssl_app import config
from ssl_app.commands.base import TEST_FRACTION, cache_of, columns_of, typed_flags
from ssl_app.config import option
from ssl_app.errors import Mistakes, SettingsError, SeveralErrors, UserError
from ssl_app.runs import OUT, Result, write_bytes
from ssl_app.settings import DataSettings, PixelSettings

if TYPE_CHECKING:
    from ssl_app.data.against import Shared
    from ssl_app.data.checkup import ByFeatures, Checkup, Finding

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app doctor scans/
ssl-app doctor all.csv --group patient --page doctor.html --clean clean.csv
ssl-app doctor scans/ --against labeled.csv --json
ssl-app doctor scans/ --init my-run --page doctor.html
"""
SHOWN = 8  # sizes, classes and endings in the table
PAIRS = 1000  # in the JSON
KINDS = (".html", ".htm")


@dataclass(frozen=True)
class Settings(PixelSettings, DataSettings):
    """What to look at."""

    data: str | None = option(None, "set of images, as --data takes it", argument=True, path="any", names=("digits",))
    against: str | None = option(
        None, "another set: copies and groups that are in both", metavar="D", path="any", names=("digits",)
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of DATA's own labels", metavar="FILE", path="file"
    )
    init: str | None = option(
        None, "run or checkpoint, by whose features near copies are looked for too", metavar="RUN|FILE", path="file"
    )
    out: Path = option(OUT, "folder of runs and of the cache, for --init", metavar="DIR")
    per_class: int | None = option(None, "labeled images of each class that a finetune is to have", at_least=1)
    page: Path | None = option(None, "write a page with the pairs side by side", metavar="FILE.html")
    clean: Path | None = option(
        None, "write a manifest without extra copies and unreadable files, for --data", metavar="FILE.csv"
    )


def run(settings: Settings) -> Result:
    """Look, print the table on stdout, write page and manifest. Raises DataError for a set to hold against."""
    from ssl_app.data.against import shared
    from ssl_app.data.checkup import TOO_FEW
    from ssl_app.data.cleaning import write_cleaned

    started = time.monotonic()
    _refuse_endings(settings)
    try:
        found = _examined(settings, str(settings.data), settings.labels)
    except UserError as error:
        return _unopened(settings, error, started)
    if settings.init is not None:
        found = replace(found, by_features=_by_features(settings, settings.init, found))
    other = None if settings.against is None else shared(found, _examined(settings, settings.against))
    findings = [*found.findings, *([] if other is None else other.findings())]
    suggested = _suggested(found)
    sentences = [(one.notice.sentence(config.flag), one.refused) for one in findings]
    cleaned = None if settings.clean is None else write_cleaned(settings.clean, found)
    typed = [typed for typed, _ in suggested]
    following = _next(settings, typed, cleaned is not None, fitting=not found.label_findings)
    if any(one.kind == TOO_FEW for one in findings):
        following = ""  # it would be refused
    _print(found, sentences, suggested, following)
    if cleaned is not None:
        print(f"cleaned: {cleaned.sentence()}")
    if settings.page is not None:
        _write_page(settings.page, found, other, (sentences, suggested, following))
        print(f"page: {settings.page}")
    more = _facts(found, findings, other) | {"suggested": dict(suggested), "next": following}
    more |= {} if settings.clean is None else {"clean": str(settings.clean)}
    more |= {} if settings.page is None else {"page": str(settings.page)}
    return Result("doctor", Path(str(settings.data)), time.monotonic() - started, config.as_json(settings), more)


def _refuse_endings(settings: Settings) -> None:
    """Raise SettingsError for a page or a manifest that no browser and no --data would take for one."""
    if settings.page is not None and settings.page.suffix.lower() not in KINDS:
        raise SettingsError(f"--page {settings.page} is no HTML file; type --page {settings.page}.html")
    if settings.clean is not None and settings.clean.suffix.lower() != ".csv":
        raise SettingsError(f"--clean {settings.clean} is no CSV file; type --clean {settings.clean}.csv")


def _examined(settings: Settings, data: str, labels: Path | None = None) -> "Checkup":
    """Every image of a set, looked at. Raises UserError where it cannot be opened."""
    from ssl_app.data.checkup import Finding, examine
    from ssl_app.data.intensity import checked
    from ssl_app.data.label_tables import relabel
    from ssl_app.data.packing import counted
    from ssl_app.data.sources.base import UNUSED, open_source
    from ssl_app.data.spec import PixelSpec

    columns, unfit = columns_of(settings), Mistakes()
    if labels is None:
        source = open_source(data, columns, settings.max_image_mb)
    else:
        source = open_source(data, replace(columns, label=UNUSED), settings.max_image_mb)
        with unfit.collected():  # of the images there is something to say all the same
            relabel(source, labels, columns)
    intensity = checked(settings.intensity or "range")
    pixels = PixelSpec(64, settings.channels, intensity, None, settings.nodata, settings.fit or "crop")
    found = examine(source, pixels, lambda items, total: counted(items, total, progress=True, what="looking"))
    return replace(
        found,
        label_findings=tuple(Finding("labels", error.notice, 1, refused=True) for error in unfit.errors),
        per_class=settings.per_class,
        max_unreadable=settings.max_unreadable,
        allow_leak=bool(settings.allow_leak),
        test_fraction=settings.test_fraction or TEST_FRACTION,
        split_seed=settings.split_seed or 0,
        unlabeled=settings.unlabeled,
    )


def _by_features(settings: Settings, init: str, found: "Checkup") -> "ByFeatures | None":
    """Pairs that a network takes for near copies; a warning and None where it cannot read the set.

    Raises RunError and CheckpointError where there is no such network.
    """
    import numpy as np

    from ssl_app.clustering.near_copies import near_copies
    from ssl_app.data.checkup import ByFeatures
    from ssl_app.data.loading import every_row
    from ssl_app.data.packing import pack
    from ssl_app.models.backbones import Backbone
    from ssl_app.training.frozen import TURNS, FrozenBackbone
    from ssl_app.transfer.loaded import load_file, load_run

    network = load_file(Path(init)) if Path(init).is_file() else load_run(init, settings.out)
    backbone, source, size = network.backbones[0], found.source, network.pixels.size
    assert isinstance(backbone, Backbone)
    try:
        packed = pack(source, network.pixels, cache_of(settings.out), max_unreadable=len(source.keys), progress=True)
        rows = every_row(packed.images, network.scaling, size, source.name, source.value_units)
    except UserError as error:
        logger.warning(
            error.notice.prefixed(f"warning: near copies by features of {network.name} are not looked for: ")
        )
        return None
    first = np.sort(np.unique(packed.content, return_index=True)[1])  # exact copies are known
    here = np.searchsorted(found.rows, packed.rows[first])  # (n,) their places in the check-up
    frozen = FrozenBackbone(backbone, network.hardware, cache_of(settings.out))
    logger.info(f"near copies by the features of {network.name}: {len(first):,} images, under {TURNS} turns")
    near = near_copies(frozen.features([None], rows.at(first), packed.key, turn)[None] for turn in range(TURNS))
    known = {(int(i), int(j)) for i, j in found.near[0]}
    new = np.array([(int(here[i]), int(here[j])) not in known for i, j in near.pairs], bool)
    return ByFeatures(network.name, here[near.pairs[new]], near.ratio[new], near.turns[new])


def _unopened(settings: Settings, error: UserError, started: float) -> Result:
    """A set that cannot be opened at all: why, all reasons together."""
    errors = error.errors if isinstance(error, SeveralErrors) else (error,)
    sentences = [one.sentence(config.flag) for one in errors]
    print(f"{settings.data} cannot be opened")
    _print_part("found", [f"refused  {sentence}" for sentence in sentences])
    found = [{"kind": "unopened", "sentence": one, "count": 1, "refused": True} for one in sentences]
    seconds = time.monotonic() - started
    return Result("doctor", Path(str(settings.data)), seconds, config.as_json(settings), {"findings": found})


def _suggested(found: "Checkup") -> list[tuple[str, str]]:
    """Flags with their values, and the reason of each."""
    from ssl_app.data.checkup import suggestions

    return [
        (f"{config.flag(name)} {quote(value)}" if value else config.flag(name), why)
        for name, value, why in suggestions(found)
    ]


def _next(settings: Settings, flags: Sequence[str], cleaned: bool, fitting: bool = True) -> str:
    """The pretraining to type: with the columns given and the settings suggested, but those of stage two."""
    suggested_too = {one.split()[0] for one in flags}
    given = typed_flags(settings, GIVEN)
    if cleaned:  # the manifest has columns of these names, and what was left out is not in it
        kept = {name: value for name, value in given.items() if name in OF_PIXELS}
        given = {"data": str(settings.clean), **kept}
        flags = [one for one in flags if one.split()[0] not in CLEANED]
    given = {name: value for name, value in given.items() if config.flag(name) not in suggested_too}
    if settings.labels is not None and not cleaned and fitting:  # which are of stage two, with all that is about them
        about = [one for one in flags if one.split()[0] in OF_LABELS]
        flags = [one for one in flags if one not in about]
        about += [_flag(name, given.pop(name)) for name in ("unlabeled", "one_spelling") if name in given]
        if "label" in given:
            about.insert(0, _flag("label", given.pop("label")))
        labels = " ".join(["--labels", quote(str(settings.labels)), *about])
        then = f", then ssl-app finetune {labels}"
    else:
        then = ""
    typed = " ".join(_flag(name, value) for name, value in given.items())
    suggested = " ".join(one for one in flags if not one.startswith("--per-class"))
    data = "" if cleaned else f"--data {quote(str(settings.data))}"
    return " ".join(part for part in ("ssl-app pretrain", data, typed, suggested) if part) + then


def _flag(name: str, value: str | None) -> str:
    return config.flag(name) if value is None else f"{config.flag(name)} {quote(value)}"


OF_PIXELS = ("image_size", "channels", "intensity", "fit", "nodata")
GIVEN = (
    "label", "group", "split", "axis", "test_fraction", "split_seed", "max_unreadable", "allow_leak", "max_image_mb",
    *OF_PIXELS,
)  # fmt: skip
OF_LABELS = ("--per-class", "--unlabeled", "--one-spelling")
CLEANED = ("--split", "--unlabeled", "--one-spelling", "--max-unreadable", "--group")


def _print(
    found: "Checkup", sentences: Sequence[tuple[str, bool]], suggested: Sequence[tuple[str, str]], following: str
) -> None:
    """The table."""
    source = found.source
    rows = [
        ("images", f"{len(found.rows)}, and {len(found.unreadable)} that cannot be read"),
        ("formats", _counted(found.formats)),
        ("sizes", _counted({f"{width}x{height}": n for (height, width), n in found.sizes.most_common()})),
        ("depths", _counted(found.depths)),
        ("channels", _counted(found.channels) + (f"; {found.gray} of three equal ones" if found.gray else "")),
        ("classes", _counted(found.class_counts, smallest=True)),
    ]
    if source.groups is not None:
        rows.append(("groups", f"{len(set(source.groups) - {None})} by {source.columns.group}"))
    if source.splits is not None:
        marks = [mark or "train" for mark in source.splits]
        rows.append(("split", _counted({mark: marks.count(mark) for mark in dict.fromkeys(marks)})))
    print(source.name)
    for name, words in rows:
        if words:
            print(f"  {name:<9} {words}")
    _print_part("found", [f"{'refused' if refused else 'note':<8} {words}" for words, refused in sentences])
    width = max((len(typed) for typed, _ in suggested), default=0)
    _print_part("suggested settings", [f"{typed:<{width}}  {why}" for typed, why in suggested])
    if following:
        print(f"next: {following}")


def _print_part(title: str, lines: Sequence[str]) -> None:
    print(title if lines else f"{title}: nothing")
    for line in lines:
        print(f"  {line}")


def _counted(counts: Mapping[Any, int], smallest: bool = False) -> str:
    """`normal 1341, virus 1345`, the first few; of classes the smallest too."""
    if len(counts) <= SHOWN:
        return ", ".join(f"{name} {n}" for name, n in counts.items())
    shown = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:SHOWN])
    least = min(counts.items(), key=lambda one: one[1])
    few = f", the smallest {least[0]} {least[1]}" if smallest else ""
    return f"{shown}, and {len(counts) - SHOWN} more{few}"


def _write_page(
    path: Path,
    found: "Checkup",
    other: "Shared | None",
    words: tuple[Sequence[tuple[str, bool]], Sequence[tuple[str, str]], str],
) -> None:
    from ssl_app.report.doctor_page import DoctorReport

    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, DoctorReport(found, other, *words).html().encode("utf-8"))


def _facts(found: "Checkup", findings: Sequence["Finding"], other: "Shared | None") -> dict[str, Any]:
    """What the JSON holds."""
    names = found.keys
    pairs, alike = found.near
    facts: dict[str, Any] = {
        "images": len(names),
        "unreadable": [list(one) for one in found.unreadable],
        "formats": found.formats,
        "sizes": {f"{width}x{height}": n for (height, width), n in found.sizes.most_common()},
        "depths": dict(found.depths),
        "channels": {str(channels): n for channels, n in found.channels.items()},
        "gray": found.gray,
        "classes": found.class_counts,
        "findings": [
            {
                "kind": one.kind,
                "sentence": one.notice.sentence(config.flag),
                "count": one.count,
                "refused": one.refused,
            }
            for one in findings
        ],
        "copies": [[names[i] for i in group] for group in found.copies.groups],
        "near": [
            [names[i], names[j], round(float(close), 4)] for (i, j), close in zip(pairs[:PAIRS], alike, strict=False)
        ],
    }
    if found.by_features is not None:
        near = found.by_features
        facts["near_by_features"] = [
            {"images": [names[i], names[j]], "ratio": round(float(ratio), 4), "turned": bool(turn)}
            for (i, j), ratio, turn in list(zip(near.pairs, near.ratio, near.turns, strict=True))[:PAIRS]
        ]
    if other is not None:
        theirs = other.other.keys
        facts["against"] = {
            "copies": [[names[i], theirs[j]] for i, j in other.copies[:PAIRS]],
            "near": [
                [names[i], theirs[j], round(float(close), 4)]
                for (i, j), close in zip(other.near[:PAIRS], other.alike, strict=False)
            ],
            "groups": other.groups,
        }
    return facts
