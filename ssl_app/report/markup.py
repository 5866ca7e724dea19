"""HTML and SVG as text that is safe by its type: whatever is no Markup is escaped where it enters."""

from collections.abc import Iterable
from html import escape

Child = object  # Markup as it is, None as nothing, anything else as text
EMPTY = frozenset({"img", "input"})  # without a closing tag


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(child: Child) -> Markup:
    """One child as HTML. A name that is no valid Unicode, as files may have, is shown with marks in its place."""
    if isinstance(child, Markup):
        return child
    if child is None:
        return Markup("")
    return Markup(escape(str(child).encode("utf-8", "replace").decode("utf-8")))


def join(children: Iterable[Child], between: str = "") -> Markup:
    """Several children, one after the other."""
    return Markup(between.join(text(child) for child in children))


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element. Attributes of None or False are left out, True has no value; `class_` and `data_x` lose their _."""
    shown = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        shown.append(f" {word}" if value is True else f' {word}="{text(value)}"')
    start = f"<{name}{''.join(shown)}>"
    return Markup(start if name in EMPTY else f"{start}{join(children)}</{name}>")
