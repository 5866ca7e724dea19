"""Alarms, on scores and features made up: when they ring and when they do not."""

import pytest

from ssl_app.tasks import Limits
from ssl_app.training.health import alarm, collapse


def test_collapse_rings_after_the_first_third_by_either_sign() -> None:
    def rings(*epochs: tuple[float, float]) -> bool:
        return collapse([d for d, _ in epochs], [s for _, s in epochs], 6, "m") is not None

    good, flat, narrow = (5.0, 0.5), (5.0, 0.019), (1.4, 0.5)
    assert not rings(good, good, good)
    assert rings(good, good, flat)
    assert rings(good, good, narrow)
    assert not rings(flat, narrow), "within the first third"
    assert not rings(flat, narrow, (1.5, 0.02)), "recovered"


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_trainings_have_no_first_third(epochs: int) -> None:
    assert collapse([1.0], [0.0], epochs, "m") is not None
    limits = Limits(trivial=0.9, impossible=0.3)
    assert alarm([0.99], epochs, limits, "m") is None
    assert "impossible" in str(alarm([0.2], epochs, limits, "m"))


def test_alarms_keep_to_their_third() -> None:
    def told(*scores: float) -> str | None:
        found = alarm(scores, 6, Limits(trivial=0.9, impossible=0.3), "m")
        return None if found is None else found.split()[2]

    assert told(0.5, 0.9, 0.5) == "too"
    assert told(0.5, 0.5, 0.95) is None, "after the first third it is no shortcut"
    assert told(0.2, 0.2) is None, "it has a third of the epochs"
    assert told(0.2, 0.2, 0.2) == "impossible"
    assert told(0.2, 0.4, 0.2) is None, "it was once above"
