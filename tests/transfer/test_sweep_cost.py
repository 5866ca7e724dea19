"""What a sweep will take: by timed steps at first, by the pace of the trials that have finished later."""

import time
from typing import Any, cast

import pytest

from ssl_app.transfer.sweep_cost import SweepCost


def cost(workers: int = 2) -> SweepCost:
    """Of six trainings of 100 s, two from scratch of 200 s, and four fits of 1 s, as they were predicted."""
    predicted = (
        {f"a{n}": 100.0 for n in range(6)} | {f"s{n}": 200.0 for n in range(2)} | {f"f{n}": 1.0 for n in range(4)}
    )
    kinds = {key: {"a": "two-stage", "s": "full-fine-tuning from scratch", "f": "fit"}[key[0]] for key in predicted}
    return SweepCost(0.1, 0.0, cast(Any, None), workers, predicted=predicted, kinds=kinds)


def test_at_first_it_is_what_the_steps_say() -> None:
    one = cost()
    assert one.total == (600 + 400 + 4) / 2
    assert one.first == 100
    assert one.left == pytest.approx(502, abs=1)


def test_trials_of_a_kind_have_their_pace_and_others_that_of_all_that_were_trained() -> None:
    one = cost()
    one.finished("a0", 150.0)
    assert one.total == pytest.approx((150 + 5 * 150 + 2 * 300 + 4) / 2)
    one.finished("s0", 220.0)
    one.finished("f0", 3.0)
    assert one.total == pytest.approx((150 + 5 * 150 + 220 + 220 + 4 * 3) / 2)


def test_it_is_no_shorter_than_the_longest_trial_and_nothing_at_the_end() -> None:
    one = cost(workers=50)
    assert one.total == 200
    one.started = time.monotonic() - 500
    assert one.left == 1.0, "late, and not yet there"
    for key in one.predicted:
        one.finished(key, 1.0)
    assert one.left == 0.0
