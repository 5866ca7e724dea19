"""Warnings, on scores and features made up: when they ring and when they do not."""

from ssl_app.pretraining.health import warning, collapse
from ssl_app.training.task import ScoreLimits


def test_collapse_rings_after_the_first_third_by_either_sign() -> None:
    def rings(*epochs: tuple[float, float]) -> bool:
        return collapse([d for d, _ in epochs], [s for _, s in epochs], 6, "m") is not None

    good, flat, narrow = (5.0, 0.5), (5.0, 0.019), (1.4, 0.5)
    assert not rings(good, good, good)
    assert rings(good, good, flat)
    assert rings(good, good, narrow)
    assert not rings(flat, narrow), "within the first third"
    assert not rings(flat, narrow, (1.5, 0.02)), "recovered"


def test_one_epoch_has_no_first_third_and_two_have_one() -> None:
    limits = ScoreLimits(too_easy=0.9, no_signal=0.3)
    assert collapse([1.0], [0.0], 1, "m") is not None
    assert warning([0.99], 1, limits, "m") is None
    assert "impossible" in str(warning([0.2], 1, limits, "m"))
    assert collapse([1.0], [0.0], 2, "m") is None
    assert "too easy" in str(warning([0.99], 2, limits, "m"))
    assert warning([0.2], 2, limits, "m") is None


def test_a_few_steps_prove_no_task_impossible() -> None:
    limits = ScoreLimits(too_easy=0.9, no_signal=0.3)
    assert warning([0.2] * 3, 6, limits, "m", steps=16) is None
    assert warning([0.2] * 3, 6, limits, "m", steps=17) is not None


def test_alarms_keep_to_their_third() -> None:
    def told(*scores: float) -> str | None:
        found = warning(scores, 6, ScoreLimits(too_easy=0.9, no_signal=0.3), "m")
        return None if found is None else found.split()[2]

    assert told(0.5, 0.9, 0.5) == "too"
    assert told(0.5, 0.5, 0.95) is None, "after the first third it is no shortcut"
    assert told(0.2, 0.2) is None, "it has a third of the epochs"
    assert told(0.2, 0.2, 0.2) == "impossible"
    assert told(0.2, 0.4, 0.2) is None, "it was once above"
