"""Joined initializations, `A+B`: several pretrainings on the same images, for a strategy that averages them.

Members that differ in method or views gain by it; seeds of one pretraining are replicates of a claim and no members.
"""

import hashlib
from dataclasses import replace
from functools import reduce
from pathlib import Path

from ssl_app.data.overlap import Seen, merged
from ssl_app.errors import CheckpointError, Fix, Set
from ssl_app.training.initialization import Initialization, load_initialization
from ssl_app.transfer.replicates import PLUS, parts_of, why_apart


def load_joined(init: str, out: Path, backbone: str | None) -> Initialization:
    """What `load_initialization` takes, or several of them joined by a plus.

    Raises CheckpointError where they cannot be one: other networks or pixels, or seeds of one pretraining.
    """
    starts = [load_initialization(name, out, backbone) for name in parts_of(out, init)]
    return starts[0] if len(starts) == 1 else join(starts)


def join(starts: list[Initialization]) -> Initialization:
    """One initialization of several, trained on from the first. Raises CheckpointError, see `load_joined`."""
    first = starts[0]
    for number, other in enumerate(starts[1:], 1):
        _refuse(first, other)
        for before in starts[:number]:
            if why_apart(other, [before]) is None:
                raise CheckpointError(
                    f"{before.name} and {other.name} differ in their seed alone: they are replicates of one claim",
                    fix=Set("init", before.name, (("init", other.name),)),
                )
    seen = [start.seen for start in starts]
    known: list[Seen] = [one for one in seen if one is not None]
    return replace(
        first,
        name=PLUS.join(start.name for start in starts),
        seen=reduce(merged, known) if len(known) == len(seen) else None,
        content=hashlib.blake2b("".join(start.content for start in starts).encode(), digest_size=8).hexdigest(),
        ancestry_known=all(start.ancestry_known for start in starts),
        labels_learned=max(start.labels_learned for start in starts),
        doubts=tuple(f"{start.name}: {doubt}" for start in starts for doubt in start.doubts),
        members=tuple(starts),
    )


def _refuse(first: Initialization, other: Initialization) -> None:
    """Raise CheckpointError where two cannot be members of one classifier."""
    names = f"{first.name} and {other.name}"
    for start in (first, other):
        if start.scaling is None or start.tensors is None:
            raise CheckpointError(
                f"{start.name} is no pretraining of ssl-app, and only those can be joined by a plus",
                fix=Set("init", other.name if start is first else first.name),
            )
    if first.content == other.content:
        raise CheckpointError(f"{names} hold the same weights", fix=Set("init", first.name))
    pairs = (
        ("backbone", first.backbone, other.backbone),
        ("image size", first.image_size, other.image_size),
        ("channels", first.channels, other.channels),
        ("size of packed images", first.pack_side, other.pack_side),
    )
    unlike = [f"{what} ({ours} and {theirs})" for what, ours, theirs in pairs if ours != theirs]
    if (
        not unlike
        and first.scaling is not None
        and other.scaling is not None
        and not first.scaling.near(other.scaling)
    ):
        unlike = ["how they scale pixels"]
    if unlike:
        raise CheckpointError(
            f"{names} differ in {', '.join(unlike)}, and one classifier reads one kind of image",
            fix=(Fix("pretrain both on the same images with the same settings"), Set("init", first.name)),
        )
