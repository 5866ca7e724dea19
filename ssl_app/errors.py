"""What the person at the keyboard is told: what was found, what was expected, what to type.

UserError                 exit code 2, one line, no traceback
├── SettingsError         a flag, a recipe key, a name of a method
├── DataError             images, labels, groups, splits
├── CheckpointError       weights that do not fit, or are not weights
└── RunError              a run folder: missing, unfinished, in the way
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user, told in one line that ends with the cure."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))


class SettingsError(UserError):
    """A flag, a recipe key or a name that does not exist or does not fit."""


class DataError(UserError):
    """Images, labels, groups or splits that cannot be used as they are."""


class CheckpointError(UserError):
    """Weights that do not fit the model, or a file that holds no weights."""


class RunError(UserError):
    """A run folder that is missing, unfinished or in the way."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The near-miss clause of a message: `; did you mean 'rotnet'?`, or all that is known where nothing is near."""
    candidates = sorted(known)
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(candidates)}"
