"""Whether a pretext task is learning anything worth having: alarms from its score and features, without labels."""

from collections.abc import Sequence

from ssl_app.tasks import Limits

FEWEST_DIRECTIONS, LEAST_SPREAD = 1.5, 0.02  # of features, below which they have collapsed


def collapse(directions: Sequence[float], spreads: Sequence[float], epochs: int, method: str) -> str | None:
    """The alarm of features that are all alike after the first third of the epochs (of one or two: ever), or None.

    From the effective rank and the spread of the features after each epoch so far, see `evaluation.features`.
    """
    if len(directions) <= epochs // 3:
        return None
    if directions[-1] >= FEWEST_DIRECTIONS and spreads[-1] >= LEAST_SPREAD:
        return None
    return (
        f"the features of {method} have collapsed: after epoch {len(directions)} of {epochs} they use "
        f"{directions[-1]:.1f} directions, spread {spreads[-1]:.3f}. Type a smaller --lr, or take another method"
    )


def alarm(
    scores: Sequence[float], epochs: int, limits: Limits, method: str, chance: float | None = None
) -> str | None:
    """The alarm of a run from its held-out score after each epoch so far, or None.

    Too easy: `limits.trivial` or more at an epoch of the first third. Too hard: still under
    `limits.impossible` after the first third. One or two epochs have no first third.
    """
    third = epochs // 3
    for epoch, score in enumerate(scores[:third], 1):
        if score >= limits.trivial:
            return (
                f"{method} is too easy on these images: held-out score {score:.3f} by epoch {epoch} of {epochs}. "
                "A shortcut may answer it, and features may stay shallow; try another method (ssl-app compare)"
            )
    if len(scores) > third and max(scores) < limits.impossible:
        guessing = "near chance" if chance is None else f"where chance is {chance:.3f}"
        return (
            f"{method} is impossible on these images: held-out score {scores[-1]:.3f} after epoch {len(scores)} of "
            f"{epochs}, {guessing}. They may hold no answer to it; try another method (ssl-app compare)"
        )
    return None
