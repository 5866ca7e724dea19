"""The ranking of methods and its sentence, in each of the ways that it can end."""

import numpy as np
import pytest

from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.ranking import Ranked, advice, ranking, wanted

SCRATCH = [0.50, 0.52, 0.51]


def said(scores: dict[str, list[float]], draws: int = 3) -> str:
    ranked = ranking({name: values[:draws] for name, values in scores.items()}, SCRATCH[:draws])
    return advice(ranked, [8, 32], draws, "5m", "120 held-out images")


def test_methods_are_ranked_by_their_mean_and_compared_draw_by_draw() -> None:
    found = ranking({"a": [0.55, 0.57, 0.56], "b": [0.60, 0.63, 0.61]}, SCRATCH)
    assert [one.name for one in found] == ["b", "a"]
    assert found[0].mean == pytest.approx(0.6133, abs=1e-4)
    assert found[0].over_scratch.mean == pytest.approx(0.1033, abs=1e-4)
    assert found[0].behind_best is None
    assert found[1].behind_best is not None
    assert found[1].behind_best.mean == pytest.approx(0.0533, abs=1e-4)


def test_the_sentence_names_a_method_that_stands_out() -> None:
    assert said({"a": [0.55, 0.57, 0.56], "b": [0.60, 0.62, 0.61]}) == (
        "These images want b: +10.0 [+10.0, +10.0] points against scratch, +5.0 [+5.0, +5.0] against a, the next "
        "(mean of 8 and 32 labels per class, 3 draws, one pretraining of 5m each, 120 held-out images)."
    )


def test_the_sentence_says_when_two_are_alike_or_none_helps() -> None:
    alike = said({"a": [0.60, 0.61, 0.63], "b": [0.61, 0.63, 0.60]})
    assert alike.startswith("These images want a or b: a leads, +10.3 [")
    three = said({"a": [0.60, 0.61, 0.63], "b": [0.61, 0.63, 0.60], "c": [0.60, 0.60, 0.62], "d": [0.5, 0.5, 0.5]})
    assert three.startswith("These images want a, b or c: a leads, +10.3 [")
    none = said({"a": [0.50, 0.55, 0.49], "b": [0.4, 0.4, 0.4]})
    assert none.startswith("No method is known to help on these images: a leads, +0.3 [")
    assert said({"a": [0.6]}, draws=1).startswith("Undecided, one draw gives no interval: a leads, +10.0 points")
    assert advice([], [8], 3, "5m", "") == "None of the methods applies to these images."
    assert said({"a": [0.6, 0.62, 0.61]}).startswith("a helps on these images: +10.0 [")
    assert said({"a": [0.60, 0.66, 0.63]}).startswith("a helps on these images: +12.0 [+7.0, +17.0] points against")


def test_the_gap_is_the_one_to_the_next() -> None:
    found = said({"a": [0.60, 0.62, 0.61], "b": [0.55, 0.57, 0.56], "c": [0.52, 0.54, 0.53]})
    assert ", +5.0 [+5.0, +5.0] against b, the next (" in found


def ranked(name: str, over_scratch: tuple[float, float], behind: tuple[float, float] | None = None) -> Ranked:
    ends = [None if pair is None else Interval(sum(pair) / 2, *pair, 3) for pair in (over_scratch, behind)]
    assert ends[0] is not None
    return Ranked(name, 0.6, ends[0], ends[1])


def test_a_method_that_varies_too_much_to_be_told_from_scratch_is_not_wanted() -> None:
    first, next_one = ranked("a", (0.05, 0.15)), ranked("b", (0.01, 0.03), (0.02, 0.14))
    noisy = ranked("noisy", (-0.15, 0.14), (-0.05, 0.25))
    assert [one.name for one in wanted([first, next_one, noisy])] == ["a"]
    assert advice([first, next_one, noisy], [8], 3, "5m", "x").startswith(
        "These images want a: +10.0 [+5.0, +15.0] points against scratch, +8.0 [+2.0, +14.0] against b, the next; "
        "noisy cannot be separated from scratch ("
    )
    ahead, behind = ranked("noisy", (-0.1, 0.4)), ranked("a", (0.05, 0.15), (-0.1, 0.2))
    assert [one.name for one in wanted([ahead, behind])] == ["a"]
    assert advice([ahead, behind], [8], 3, "5m", "x").startswith(
        "These images want a: +10.0 [+5.0, +15.0] points against scratch; noisy cannot be separated from scratch ("
    )
    assert wanted([noisy]) == []


@pytest.mark.parametrize("noise_of_scratch", [1.0, 2.0])
def test_intervals_hold_at_once_as_often_as_they_say(noise_of_scratch: float) -> None:
    random = np.random.default_rng(0)
    missed = behind = wrong = 0
    for _ in range(400):
        table = random.normal(size=(11, 3))
        table[10] *= noise_of_scratch
        table += random.normal(size=3)
        found = ranking({str(number): row for number, row in enumerate(table[:10])}, table[10])
        missed += any(one.over_scratch.low > 0 or one.over_scratch.high < 0 for one in found)
        behind += any(one.behind_best.low > 0 for one in found[1:])
        wrong += not advice(found, [8], 3, "5m", "").startswith("No method is known to help")
    assert missed <= 0.08 * 400, "ten methods, none better or worse than scratch"
    assert behind <= 0.08 * 400, "and none than another"
    assert wrong <= 0.04 * 400
