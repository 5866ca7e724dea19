"""Whether a pretext task is learning anything worth having: alarms from its score and features, without labels."""

from collections.abc import Sequence

from ssl_app.training.task import Limits

ANOTHER = "; try another method (ssl-app compare)"
FEWEST_STEPS = 50  # before which no task is called impossible
FEWEST_DIRECTIONS, LEAST_SPREAD = 1.5, 0.02  # of features, below which they have collapsed


def collapse(directions: Sequence[float], spreads: Sequence[float], epochs: int, method: str) -> str | None:
    """The alarm of features that are all alike after the first third of the epochs, or None.

    From the effective rank and the spread of the features after each epoch so far, see `evaluation.features`.
    """
    if len(directions) <= _third(epochs):
        return None
    if directions[-1] >= FEWEST_DIRECTIONS and spreads[-1] >= LEAST_SPREAD:
        return None
    return (
        f"the features of {method} have collapsed: after epoch {len(directions)} of {epochs} they use "
        f"{directions[-1]:.1f} directions, spread {spreads[-1]:.3f}. Type a smaller --lr, or take another method"
    )


def alarm(
    scores: Sequence[float], epochs: int, limits: Limits, method: str, chance: float | None = None, steps: int = 100
) -> str | None:
    """The alarm of a run from its held-out score after each epoch so far, or None.

    Too easy: `limits.trivial` or more at an epoch of the first third. Too hard: still under
    `limits.impossible` after the first third, and after FEWEST_STEPS `steps` of an epoch at least.
    """
    third = _third(epochs)
    for epoch, score in enumerate(scores[:third], 1):
        if score >= limits.trivial:
            return (
                f"{method} is too easy on these images: held-out score {score:.3f} by epoch {epoch} of {epochs}. "
                f"A shortcut may answer it, and features may stay shallow{ANOTHER}"
            )
    if len(scores) > third and len(scores) * steps >= FEWEST_STEPS and max(scores) < limits.impossible:
        guessing = "near chance" if chance is None else f"where chance is {chance:.3f}"
        return (
            f"{method} is impossible on these images: held-out score {scores[-1]:.3f} after epoch {len(scores)} of "
            f"{epochs}, {guessing}. They may hold no answer to it{ANOTHER}"
        )
    return None


def _third(epochs: int) -> int:
    """Epochs of the first third: none of one, one of two."""
    return 0 if epochs == 1 else max(1, epochs // 3)
