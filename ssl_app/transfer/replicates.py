"""Replicates: pretrainings that differ in their seed alone, and are pooled in a verdict."""

import logging
import re
from pathlib import Path
from typing import Any

from ssl_app import runs
from ssl_app.errors import Change, Notice, Run, RunError
from ssl_app.training.initialization import Initialization

logger = logging.getLogger(__name__)

# what makes two pretrainings seeds of one; data by content, the method's own settings as one
ALIKE = (
    "method", "method_settings", "data_hash", "exclude", "init", "backbone", "image_size", "channels", "intensity",
    "batch_size", "accumulate", "lr", "optimizer", "weight_decay", "schedule", "warmup", "clip", "augment", "mirror",
    "vertical_flip", "progressive_resizing", "limit",
)  # fmt: skip
PLUS = "+"  # between the names of pretrainings that one initialization is made of
LENGTH = ("epochs", "steps_per_epoch")


def name_of(name: str, seed: int, first: int) -> str:
    """The run of a pretraining's replicate: its own name for the first seed, else `NAME-seed2`."""
    return name if seed == first else f"{name}-seed{seed}"


def first_of(out: Path, name: str) -> str:
    """The run that a replicate belongs to, by its name; itself where it belongs to none."""
    base = re.sub(r"-seed\d+$", "", name)
    if base == name or not runs.finished(out / base):
        return name
    settings = runs.read_json(out / base / runs.SETTINGS)["settings"]
    first, count = settings.get("seed", 0), settings.get("seeds") or 1
    return base if name in [name_of(base, seed, first) for seed in range(first, first + count)] else name


def parts_of(out: Path, name: str) -> list[str]:
    """The runs that `A+B` names; what lies there under the whole name is one. Raises RunError."""
    if PLUS not in name or Path(name).exists() or (out / name).exists():
        return [name]
    parts = name.split(PLUS)
    if "" in parts:
        raise RunError(f"'{name}' names no run on one side of a plus", expected="A+B", fix=Change("init"))
    return parts


def with_replicates(out: Path, name: str) -> list[str]:
    """A run and its finished replicates, where it was made with several seeds; anything else as it is.

    Of `A+B` the first seed of both, the second of both, and so on.
    """
    parts = parts_of(out, name)
    if len(parts) > 1:
        each = [with_replicates(out, part) for part in parts]
        if len({len(one) for one in each}) > 1:
            counts = ", ".join(f"{one[0]}: {len(one)}" for one in each)
            logger.info(f"init: as many seeds of {name} as all of them have ({counts})")
        return [PLUS.join(several) for several in zip(*each, strict=False)]
    folder = next((path for path in (Path(name), out / name) if (path / runs.SETTINGS).is_file()), None)
    if folder is None:
        return [name]
    settings = runs.read_json(folder / runs.SETTINGS)["settings"]
    first, count = settings.get("seed", 0), settings.get("seeds") or 1
    beside = [name_of(folder.name, seed, first) for seed in range(first + 1, first + count)]
    missing = [one for one in beside if not runs.finished(folder.parent / one)]
    if missing:
        found = f"{folder.name} is one of {count} seeds, of which {len(missing)} have not finished and are left out"
        logger.info(Notice(found, None, (Run("pretrain", (("resume", folder.name),)),)))
    finished = [one for one in beside if one not in missing]
    return [name, *(str(folder.parent / one) if Path(name).parent != Path(".") else one for one in finished)]


def why_apart(start: Initialization, taken: list[Initialization]) -> str | None:
    """Why a pretraining is no replicate, with another seed, of those in the verdict; None where it is one."""
    first = taken[0]
    if len(start.members) != len(first.members):
        return f"of {max(1, len(start.members))} pretrainings, not {max(1, len(first.members))}"
    for number, member in enumerate(start.members):
        reason = why_apart(member, [one.members[number] for one in taken])
        if reason is not None:
            return reason
    if not start.settings:
        return "no pretraining of ssl-app"
    if not first.settings:
        return f"{first.name}, named first, is no pretraining of ssl-app"
    twin = next((other.name for other in taken if other.content == start.content), None)
    if twin is not None:
        return f"the same weights as {twin}"
    ours, theirs = start.settings, first.settings
    if ours.get("method") != theirs.get("method"):  # whose other settings are its own
        return f"other settings: {_unlike('method', ours.get('method'), theirs.get('method'))}"
    length: tuple[str, ...] = ()
    if any(ours.get(key) != theirs.get(key) for key in LENGTH):  # what fits a time differs from run to run
        length = LENGTH if ours.get("budget") is None else ("budget",)
    unlike = [
        _unlike(key, ours.get(key), theirs.get(key)) for key in (*ALIKE, *length) if ours.get(key) != theirs.get(key)
    ]
    return f"other settings: {', '.join(unlike)}" if unlike else None


def _unlike(key: str, ours: Any, theirs: Any) -> str:
    if key == "data_hash":
        return "other data"
    if key == "method_settings" and isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
        return ", ".join(_unlike(name, ours.get(name), theirs.get(name)) for name in keys)
    shown = ["the default" if value is None else str(value) for value in (ours, theirs)]
    return f"{key.replace('_', ' ')} {shown[0]}, not {shown[1]}"
