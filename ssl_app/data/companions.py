"""Pictures that belong to other pictures, by their names: masks and thumbnails.

`x_mask.png` beside `x.png`, `masks/x.png` beside `images/x.png` or below the folder of `x.png`. A name alone decides
nothing: a picture is a companion only where the one that it belongs to is there. A short word such as `gt` or `tn` is
as often a part of names, of countries or channels: files of one name with many endings (`flag-gt`, `flag-ac`) are
siblings, and no companions.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ssl_app.errors import Notice, Set, of_count

MASK, THUMBNAIL = "mask", "thumbnail"
AUTO, NOTHING = "auto", "none"  # of the setting `omit`: companions, and nothing at all
BETWEEN = "._ -"  # what joins a word to a name

_PARTS = r"(?:[._ -]?(?:tr|ts|train|test|val|\d+))?"
_MASK = r"(?:masks?|seg|segs|segm|segmentations?|gt|ground[_ -]?truth|annotations?|labels?|rois?|manual\d?)"
_THUMB = r"(?:thumb(?:nail)?s?|tn|previews?)"
WORDS = {
    kind: re.compile(
        rf"(?P<stem>.+)[{BETWEEN}]{word}(?:[{BETWEEN}]?\d+)?|{word}[{BETWEEN}](?P<after>.+)", re.IGNORECASE
    )
    for kind, word in ((MASK, _MASK), (THUMBNAIL, _THUMB))
}
FOLDERS = {
    MASK: re.compile(rf"(?:.+[{BETWEEN}])?(?:{_MASK}|segmentation(?:class|object)){_PARTS}", re.IGNORECASE),
    THUMBNAIL: re.compile(rf"(?:.+[{BETWEEN}])?{_THUMB}(?:[{BETWEEN}]?\d+)?", re.IGNORECASE),
}
# beside a folder of masks: of numbered files in folders of other names, such as classes, nothing follows
IMAGES = re.compile(
    rf"(?:.+[{BETWEEN}])?(?:images?|imgs?|jpegimages|inputs?|raw|photos?|pictures?|scans?|data|originals?|full|x){_PARTS}",
    re.IGNORECASE,
)
IN_NAMES = (
    "mask",
    "seg",
    "gt",
    "ground",
    "annotation",
    "label",
    "roi",
    "manual",
    "thumb",
    "tn",
    "preview",
)  # to look at
SHORT = re.compile(r"gt|tn|segs?|rois?", re.IGNORECASE)  # words that stand for something else as often
SIBLINGS = 8  # files of one name with other endings, from which on a short word is one ending of many
ENDING = re.compile(r"(?:\.nii)?\.[A-Za-z][A-Za-z0-9]{1,5}(?:\.gz)?$")


@dataclass(frozen=True)
class Companions:
    """Pictures that belong to others: path -> whose it is, by kind."""

    of: Mapping[str, Mapping[str, str]]

    def __bool__(self) -> bool:
        return any(self.of.values())

    @property
    def paths(self) -> frozenset[str]:
        """All of them."""
        return frozenset(path for found in self.of.values() for path in found)

    def notices(self, left_out: bool) -> list[Notice]:
        """A sentence for each kind, with its count, the first pair, and what to type to have it otherwise."""
        notices = []
        for kind, found in self.of.items():
            first = min(found)
            what = f"1 {kind}" if len(found) == 1 else f"{len(found)} {kind}s"
            pair = f"{first} of {found[first]}" + ("" if len(found) == 1 else " the first")
            if left_out:
                one = (Set("omit", f"{NOTHING} to take {'it' if len(found) == 1 else 'them'} as images"),)
                notices.append(Notice(f"{what} left out ({pair})", fixes=one))
            else:
                alone = (Set("omit", f"'{pattern_of(first)}'"), of_count(len(found), "remove their rows"))
                notices.append(Notice(f"{what} listed and taken as images ({pair})", fixes=alone))
        return notices


def companions(paths: Iterable[str]) -> Companions:
    """The companions among files, given as paths with slashes. n log n in their number."""
    every = sorted(paths)
    if not _worth("\n".join(every)):
        return Companions({})
    stems = {path: stem_of(path) for path in every}
    names = sorted(set(stems.values()))
    at = {stem: path for path, stem in reversed(stems.items())}  # of files with one stem the first
    below: dict[str, set[str]] = {}  # folders by the folder that they lie in
    for stem in names:
        parts = stem.split("/")
        for depth in range(len(parts) - 1):
            below.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    found: dict[str, dict[str, str]] = {}
    for kind in (MASK, THUMBNAIL):
        worth = ((path, stem) for path, stem in stems.items() if _worth(stem))
        marked = {path: owner for path, stem in worth if (owner := _owner(kind, stem, names, below))}
        found[kind] = {path: at[owner] for path, owner in marked.items() if path not in found.get(MASK, ())}
    return Companions({kind: one for kind, one in found.items() if one})


@lru_cache(maxsize=4096)
def _folder(kind: str | None, name: str) -> bool:
    """Whether a folder is called as one of companions, or of the images."""
    return (IMAGES if kind is None else FOLDERS[kind]).fullmatch(name) is not None


def _worth(text: str) -> bool:
    """Whether a word for a companion is in it: a hundred times as fast as the patterns."""
    lower = text.lower()
    return any(word in lower for word in IN_NAMES)


def stem_of(path: str) -> str:
    """A path without the ending of its file; of `x.nii.gz` without both."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (ENDING.sub("", name) or name)


