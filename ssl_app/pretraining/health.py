"""Whether a pretext task is learning anything worth having: warnings from its score and features, without labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_app.errors import Change, Fix, Notice
from ssl_app.training.task import ScoreLimits

ANOTHER = Fix("try another method (ssl-app compare)")
FEWEST_STEPS = 50  # before which no task is said to stay near chance
LEAST_RANK, LEAST_STD = 1.5, 0.02  # effective rank and std of features, below which they have collapsed


@dataclass(frozen=True)
class Scores:
    """The validation score of a pretext task after each epoch so far."""

    values: Sequence[float]
    epochs: int  # of the whole schedule
    steps: int = 100  # of an epoch
    chance: float | None = None


def collapse(ranks: Sequence[float], stds: Sequence[float], epochs: int, method: str) -> Notice | None:
    """The warning of features that are all alike after the first third of the epochs, or None.

    From the effective rank and the std of the features after each epoch so far, see `evaluation.features`.
    """
    if len(ranks) <= _third(epochs):
        return None
    if ranks[-1] >= LEAST_RANK and stds[-1] >= LEAST_STD:
        return None
    return Notice(
        f"the features of {method} have collapsed: after epoch {len(ranks)} of {epochs} their effective rank is "
        f"{ranks[-1]:.1f}, their std {stds[-1]:.3f}",
        fixes=(Change("lr", "a smaller"), Change("method")),
    )


def score_warning(scores: Scores, limits: ScoreLimits, method: str) -> Notice | None:
    """The warning about a pretext score, or None.

    Too easy: `limits.too_easy` or more at an epoch of the first third. No usable signal: still under
    `limits.no_signal` after the first third, and after FEWEST_STEPS steps at least.
    """
    values, epochs, third = scores.values, scores.epochs, _third(scores.epochs)
    for epoch, score in enumerate(values[:third], 1):
        if score >= limits.too_easy:
            return Notice(
                f"{method} is too easy on these images: validation score {score:.3f} by epoch {epoch} of {epochs}. "
                f"A shortcut may solve it, and features may stay shallow",
                fixes=(ANOTHER,),
            )
    if len(values) > third and len(values) * scores.steps >= FEWEST_STEPS and max(values) < limits.no_signal:
        chance = "" if scores.chance is None else f" (chance is {scores.chance:.3f})"
        return Notice(
            f"{method} stays near chance on these images: validation score {values[-1]:.3f} after epoch "
            f"{len(values)} of {epochs}{chance}. They may hold no usable signal for it",
            fixes=(ANOTHER,),
        )
    return None


def _third(epochs: int) -> int:
    """Epochs of the first third: none of one, one of two."""
    return 0 if epochs == 1 else max(1, epochs // 3)
