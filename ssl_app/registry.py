"""Names are files: the method `sela` is `ssl_app/pretext/sela.py`; nothing is imported to list them."""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ssl_app.errors import SettingsError, nearest

ROOT = Path(__file__).parent


def names(package: str) -> list[str]:
    """Public names of a package's entries, sorted: names("pretext") -> ["rotnet", ...]."""
    folder = ROOT / package.replace(".", "/")
    files = [path.stem for path in folder.glob("*.py")]
    return sorted(stem.replace("_", "-") for stem in files if stem != "base" and not stem.startswith("_"))


def describe(package: str, name: str) -> str:
    """First line of the entry's docstring, read without importing it."""
    return _document(package, name).partition("\n")[0]


def meant(package: str, word: str) -> str:
    """The near-miss clause for a name that is none: an entry whose docstring knows the word, else the nearest name.

    `contrastive` and `NT-Xent` find simclr, `LP-FT` finds two-stage.
    """
    plain = _plain(word)
    entries = names(package)
    knowing = [name for name in entries if len(plain) > 2 and plain in _plain(_document(package, name))]
    return f"; did you mean '{knowing[0]}'?" if knowing else nearest(word, entries)


def _document(package: str, name: str) -> str:
    path = ROOT / package.replace(".", "/") / f"{name.replace('-', '_')}.py"
    text = path.read_text(encoding="utf-8")
    if text.startswith('"""'):  # for --help, which reads them all: a tenth of the time of parsing
        return text.split('"""', 2)[1].strip()
    return ast.get_docstring(ast.parse(text)) or ""


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def find(package: str, name: str) -> Any:
    """The class behind a name: the one spelled like its file, whatever the case and the hyphens.

    `my_package.my_module:MyClass` names a class of the user's own. Raises SettingsError
    with the nearest known name where there is none.
    """
    if ":" in name:
        return find_object(name)
    stem = name.replace("-", "_")
    if name.replace("_", "-") not in names(package):
        kinds = {"pretext": "method", "transfer.strategies": "strategy", "report.pictures": "picture"}
        kind = kinds.get(package, package)
        raise SettingsError(f"no {kind} is named '{name}'{meant(package, name)}")
    module = importlib.import_module(f"ssl_app.{package}.{stem}")
    for attribute in vars(module).values():
        if isinstance(attribute, type) and attribute.__name__.lower() == stem.replace("_", ""):
            return attribute
    wanted = "".join(part.capitalize() for part in stem.split("_"))
    held = [
        one.__name__ for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__
    ]
    raise SettingsError(
        f"{module.__name__} holds {', '.join(held) or 'no class'}", expected=f"a class {wanted}, in any case"
    )


def find_object(path: str) -> Any:
    """The object at `module:attribute`. Raises SettingsError that says which half is missing."""
    module_name, _, attribute = path.partition(":")
    if str(Path.cwd()) not in sys.path:  # a console script, unlike python -m, does not look where the user stands
        sys.path.insert(0, str(Path.cwd()))
    if not module_name or not attribute:
        raise SettingsError(f"'{path}' names no object; expected module:name, such as my_package.my_module:MyClass")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"'{path}' cannot be imported ({error}); expected module:name, importable from here"
        ) from error
    except Exception as error:  # the user's own code, which raises anything
        raise SettingsError(
            f"'{path}' cannot be imported: {module_name} raises {type(error).__name__} ({error}); fix it"
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise SettingsError(f"module '{module_name}' has no '{attribute}'{nearest(attribute, public)}")
    return getattr(module, attribute)
