"""Settings: a frozen dataclass is the one list of a verb's flags, its recipe's keys and its JSON."""

import dataclasses
import glob
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from ssl_app.errors import SettingsError, dashed, nearest

T = TypeVar("T")
Values = dict[str, Any]


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    argument: bool = False,
    path: Literal["any", "file"] | None = None,
    names: Sequence[str] = (),
) -> Any:
    """A field of Settings with what its flag needs.

    Fields of type tuple read a comma list, or one value a flag with `repeat`; an `argument`
    is given by position. Bounds are inclusive and stated in the refusal. Where a value is the `path` of something
    that is there, or of a file, and none of `names`, `as_json` makes it absolute.
    """
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "at_least": at_least,
        "at_most": at_most,
        "metavar": metavar,
        "repeat": repeat,
        "argument": argument,
        "path": path,
        "names": tuple(names),
    }
    return dataclasses.field(default=default, metadata=metadata)


class Typed:
    """How a setting is typed, `image_size` -> `--image-size`, and which ones the verb that runs has."""

    known: frozenset[str] | None = None  # None: any

    def __call__(self, name: str) -> str:
        """The flag."""
        return dashed(name)


flag = Typed()


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting, as flags and recipes see it."""

    name: str
    kind: type  # of one item
    many: bool  # a tuple of them
    optional: bool  # None allowed
    default: Any
    help: str
    choices: tuple[str, ...]
    at_least: float | None
    at_most: float | None
    metavar: str | None
    repeat: bool
    argument: bool

    @property
    def flag(self) -> str:
        """How the user types it: `--image-size`."""
        return flag(self.name)

    def parse(self, text: Any, origin: str) -> Any:
        """The typed value of a flag's text or a recipe's value. Raises SettingsError that names `origin`."""
        if self.many:
            items = text if isinstance(text, list | tuple) else str(text).split(",")
            parts = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
            return tuple(self._item(part, origin) for part in parts)
        if self.optional and isinstance(text, str) and text.lower() == "auto" and "auto" not in self.choices:
            return None
        return self._item(text, origin)

    def _is_open(self, value: Any) -> bool:
        """Whether a choice such as `window:LOW,HIGH` stands for the value: any text after the same word."""
        opening = [choice.partition(":")[0] + ":" for choice in self.choices if ":" in choice]
        return any(str(value).startswith(word) for word in opening)

    def _item(self, text: Any, origin: str) -> Any:
        value: Any
        if isinstance(text, str) and not text.strip():
            raise SettingsError(f"{origin} is empty; give it a value, or leave it out")
        try:
            if self.kind in (str, Path) and not isinstance(text, str | Path):
                raise ValueError(text)
            if self.kind is bool:
                if not isinstance(text, bool):
                    raise ValueError(text)
                value = text
            elif self.kind is int:
                if isinstance(text, bool) or (isinstance(text, float) and not text.is_integer()):
                    raise ValueError(text)
                value = int(text)
            else:
                value = self.kind(text.strip() if isinstance(text, str) else text)
                if self.kind is float and (isinstance(text, bool) or not math.isfinite(value)):
                    raise ValueError(text)
        except (ValueError, TypeError, OverflowError) as error:
            what = {int: "a whole number", float: "a finite number", bool: "true or false"}.get(self.kind, "text")
            raise SettingsError(f"{origin} is '{text}'; expected {what}") from error
        if self.choices and value not in self.choices and not self._is_open(value):
            raise SettingsError(f"{origin} is '{value}'{nearest(str(value), self.choices)}")
        if self.at_least is not None and not value >= self.at_least:
            raise SettingsError(f"{origin} is {value}; expected at least {self.at_least}")
        if self.at_most is not None and not value <= self.at_most:
            raise SettingsError(f"{origin} is {value}; expected at most {self.at_most}")
        return value


def fields(settings: type) -> list[Field]:
    """The settings of a dataclass, in order."""
    hints = typing.get_type_hints(settings)
    found = []
    for field in dataclasses.fields(settings):
        kind, many, optional, choices = _unpack(hints[field.name])
        extra = {key: field.metadata.get(key) for key in ("at_least", "at_most", "metavar")}
        found.append(
            Field(
                name=field.name,
                kind=kind,
                many=many,
                optional=optional,
                default=field.default,
                help=field.metadata.get("help", ""),
                choices=tuple(field.metadata.get("choices") or choices),
                repeat=bool(field.metadata.get("repeat")),
                argument=bool(field.metadata.get("argument")),
                **extra,
            )
        )
    return found


def _unpack(hint: Any) -> tuple[type, bool, bool, tuple[str, ...]]:
    """(kind of one item, many, optional, choices) of a type hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kind, many, _, choices = _unpack(next(part for part in arguments if part is not type(None)))
        return kind, many, True, choices
    if origin is tuple:
        kind, _, _, choices = _unpack(arguments[0])
        return kind, True, False, choices
    if origin is Literal:
        return str, False, False, tuple(arguments)
    return hint, False, False, ()


