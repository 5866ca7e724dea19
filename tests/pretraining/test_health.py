"""Warnings, on scores and features made up: when there is one and when there is none."""

from ssl_app.pretraining.health import FEWEST_STEPS, Scores, collapse, score_warning
from ssl_app.training.task import ScoreLimits

LIMITS = ScoreLimits(too_easy=0.9, no_signal=0.3)


def kind_of(*scores: float, epochs: int = 6, steps: int = 100) -> str | None:
    """What a warning about these scores says of the method."""
    found = score_warning(Scores(scores, epochs, steps), LIMITS, "m")
    if found is None:
        return None
    return next(kind for kind in ("is too easy", "stays near chance") if found.found.startswith(f"m {kind}"))


def test_collapse_warns_after_the_first_third_by_either_sign() -> None:
    def warns(*epochs: tuple[float, float]) -> bool:
        return collapse([rank for rank, _ in epochs], [std for _, std in epochs], 6, "m") is not None

    good, flat, narrow = (5.0, 0.5), (5.0, 0.019), (1.4, 0.5)
    assert not warns(good, good, good)
    assert warns(good, good, flat)
    assert warns(good, good, narrow)
    assert not warns(flat, narrow), "within the first third"
    assert not warns(flat, narrow, (1.5, 0.02)), "recovered"


def test_one_epoch_has_no_first_third_and_two_have_one() -> None:
    assert collapse([1.0], [0.0], 1, "m") is not None
    assert kind_of(0.99, epochs=1) is None
    assert kind_of(0.2, epochs=1) == "stays near chance"
    assert collapse([1.0], [0.0], 2, "m") is None
    assert kind_of(0.99, epochs=2) == "is too easy"
    assert kind_of(0.2, epochs=2) is None


def test_a_few_steps_do_not_prove_that_there_is_no_signal() -> None:
    enough = -(-FEWEST_STEPS // 3)
    assert kind_of(0.2, 0.2, 0.2, steps=enough - 1) is None
    assert kind_of(0.2, 0.2, 0.2, steps=enough) == "stays near chance"


def test_warnings_keep_to_their_third() -> None:
    assert kind_of(0.5, 0.9, 0.5) == "is too easy"
    assert kind_of(0.5, 0.5, 0.95) is None, "after the first third it is no shortcut"
    assert kind_of(0.2, 0.2) is None, "it has a third of the epochs"
    assert kind_of(0.2, 0.2, 0.2) == "stays near chance"
    assert kind_of(0.2, 0.4, 0.2) is None, "it was once above"


def test_warnings_say_what_was_found_and_what_to_do() -> None:
    found = collapse([5.0, 5.0, 1.4], [0.5, 0.5, 0.01], 6, "m")
    assert str(found) == (
        "the features of m have collapsed: after epoch 3 of 6 their effective rank is 1.4, their std 0.010; "
        "type a smaller lr, or another method"
    )
    near = score_warning(Scores([0.2] * 3, 6, chance=0.25), LIMITS, "m")
    assert str(near) == (
        "m stays near chance on these images: validation score 0.200 after epoch 3 of 6 (chance is 0.250). "
        "They may hold no usable signal for it; try another method (ssl-app compare)"
    )
