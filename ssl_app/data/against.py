"""Two sets held against each other: exact copies, near copies, and images of a group that both have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.checkup import Checkup, Finding
from ssl_app.data.prints import Pairs, near_pairs, prints
from ssl_app.errors import Notice, Run


@dataclass(frozen=True, eq=False)
class Shared:
    """What one set, of N images, has in common with another, of M."""

    one: Checkup
    other: Checkup
    copies: Pairs  # (A, 2) an image of the one that is in the other, and the first there
    near: Pairs  # (B, 2) near copies that are no exact ones
    alike: NDArray[np.float32]  # (B,) correlation
    groups: int | None  # images of the one whose group the other has; None where groups are not comparable

    def findings(self) -> list[Finding]:
        """In sentences."""
        names, others, found = self.one.keys, self.other.keys, []
        of, fix = f"of {len(names)} images", Run("pretrain", (("exclude", self.other.source.name),))
        if len(self.copies):
            i, j = self.copies[0]
            what = f"{len(self.copies)} {of} are exact copies of images of {self.other.source.name}"
            found.append(
                Finding(
                    "copies of the other",
                    Notice(f"{what} ({names[i]} of {others[j]})", fixes=(fix,)),
                    len(self.copies),
                )
            )
        if len(self.near):
            i, j = self.near[int(self.alike.argmax())]
            count = len(np.unique(self.near[:, 0]))
            what = f"{count} {of} are near copies of images of {self.other.source.name} ({names[i]} and {others[j]})"
            found.append(Finding("near copies of the other", Notice(what), count))
        if self.groups:
            what = f"{self.groups} {of} are of a {self.one.source.columns.group} that {self.other.source.name} has"
            found.append(Finding("groups of the other", Notice(what, fixes=(fix,)), self.groups))
        if self.groups is None:
            what = "which groups the two sets share is not known: both need the same column of groups"
            found.append(Finding("groups of the other", Notice(what), 0))
        if not (len(self.copies) or len(self.near) or self.groups):
            found.append(
                Finding("the other", Notice(f"no image is in {self.other.source.name}, by sight or by group"), 0)
            )
        return found


def shared(one: Checkup, other: Checkup) -> Shared:
    """What two sets have in common."""
    first = {int(content): place for place, content in reversed(list(enumerate(other.content.tolist())))}
    copied = [(i, first[content]) for i, content in enumerate(one.content.tolist()) if content in first]
    copies = np.array(copied, np.int64).reshape(-1, 2)
    mine = np.setdiff1d(np.unique(one.content, return_index=True)[1], copies[:, 0])
    theirs = np.unique(other.content, return_index=True)[1]
    pairs, alike = near_pairs(prints(np.concatenate([one.thumbs[mine], other.thumbs[theirs]])))
    across = (pairs[:, 0] < len(mine)) & (pairs[:, 1] >= len(mine))
    near = np.stack([mine[pairs[across, 0]], theirs[pairs[across, 1] - len(mine)]], axis=1)
    groups = None
    columns = [str(checkup.source.columns.group).lower() for checkup in (one, other)]
    if one.source.groups is not None and other.source.groups is not None and columns[0] == columns[1]:
        met = set(other.of_rows(other.source.groups)) - {None}
        groups = sum(group in met for group in one.of_rows(one.source.groups))
    return Shared(one, other, copies, near, alike[across], groups)
