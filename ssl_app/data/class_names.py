"""Names of classes that may not be what was meant: two spellings of one, and words that stand for no label."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ssl_app.errors import Notice, Set, Switch

SHOWN = 3  # named in a sentence
# of tables and of folders, in the languages that data sets are seen in
NO_LABEL = frozenset(
    {
        "unknown", "unk", "unkn", "n/a", "na", "n.a.", "nan", "none", "null", "nil", "?", "??", "???", "-", "--", ".",
        "tbd", "todo", "to do", "undefined", "undetermined", "unlabeled", "not labeled", "no label", "unannotated",
        "not annotated", "unassigned", "unclassified", "uncategorized", "unsorted", "missing", "empty",
        "#n/a", "<na>", "not available", "not known", "inconnu", "unbekannt", "k.a.", "desconocido", "sconosciuto",
    }
)  # fmt: skip
INVISIBLE = ("Cc", "Cf")  # of Unicode's categories: a mark of order, a joiner, a soft hyphen


def plain(name: str) -> str:
    """A name without what people do not see or mean: case, form of its accents, blanks, `_` and `-` between words.

    Of `1.0`, as a table with empty cells is saved, the `.0` too.
    """
    seen = "".join(
        " " if letter.isspace() else letter
        for letter in unicodedata.normalize("NFKC", name)
        if letter.isspace() or unicodedata.category(letter) not in INVISIBLE
    )
    seen = re.sub(r"(-?\d+)\.0+", r"\1", seen) if re.fullmatch(r"\s*-?\d+\.0+\s*", seen) else seen
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", unicodedata.normalize("NFKC", seen.casefold())).strip()


def spellings(labels: Iterable[str | None]) -> list[list[str]]:
    """Names that are one when written plainly, two or more each; of each the most frequent first."""
    counts = Counter(label for label in labels if label is not None)
    alike: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name != unicodedata.normalize("NFC", name), name)):
        alike.setdefault(plain(name), []).append(name)
    return sorted(names for names in alike.values() if len(names) > 1)


def standing_for_none(labels: Iterable[str | None]) -> Counter[str]:
    """Labels that say that there is none, with how many images have each."""
    counts = Counter(label for label in labels if label is not None)
    return Counter({name: count for name, count in counts.items() if _says_none(name)})


def notices(labels: Sequence[str | None]) -> list[Notice]:
    """What is to be said of these labels."""
    found = []
    if several := spellings(labels):
        pairs = ", ".join(" and ".join(shown_apart(names)) for names in several[:SHOWN])
        more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
        what = "1 class has" if len(several) == 1 else f"{len(several)} classes have"
        found.append(Notice(f"{what} several spellings: {pairs}{more}", fixes=(Switch("one_spelling"),)))
    if none := standing_for_none(labels):
        shown = ", ".join(f"{name!r} of {count}" for name, count in sorted(none.items()))
        named = ",".join(f"'{name}'" for name in sorted(none))
        is_taken = "1 label is taken for a class" if len(none) == 1 else f"{len(none)} labels are taken for classes"
        found.append(Notice(f"{is_taken}, and may mean none: {shown} images", fixes=(Set("unlabeled", named),)))
    return found


def without(labels: Sequence[str | None], unlabeled: Iterable[str], one_spelling: bool) -> tuple[str | None, ...]:
    """The labels, with none for those that stand for none, and each class in its most frequent spelling."""
    none = {plain(name) for name in unlabeled} | set(unlabeled)
    kept = [None if label is None or label in none or plain(label) in none else label for label in labels]
    if not one_spelling:
        return tuple(kept)
    best = {name: names[0] for names in spellings(kept) for name in names}
    return tuple(None if label is None else best.get(label, label) for label in kept)


def shown_apart(names: Sequence[str]) -> list[str]:
    """The names, quoted; in ASCII where two of them look alike."""
    looks = {unicodedata.normalize("NFC", name) for name in names if name.isprintable()}
    return [repr(name) if len(looks) == len(names) else ascii(name) for name in names]


def _says_none(name: str) -> bool:
    stripped = name.strip().casefold()
    return stripped in NO_LABEL or plain(name) in NO_LABEL or not plain(name)
