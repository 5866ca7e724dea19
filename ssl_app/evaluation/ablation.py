"""Ablation by stage: what pretraining, training of the backbone, and unlabeled images in stage two each add."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.comparison import Answered, Variant
from ssl_app.evaluation.intervals import Interval

FROZEN, TUNED = ("feature-extraction",), ("two-stage", "full-fine-tuning")
# a stage, its strategies, of which the first that a sweep has stands for it, and those that it is compared with
LADDER = (
    ("pretrained, frozen", FROZEN, ()),
    ("frozen, with unlabeled images in stage two", ("label-propagation",), FROZEN),
    ("pretrained, all trained", TUNED, FROZEN),
    ("with unlabeled images in stage two", ("auto", "self-training", "fixmatch"), (*TUNED, *FROZEN)),
)


@dataclass(frozen=True)
class Stage:
    """A stage with its score, and its paired difference from a stage before, over draws and test images."""

    name: str
    strategy: str
    score: Interval
    over: str | None  # strategy of the stage that it is compared with, or scratch; None for the first
    gain: Interval | None  # None where the two share no draw


def stages(tested: Answered, pretrainings: Sequence[str], per_class: int) -> list[Stage]:
    """From random weights to all that is used, at one budget; stages that the sweep lacks are left out.

    Each is on the draws that it shares with the one it is compared with. Strategies are fixed by the order above, not
    chosen by their score.
    """
    known: dict[str, list[Variant]] = {}  # by strategy
    found: list[Stage] = []
    scratch = tested.scratch
    if scratch is not None and per_class in tested.variants[scratch]:
        known[SCRATCH] = [scratch]
        score = tested.curve(scratch)[per_class].interval
        found.append(Stage("random weights, all trained", scratch[1], score, None, None))
    for name, strategies, before in LADDER:
        held = [[(init, strategy) for init in pretrainings] for strategy in strategies]
        variants = next((some for some in held if _complete(tested, some, per_class)), None)
        if variants is None:
            continue
        strategy = variants[0][1]
        known[strategy] = variants
        over = next((one for one in (*before, SCRATCH) if one in known), None)
        gain = None if over is None else difference(tested, variants, known[over], per_class)
        found.append(Stage(name, strategy, tested.curve(*variants)[per_class].interval, over, gain))
    return found


def _complete(tested: Answered, variants: Sequence[Variant], per_class: int) -> bool:
    """Whether all of them have been tested at the budget, on a draw that they share."""
    return bool(variants) and all(one in tested.variants for one in variants) and per_class in tested.curve(*variants)


def difference(
    tested: Answered, ours: Sequence[Variant], theirs: Sequence[Variant], per_class: int
) -> Interval | None:
    """Some variants minus others at one budget, paired over the draws that all have; None where they share none.

    `theirs` is one, or as many as `ours` and paired with them in order: strategies of the same pretrainings.
    """
    assert len(theirs) in (1, len(ours))
    tables = [tested.variants[variant].get(per_class, []) for variant in (*ours, *theirs)]
    draws = sorted(set.intersection(*(set(table) for table in tables)))
    if not draws:
        return None
    a, b = (np.stack([tested.answers(one, per_class, draws) for one in several]) for several in (ours, theirs))
    return tested.difference(a, b if len(b) == len(a) else b[0], per_class).interval
