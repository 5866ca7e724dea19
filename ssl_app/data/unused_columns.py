"""Columns of a table that nobody named and that look like groups or a split: left unused, they would be missed."""

import re
from collections.abc import Mapping, Sequence

from ssl_app.data.sources.base import SPLITS
from ssl_app.errors import Notice, Set

# names of what must not be split, without blanks, `_`, `-` and a last `id` or `no`
GROUPS = frozenset(
    {
        "patient", "subject", "case", "study", "series", "lot", "batch", "wafer", "slide", "camera", "site", "animal",
        "plate", "volume", "video", "person", "participant", "specimen", "donor", "session", "scan", "exam",
    }
)  # fmt: skip


def means_group(column: str) -> bool:
    """Whether a column of this name says what must not be split: `PatientID`, `study_id`, `lot`."""
    name = re.sub(r"[\W_]", "", column).lower()
    return name in GROUPS or re.sub(r"(ids?|no|number|uid)$", "", name) in GROUPS


def notices(values: Mapping[str, Sequence[str]], grouped: bool, split: bool) -> list[Notice]:
    """What is to be said of unused columns; `grouped` and `split` say whether that is settled already."""
    found = []
    if not split:
        for column, cells in values.items():
            parts = {SPLITS.get(cell.lower()) for cell in cells if cell}
            if None not in parts and len(parts) > 1:
                marks = f"column {column} marks {' and '.join(sorted(map(str, parts)))}, and is not used"
                found.append(Notice(marks, fixes=(Set("split", column),)))
                break
    if not grouped:
        for column, cells in values.items():
            known = [cell for cell in cells if cell]
            if means_group(column) and 1 < len(set(known)) < len(known):
                what = f"column {column} has {len(set(known))} values, and is not used: images of one may be in test"
                found.append(Notice(f"{what} and train", fixes=(Set("group", column),)))
                break
    return found
