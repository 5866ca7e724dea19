"""Errors of the user: what was found, what was expected, and how to fix it, as fields.

UserError                 exit code 2, one line, no traceback
├── SettingsError         a setting, a recipe key, a name of a method
├── DataError             images, labels, groups, splits
├── CheckpointError       weights that do not fit, or are not weights
├── RunError              a run folder: missing, unfinished, in the way
└── SeveralErrors         more than one of these, in one line

Below `commands/` nothing knows a flag: an error names settings as the code does (`image_size`), and whoever prints it
says how they are typed (`sentence`). A new sort of fix is a subclass of Fix.
"""

import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote

Flag = Callable[[str], str]  # how a setting is typed: `image_size` -> `--image-size`


def dashed(name: str) -> str:
    """How a setting is typed in a shell: with two dashes, and dashes in place of underscores."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Fix:
    """One way to fix a mistake, in plain words."""

    words: str

    def text(self, flag: Flag) -> str:
        """What to do, as a clause without a capital."""
        return self.words

    def settings_named(self) -> frozenset[str]:
        """Settings of the running verb that it names: to a verb without them it is no fix."""
        return frozenset()


SINGULAR = {"them": "it", "their": "its", "rows": "row"}


def of_count(count: int, words: str) -> Fix:
    """A cure in words for several things, `remove their rows`; of one thing, `remove its row`."""
    return Fix(words if count != 1 else " ".join(SINGULAR.get(word, word) for word in words.split()))


@dataclass(frozen=True)
class Set(Fix):
    """Give settings other values: `Set("image_size", 64)`; several pairs belong together.

    A value of None stands for one to be filled in by the user, shown as the setting's own name in capitals.
    """

    words: str  # name of the setting
    value: object = None
    also: tuple[tuple[str, object], ...] = ()

    def text(self, flag: Flag) -> str:
        """Type flags with their values."""
        pairs = ((self.words, self.value), *self.also)
        typed = [f"{flag(name)} {name.upper() if value is None else value}" for name, value in pairs]
        return f"type {' '.join(typed)}"

    def settings_named(self) -> frozenset[str]:
        """All of the pairs."""
        return frozenset([self.words, *(name for name, _ in self.also)])


@dataclass(frozen=True)
class Switch(Fix):
    """Turn a setting on that takes no value: `Switch("affine")`."""

    def text(self, flag: Flag) -> str:
        """Type the flag alone."""
        return f"type {flag(self.words)}"

    def settings_named(self) -> frozenset[str]:
        """The one."""
        return frozenset([self.words])


@dataclass(frozen=True)
class Change(Fix):
    """Give a setting another value of some kind: `Change("lr", "a smaller")`."""

    words: str
    which: str = "another"

    def text(self, flag: Flag) -> str:
        """Type another value for the flag."""
        return f"type {self.which} {flag(self.words)}"

    def settings_named(self) -> frozenset[str]:
        """The one."""
        return frozenset([self.words])


@dataclass(frozen=True)
class Unset(Fix):
    """Do not give a setting."""

    def text(self, flag: Flag) -> str:
        """Leave the flag out."""
        return f"leave {flag(self.words)} out"

    def settings_named(self) -> frozenset[str]:
        """The one."""
        return frozenset([self.words])


@dataclass(frozen=True)
class Run(Fix):
    """Run another verb: `Run("pretrain", (("resume", "my-run"),))`."""

    words: str  # the verb, with what follows it by position
    settings: tuple[tuple[str, object], ...] = ()

    def text(self, flag: Flag) -> str:
        """Type another command, with dashes wherever it is shown: it is typed in a shell."""
        return f"type {self.command(dashed)}"

    def command(self, flag: Flag) -> str:
        """The command alone."""
        typed = [
            flag(f"no_{name}")
            if value is False
            else flag(name)
            if value is None or value is True
            else f"{flag(name)} {quote(listed(value))}"
            for name, value in self.settings
        ]
        return " ".join(["ssl-app", self.words, *typed])


def listed(value: object) -> str:
    """A setting's value as it is typed: several with commas between."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


