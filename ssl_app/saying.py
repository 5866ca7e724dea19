"""Where sentences for people go: stderr, so that stdout holds results only."""

import sys


def to_stderr(sentence: str) -> None:
    """Print one line on stderr."""
    print(sentence, file=sys.stderr, flush=True)