def pattern_of(path: str) -> str:
    """What matches a companion and those like it: `*_mask.png` of `a/x_mask.png`, `*masks/*` of `masks/x.png`."""
    folder, _, name = path.rpartition("/")
    ending, stem = name[len(stem_of(name)) :], stem_of(name)
    for words in WORDS.values():
        if hit := words.fullmatch(stem):
            return f"*{stem[len(hit['stem']) :]}{ending}" if hit["stem"] else f"{stem[: -len(hit['after'])]}*"
    for part in folder.split("/"):
        if any(pattern.fullmatch(part) for pattern in FOLDERS.values()):
            return f"*{part}/*"
    return path


def _owner(kind: str, stem: str, names: list[str], below: Mapping[str, set[str]]) -> str | None:
    """The stem of the picture that this one belongs to; None where it belongs to none."""
    *parents, name = stem.split("/")
    hit = WORDS[kind].fullmatch(name) if _worth(name) else None
    bare = (hit["stem"] or hit["after"]) if hit else name
    wanted = "/".join([*parents, bare])
    if hit and not _one_of_many(hit, wanted, names) and (owner := _named(wanted, stem, kind, names)):
        return owner
    for depth, part in enumerate(parents):
        if not _folder(kind, part):
            continue
        above, rest = parents[:depth], parents[depth + 1 :]
        beside = [other for other in sorted(below["/".join(above)]) if _folder(None, other)]
        for folders in ([*above, *rest], *([*above, other, *rest] for other in beside)):
            for one in dict.fromkeys((name, bare)):
                if owner := _named("/".join([*folders, one]), stem, kind, names, exact=True):
                    return owner
    return None


def _one_of_many(hit: re.Match[str], beside: str, names: list[str]) -> bool:
    """Whether a short word, without a picture of the bare name, is one of many endings of that name."""
    if hit["stem"] is None or not SHORT.fullmatch(re.sub(r"\d+$", "", hit[0][len(hit["stem"]) + 1 :])):
        return False
    place = bisect_left(names, beside)
    if names[place : place + 1] == [beside]:
        return False
    siblings = [name for name in names[place : place + 4 * SIBLINGS] if name.startswith(beside)]
    return sum(name[len(beside)] in BETWEEN for name in siblings) > SIBLINGS


def _named(wanted: str, stem: str, kind: str, names: list[str], exact: bool = False) -> str | None:
    """The name that is there: the wanted one, or one that goes on after it (`x_flair` for `x`); no companion."""
    place = bisect_left(names, wanted)
    for name in names[place : place + 8]:
        if not name.startswith(wanted) or (exact and name != wanted):
            break
        joined = name == wanted or name[len(wanted)] in BETWEEN
        if joined and name != stem and not WORDS[kind].fullmatch(name.rpartition("/")[2]):
            return name
    return None
