"""Warnings, on scores and features made up: when there is one and when there is none."""

from collections.abc import Sequence

from ssl_app.errors import Notice
from ssl_app.pretraining.health import Scores, collapse, score_warning
from ssl_app.training.task import ScoreLimits

LIMITS = ScoreLimits(too_easy=0.9, no_signal=0.3)


def warned(values: Sequence[float], epochs: int, steps: int = 100) -> Notice | None:
    return score_warning(Scores(values, epochs, steps), LIMITS, "m")


def test_collapse_is_a_warning_after_the_first_third_by_either_sign() -> None:
    def collapsed(*epochs: tuple[float, float]) -> bool:
        return collapse([rank for rank, _ in epochs], [std for _, std in epochs], 6, "m") is not None

    good, flat, narrow = (5.0, 0.5), (5.0, 0.019), (1.4, 0.5)
    assert not collapsed(good, good, good)
    assert collapsed(good, good, flat)
    assert collapsed(good, good, narrow)
    assert not collapsed(flat, narrow), "within the first third"
    assert not collapsed(flat, narrow, (1.5, 0.02)), "recovered"


def test_one_epoch_has_no_first_third_and_two_have_one() -> None:
    assert collapse([1.0], [0.0], 1, "m") is not None
    assert warned([0.99], 1) is None
    assert "stays near chance" in str(warned([0.2], 1))
    assert collapse([1.0], [0.0], 2, "m") is None
    assert "too easy" in str(warned([0.99], 2))
    assert warned([0.2], 2) is None


def test_a_few_steps_prove_no_task_unsolvable() -> None:
    assert warned([0.2] * 3, 6, steps=16) is None
    assert warned([0.2] * 3, 6, steps=17) is not None


def test_warnings_keep_to_their_third() -> None:
    def kind(*scores: float) -> str | None:
        found = warned(scores, 6)
        return None if found is None else found.found.split()[2]

    assert kind(0.5, 0.9, 0.5) == "too"
    assert kind(0.5, 0.5, 0.95) is None, "after the first third it is no shortcut"
    assert kind(0.2, 0.2) is None, "it has a third of the epochs"
    assert kind(0.2, 0.2, 0.2) == "near"
    assert kind(0.2, 0.4, 0.2) is None, "it was once above"


def test_the_warning_says_what_chance_is_and_what_to_type() -> None:
    found = score_warning(Scores([0.2] * 3, 6, 100, chance=0.25), LIMITS, "rotnet")
    assert str(found) == (
        "rotnet stays near chance on these images: validation score 0.200 after epoch 3 of 6 (chance is 0.250). "
        "They may hold no usable signal for it; try another method (ssl-app compare)"
    )
