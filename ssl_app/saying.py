"""Where sentences for people go: stderr, so that stdout holds results only."""

import sys
from collections.abc import Callable


def to_stderr(sentence: str) -> None:
    """Print one line on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says a sentence the first time, and leaves it out after."""
    said: set[str] = set()

    def say_if_new(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    return say_if_new
