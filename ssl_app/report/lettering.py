"""Lettering of pictures: the fonts of this machine that have the letters of a name, in any script."""

import logging
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager

logger = logging.getLogger(__name__)

USUAL = "DejaVu Sans"  # which comes with matplotlib
PLACEHOLDERS = "Last Resort"  # a font of boxes for all letters that there are
ABSENT = "□"  # in the place of a letter that no font has


def drawn(text: str) -> str:
    """A text in letters that can be drawn; a box for each that no font of this machine has. One line."""
    return "".join(letter if has_font(letter) else ABSENT for letter in " ".join(text.split()))


def class_captions(names: Sequence[str]) -> list[str]:
    """Names of classes as they are drawn: `class 3` for one that no font of this machine can write, with a note."""
    captions = [name if all(map(has_font, name)) else f"class {n}" for n, name in enumerate(names, start=1)]
    replaced = [(caption, name) for caption, name in zip(captions, names, strict=True) if caption != name]
    if replaced:
        listed = ", ".join(f"{caption} is {name}" for caption, name in replaced)
        logger.info(f"note: no font of this machine has the letters of some class names; in the pictures {listed}")
    return captions


def families(text: str) -> list[str]:
    """Font families that have the letters of a text, the usual one first."""
    found = (_family(letter) for letter in text)
    return [USUAL, *dict.fromkeys(family for family in found if family is not None and family != USUAL)]


def has_font(letter: str) -> bool:
    """Whether some font of this machine has a letter."""
    return letter.isspace() or _family(letter) is not None


@cache
def _family(letter: str) -> str | None:
    """The first family with this letter, or None; most letters are in the usual one."""
    code = ord(letter)
    if code in _letters(font_manager.findfont(USUAL)):
        return USUAL
    for entry in font_manager.fontManager.ttflist:
        if not entry.name.startswith(PLACEHOLDERS) and code in _letters(entry.fname):
            return entry.name
    return None


@cache
def _letters(path: str) -> frozenset[int]:
    """The codes that a font file has; none where it cannot be read."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