@dataclass(frozen=True)
class Notice:
    """Something the user should know: what was found, what was expected, and ways to fix it, the best one first.

    May be given to a logger as it is; the console prints its sentence.
    """

    found: str
    expected: str | None = None
    fixes: tuple[Fix, ...] = ()

    def sentence(self, flag: Flag) -> str:
        """One line: `found; expected E; type --a 1, or leave --b out`."""
        parts = [self.found]
        if self.expected:
            parts.append(f"expected {self.expected}")
        known: frozenset[str] | None = getattr(flag, "known", None)
        fixes = [fix for fix in self.fixes if known is None or fix.settings_named() <= known]
        if fixes:
            clauses = [fix.text(flag) for fix in fixes]
            further = [f", or {_again(clause, before)}" for before, clause in itertools.pairwise(clauses)]
            parts.append(clauses[0] + "".join(further))
        return "; ".join(parts)

    def prefixed(self, words: str) -> "Notice":
        """The same with words before it."""
        return Notice(words + self.found, self.expected, self.fixes)

    def __str__(self) -> str:
        return self.sentence(lambda name: name)


class UserError(Exception):
    """A mistake of the user, as a notice; `beside` is what else should be known of the same thing."""

    beside: tuple[Notice, ...] = ()

    def __init__(self, found: str, *, expected: str | None = None, fix: Fix | Iterable[Fix] = ()) -> None:
        self.notice = Notice(" ".join(found.split()), expected, (fix,) if isinstance(fix, Fix) else tuple(fix))
        super().__init__(found)

    @property
    def found(self) -> str:
        """What was found."""
        return self.notice.found

    @property
    def expected(self) -> str | None:
        """What was expected."""
        return self.notice.expected

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """Ways to fix it."""
        return self.notice.fixes

    def sentence(self, flag: Flag) -> str:
        """The notice in one line."""
        return self.notice.sentence(flag)

    def __str__(self) -> str:
        return str(self.notice)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.notice, self.__dict__)


def _again(clause: str, before: str) -> str:
    """A further clause, without its verb where that is the one of the clause before."""
    if clause.startswith("type ssl-app") or not before.startswith("type "):
        return clause
    return clause.removeprefix("type ")


def _rebuild(kind: type[UserError], notice: Notice, held: dict[str, object]) -> UserError:
    """An error as it was in another process."""
    error = kind.__new__(kind)
    UserError.__init__(error, notice.found, expected=notice.expected, fix=notice.fixes)
    error.__dict__.update(held)
    return error


class SettingsError(UserError):
    """A setting, a recipe key or a name that does not exist or does not fit."""


class DataError(UserError):
    """Images, labels, groups or splits that cannot be used as they are."""


class CheckpointError(UserError):
    """Weights that do not fit the model, or a file that holds no weights."""


class RunError(UserError):
    """A run folder that is missing, unfinished or in the way."""


class SeveralErrors(UserError):
    """Several mistakes, shown together so that one more try is enough."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__(f"{len(self.errors)} mistakes")

    def sentence(self, flag: Flag) -> str:
        """All of them in one line, numbered."""
        each = [f"({number}) {error.sentence(flag)}" for number, error in enumerate(self.errors, start=1)]
        return f"{self.found}: {' '.join(each)}"


def together(errors: Iterable[UserError]) -> UserError:
    """Several mistakes as one error, or the only one as it is."""
    mistakes = Mistakes()
    for error in errors:
        with mistakes.collected():
            raise error
    return mistakes.errors[0] if len(mistakes.errors) == 1 else SeveralErrors(mistakes.errors)


class Mistakes:
    """Collects mistakes that do not depend on each other, to refuse all of them at once."""

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a mistake of the block, and go on."""
        try:
            yield
        except SeveralErrors as error:
            self.errors += error.errors
        except UserError as error:
            self.errors.append(error)

    def refuse(self) -> None:
        """Raise what was collected, if anything: one error as it is."""
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else SeveralErrors(self.errors)


def count_of(count: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The near-miss clause of a message: `; did you mean 'rotnet'?`, or all that is known where nothing is near."""
    candidates = sorted(known)
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(candidates)}"
