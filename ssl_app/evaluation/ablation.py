"""Ablation by stage: what pretraining, training of the backbone, and unlabeled images in stage two each add."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_app.evaluation.comparison import Answered, Variant
from ssl_app.evaluation.intervals import Interval

FROZEN = ("feature-extraction",)
TUNED = ("two-stage", "full-fine-tuning")
WITH_UNLABELED = ("auto", "label-propagation", "self-training", "fixmatch")


@dataclass(frozen=True)
class Stage:
    """A stage with its score, and its paired difference from the stage before, over draws and test images."""

    name: str
    strategy: str
    score: Interval
    gain: Interval | None  # None for the first
    over: str | None  # strategy of the stage before


def stages(tested: Answered, pretrainings: Sequence[str], per_class: int) -> list[Stage]:
    """From random weights to all that is used, at one budget; stages that the sweep lacks are left out.

    Each is on the draws that it shares with the one before. Strategies are fixed by their order above, not by score.
    """
    steps: list[tuple[str, list[Variant]]] = []
    if tested.scratch is not None and per_class in tested.variants[tested.scratch]:
        steps.append(("random weights, all trained", [tested.scratch]))
    for name, strategies in (
        ("pretrained, frozen", FROZEN),
        ("pretrained, all trained", TUNED),
        ("unlabeled images in stage two too", WITH_UNLABELED),
    ):
        for strategy in strategies:
            found = [
                (init, strategy) for init in pretrainings if per_class in tested.variants.get((init, strategy), {})
            ]
            if found and len(found) == len(pretrainings):
                steps.append((name, found))
                break
    rows: list[Stage] = []
    for number, (name, variants) in enumerate(steps):
        score = tested.curve(*variants).get(per_class)
        if score is None:
            continue
        before = steps[number - 1][1] if rows else None
        gain = None if before is None else difference(tested, variants, before, per_class)
        rows.append(Stage(name, variants[0][1], score.interval, gain, None if before is None else before[0][1]))
    return rows


def difference(
    tested: Answered, ours: Sequence[Variant], theirs: Sequence[Variant], per_class: int
) -> Interval | None:
    """Some variants minus others at one budget, paired over the draws that all have; None where they share none.

    Where there are several of both they are paired in order: strategies of the same pretrainings.
    """
    tables = [tested.variants[variant].get(per_class, []) for variant in (*ours, *theirs)]
    draws = sorted(set.intersection(*(set(table) for table in tables)))
    if not draws:
        return None
    a, b = (np.stack([tested.answers(one, per_class, draws) for one in several]) for several in (ours, theirs))
    return tested.difference(a, b if len(b) == len(a) else b[0], per_class).interval
