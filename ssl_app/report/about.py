"""What every report ends with: the data, the settings, the machine."""

from collections.abc import Mapping
from typing import Any

from ssl_app.report.blocks import (
    Column,
    Section,
    bullets,
    command,
    count,
    facts,
    folded,
    heading,
    lasted,
    paragraph,
    plain,
    section,
    table,
    when,
)
from ssl_app.report.markup import Markup, join
from ssl_app.report.run_facts import RunFacts

MOST_FILES = 20  # unreadable ones that are named
MOST_CLASSES = 60  # that are shown without a click


def data_section(facts_of: RunFacts, overlap: Mapping[str, str | None]) -> Section | None:
    """Images, classes and parts, what was left out, hashes. `overlap` is what pretrainings saw of the test part."""
    data = facts_of.data
    unreadable = (facts_of.result or {}).get("unreadable") or (data or {}).get("unreadable") or []
    if data is None:
        missing = paragraph("This run was made before its data were summarized in its folder.", quiet=True)
        return section("data", "Data", missing, _overlap(overlap), _unreadable(unreadable))
    height, width, channels = data["pixels"]["shape"]
    pairs = [
        ("data", data["name"]),
        ("images", f"{data['images']:,}"),
        ("decoded to", f"{width} × {height} px, {count(channels, 'channel')}, {data['pixels']['dtype']}"),
        ("network sees", f"{data['image_size']} × {data['image_size']} px"),
        ("split", data["split"]),
        ("groups", _groups(data)),
        ("exact copies", f"{data['copies']:,}"),
        ("hash of the data", data["hash"]),
    ]
    return section(
        "data", "Data", facts(pairs), _parts(data), _overlap(overlap), bullets(data["notes"]), _unreadable(unreadable)
    )


def _groups(data: Mapping[str, Any]) -> str:
    if data["groups"] is None:
        return "none given: each image stands for itself"
    return f"{data['groups']:,} of column {data['group']}, never on both sides of the split"


def _parts(data: Mapping[str, Any]) -> Markup:
    """Images of each class in each part."""
    parts = data["parts"]
    columns = [Column("class", number=False), *(Column(f"{name}, images") for name in parts)]
    rows: list[list[object]] = [
        [name, *(f"{one['per_class'][k]:,}" for one in parts.values())] for k, name in enumerate(data["classes"])
    ]
    if any(one["unlabeled"] for one in parts.values()):
        rows.append(["without a label", *(f"{one['unlabeled']:,}" for one in parts.values())])
    ends: list[list[object]] = [
        ["all", *(f"{one['n']:,}" for one in parts.values())],
        ["hash of the images", *(one["hash"] for one in parts.values())],
    ]
    if len(rows) > MOST_CLASSES:
        return join([table(columns, ends), folded(f"All {len(rows)} classes", table(columns, rows))])
    return table(columns, [*rows, *ends])


def _overlap(overlap: Mapping[str, str | None]) -> Markup:
    """What each pretraining saw of the test part."""
    if not overlap:
        return Markup("")
    lines = [f"{name}: {found or 'no test image was seen in pretraining'}" for name, found in overlap.items()]
    return join([heading("Test images seen in training or pretraining"), bullets(lines)])


def _unreadable(found: list[Any]) -> Markup:
    if not found:
        return Markup("")
    lines = [f"{path}: {reason}" for path, reason in found[:MOST_FILES]]
    rest = [f"and {len(found) - MOST_FILES:,} more"] if len(found) > MOST_FILES else []
    return join([heading(f"{count(len(found), 'file')} could not be read and left out"), bullets([*lines, *rest])])


def settings_section(facts_of: RunFacts, typed: str, changed: Mapping[str, Any]) -> Section | None:
    """The command, the settings that are not left to their defaults, and on demand all of them."""
    own = dict(facts_of.settings)
    further = {name: own.pop(name) for name in ("method_settings", "strategy_settings") if own.get(name)}
    every = own | {name: value for several in further.values() for name, value in several.items()}
    columns = [Column("setting", number=False), Column("value", number=False)]

    def rows(held: Mapping[str, Any]) -> list[list[object]]:
        return [[name.replace("_", " "), plain(value)] for name, value in sorted(held.items())]

    return section(
        "settings",
        "Settings",
        paragraph("To run it again, type"),
        command(typed),
        table(columns, rows(changed)),
        folded(f"All {len(every)} settings", table(columns, rows(every))),
    )


def machine_section(facts_of: RunFacts, times: Mapping[str, float | None]) -> Section | None:
    """Time, hardware and software. `times` are seconds, by what took them."""
    machine = facts_of.machine or {}
    memory = machine.get("memory")
    packages = machine.get("packages", {})
    pairs = [
        ("started", when(facts_of.started) if facts_of.started else None),
        *((name, None if seconds is None else lasted(seconds)) for name, seconds in times.items()),
        ("arithmetic", machine.get("arithmetic")),
        ("processor", machine.get("processor")),
        ("cores", machine.get("cores")),
        ("GPU", machine.get("gpu")),
        ("memory", f"{memory / 2**30:.0f} GiB" if memory else None),
        ("system", machine.get("system")),
        ("Python", machine.get("python")),
        *packages.items(),
    ]
    return section("machine", "Time, hardware, software", facts(pairs))
