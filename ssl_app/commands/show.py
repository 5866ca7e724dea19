"""Show a run: how it ended, the settings that differ from the defaults, the result in short, its files."""

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_app import config, registry, runs
from ssl_app.commands.list import Entry, entry
from ssl_app.config import option
from ssl_app.errors import UserError
from ssl_app.runs import Result

EXAMPLES = """
ssl-app show pretrain-20261121-101500
ssl-app show my-run --json
"""
OWN = {"method_settings": ("pretext", "method"), "strategy_settings": ("transfer.strategies", "strategy")}
SENTENCES = ("verdict", "how", "advice", "sentence", "warning", "warnings")  # sentences of a result, in order
UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Settings:
    """Which run to show."""

    run: str = option("", "a run's name, or its folder", argument=True)
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Print what is known of the run, on stdout. Raises RunError where there is none."""
    began = time.monotonic()
    folder = runs.find_run(settings.out, settings.run)
    about, held = entry(folder), runs.read_json(folder / runs.SETTINGS)
    result = runs.read_result(folder) if runs.finished(folder) else {}
    ended = runs.read_json(folder / runs.ENDED) if (folder / runs.ENDED).is_file() else {}
    changed = differing(about.verb, held.get("settings", {}))
    sentences = _sentences(about, result, ended)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}
    print(_headline(about, folder))
    _print_part(
        "settings that differ from the defaults", [f"{config.flag(k)} {_typed(v)}" for k, v in changed.items()]
    )
    _print_part("result", sentences)
    width = max(map(len, files), default=0)
    _print_part("files", [f"{name:<{width}}  {_size(size):>8}" for name, size in files.items()])
    more = {"state": about.state, "changed": changed, "sentences": sentences, "files": files}
    return Result("show", folder, time.monotonic() - began, config.as_json(settings), more)


def differing(verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run whose value is not the default, of the verb, the method or the strategy; no place or name."""
    defaults: dict[str, Any] = {}
    if verb in registry.names("commands"):
        defaults |= config.as_json(importlib.import_module(f"ssl_app.commands.{verb}").Settings())
    own: dict[str, Any] = {}
    for part, (package, named) in OWN.items():
        own |= given.get(part) or {}
        try:
            found = registry.find(package, str(given[named])) if part in given else None
        except UserError:  # a class of the user's own, which is not to be found from here
            found = None
        if found is not None:
            method = config.as_json(found.defaults) if hasattr(found, "defaults") else {}
            defaults |= {k: v for k, v in method.items() if defaults.get(k) is None} | config.as_json(found.Config())
    plain = {k: v for k, v in given.items() if k not in (*OWN, "out", "name")} | own
    return {name: value for name, value in plain.items() if value != defaults.get(name)}


def _headline(about: Entry, folder: Path) -> str:
    when = f", begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(about.started))}" if about.started else ""
    minutes = "" if about.minutes is None else f", {about.minutes:.1f} minutes"
    return f"{about.verb} {folder}: {about.state}{when}{minutes}"


def _sentences(about: Entry, result: Mapping[str, Any], ended: Mapping[str, Any]) -> list[str]:
    """The figure, and what the result says in words; of a run without a result, why."""
    found = [about.figure] if about.figure else []
    for name in SENTENCES:
        value = result.get(name)
        found += [value] if isinstance(value, str) else [str(line) for line in value or ()]
    reason = ended.get("why")
    return [*found, f"{about.state}: {reason}"] if reason else found


def _files(folder: Path) -> list[Path]:
    """Files of a run; those of a folder in it are not all named."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _print_part(title: str, lines: list[str]) -> None:
    if lines:
        print(title)
        print("\n".join(f"  {line}" for line in lines))


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 10 else f"{size:.1f} {UNITS[unit]}"