def build(settings: type[T], given: Mapping[str, Any], recipe: Mapping[str, Any]) -> T:
    """Settings from flags, then the recipe, then defaults; unknown recipe keys are the caller's to refuse."""
    values: Values = {}
    for field in fields(settings):
        if given.get(field.name) not in (None, ()):
            value = given[field.name]
            values[field.name] = field.parse(value, field.name.upper() if field.argument else field.flag)
        elif field.name in recipe:
            values[field.name] = field.parse(recipe[field.name], f"key {field.name} of the recipe")
    return settings(**values)


def load_recipe(path: Path, verb: str, verbs: Sequence[str]) -> Values:
    """Keys of a TOML recipe for one verb: those at the top serve every verb, a table [verb] only its own.

    Hyphens and underscores are the same. Raises SettingsError for a missing file or TOML that does not parse.
    """
    if not path.is_file():
        raise SettingsError(f"recipe {path} is not a file; expected a TOML file such as recipes/digits.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"recipe {path} is not valid TOML: {error}") from error
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    for table in tables:
        if table not in verbs:
            raise SettingsError(
                f"recipe {path} has a table [{table}], and no verb is named so{nearest(table, verbs)}"
            )
    top = {key: value for key, value in content.items() if not isinstance(value, dict)}
    values = {key.replace("-", "_"): value for key, value in (top | tables.get(verb, {})).items()}
    home = {key: str(Path(value).expanduser()) for key, value in values.items() if str(value).startswith("~/")}
    return values | home  # as a shell does for flags


def refuse_unknown(recipe: Mapping[str, Any], known: set[str], path: Path) -> None:
    """Raise SettingsError for the first recipe key that no setting has, with the nearest one."""
    for key in recipe:
        if key not in known:
            raise SettingsError(f"recipe {path} has an unknown key '{key}'{nearest(key, known)}")


def as_json(settings: Any) -> Values:
    """A dataclass as plain JSON values; paths become text, and absolute: another working directory reads the same."""
    plain: Values = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    for field in dataclasses.fields(settings):
        kind, value = field.metadata.get("path"), plain[field.name]
        if kind is None or value is None:
            continue
        found = [
            _absolute(one, kind, field.metadata["names"]) for one in (value if isinstance(value, list) else [value])
        ]
        plain[field.name] = found if isinstance(value, list) else found[0]
    return plain


def _absolute(value: str, kind: str, names: Sequence[str]) -> str:
    """The absolute path of what is there, or of a pattern; anything else as it is."""
    path = Path(value)
    there = path.is_file() or (kind == "any" and (path.exists() or (glob.has_magic(value) and path.parent.exists())))
    return str(path.absolute()) if there and value not in names else value


def from_json(settings: type[T], stored: Mapping[str, Any]) -> T:
    """What `as_json` wrote, as a dataclass again."""
    return build(settings, {}, {name: value for name, value in stored.items() if value is not None})
