"""The ranking of methods, what it recommends, and what a confirmation may claim."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.ranking import Claim, Ranked, advice, confirm, confirmation, ranking, wanted
from tests.answers import PART, right
from tests.simulated_sweeps import CHEST, SMALL, STEEL, World, confirmed_wrongly, sweep

SCRATCH = [0.50, 0.52, 0.51]


def answers(scores: list[float]) -> np.ndarray:
    return np.stack([right(score) for score in scores]).astype(np.float64)


def said(scores: dict[str, list[float]], draws: int = 3) -> str:
    ranked = ranking(
        {name: answers(values[:draws]) for name, values in scores.items()}, answers(SCRATCH[:draws]), PART
    )
    return advice(ranked, [8, 32], draws, "5m", "120 held-out images")


def test_methods_are_ranked_by_their_mean_and_compared_draw_by_draw() -> None:
    found = ranking({"a": answers([0.55, 0.57, 0.56]), "b": answers([0.60, 0.63, 0.61])}, answers(SCRATCH), PART)
    assert [one.name for one in found] == ["b", "a"]
    assert found[0].mean == pytest.approx(0.6133, abs=1e-4)
    assert found[0].over_scratch.mean == pytest.approx(0.1033, abs=1e-4)
    assert found[0].behind_best is None
    assert found[1].behind_best is not None
    assert found[1].behind_best.mean == pytest.approx(0.0533, abs=1e-4)


def ranked(name: str, over_scratch: tuple[float, float], behind: tuple[float, float] | None = None) -> Ranked:
    ends = [None if pair is None else Interval(sum(pair) / 2, *pair, 3) for pair in (over_scratch, behind)]
    assert ends[0] is not None
    return Ranked(name, 0.6, ends[0], ends[1])


def test_it_recommends_and_does_not_claim() -> None:
    simclr, sela = ranked("simclr", (0.05, 0.15)), ranked("sela", (0.01, 0.09), (-0.02, 0.12))
    jigsaw, rotnet = ranked("jigsaw", (-0.05, 0.11), (-0.01, 0.15)), ranked("rotnet", (-0.06, 0.1), (-0.02, 0.16))
    assert advice([simclr, sela, jigsaw, rotnet], [8, 32], 3, "5m", "120 held-out images") == (
        "simclr or sela may help here; simclr leads scratch by +10.0 [+5.0, +15.0] points; jigsaw and rotnet cannot "
        "be "
        "separated from scratch (mean of 8 and 32 labels per class, 3 draws, one pretraining of 5m each, 120 "
        "held-out "
        "images)."
    )
    assert [one.name for one in wanted([simclr, sela, jigsaw, rotnet])] == ["simclr", "sela"]


def test_what_is_behind_the_best_is_not_wanted() -> None:
    first, second = ranked("a", (0.05, 0.15)), ranked("b", (0.01, 0.03), (0.02, 0.14))
    assert [one.name for one in wanted([first, second])] == ["a"]
    ahead, sure = ranked("noisy", (-0.1, 0.4)), ranked("a", (0.05, 0.15), (-0.1, 0.2))
    assert [one.name for one in wanted([ahead, sure])] == ["a"]
    assert advice([ahead, sure], [8], 3, "5m", "x").startswith(
        "a may help here; noisy leads scratch by +15.0 [-10.0, +40.0] points; noisy cannot be separated from scratch "
        "("
    )


def test_where_none_can_be_separated_the_leader_is_tried_first() -> None:
    noisy = ranked("noisy", (-0.15, 0.19))
    other = ranked("other", (-0.2, 0.2), (-0.1, 0.14))
    assert [one.name for one in wanted([noisy, other])] == ["noisy"]
    assert advice([noisy, other], [8], 3, "5m", "x").startswith(
        "Try noisy first: noisy leads scratch by +2.0 [-15.0, +19.0] points; noisy and other cannot be separated "
        "from "
        "scratch ("
    )
    assert said({"a": [0.6]}, draws=1).startswith(
        "Try a first: a leads scratch by +10.0 points, and one draw gives no interval ("
    )
    assert advice([], [8], 3, "5m", "") == "None of the methods applies to these images."


@pytest.mark.parametrize("noise_of_scratch", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_intervals_hold_at_once_as_often_as_they_say(noise_of_scratch: float) -> None:
    random = np.random.default_rng(0)
    missed = behind = wrong = 0
    for _ in range(400):
        table = random.normal(size=(11, 3))
        table[10] *= noise_of_scratch
        table = 0.5 + 0.02 * (table + random.normal(size=3))
        rows = [answers(row.tolist()) for row in table]
        found = ranking({str(number): row for number, row in enumerate(rows[:10])}, rows[10], PART)
        missed += any(one.over_scratch.low > 0 or one.over_scratch.high < 0 for one in found)
        behind += any(one.behind_best.low > 0 for one in found[1:])
        wrong += "may help" in advice(found, [8], 3, "5m", "")
    assert missed <= 0.08 * 400, "ten methods, none better or worse than scratch"
    assert behind <= 0.08 * 400, "and none than another"
    assert wrong <= 0.04 * 400


def test_a_confirmation_says_what_is_better_and_what_cannot_be_separated() -> None:
    claims = [
        Claim("sela", "scratch", Interval(0.03, 0.01, 0.05, 9)),
        Claim("simclr", "scratch", Interval(-0.04, -0.05, -0.03, 9)),
        Claim("sela", "simclr", Interval(0.01, -0.02, 0.04, 9)),
    ]
    assert confirmation(claims, "3 draws") == (
        "Confirmed on new pretrainings and draws: sela is better than scratch, +3.0 [+1.0, +5.0] points; simclr is "
        "worse than scratch, -4.0 [-5.0, -3.0] points; sela cannot be separated from simclr, +1.0 [-2.0, +4.0] "
        "points "
        "(3 draws)."
    )


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("world", [STEEL, SMALL])
def test_a_confirmation_seldom_claims_among_equals(world: World, number: int) -> None:
    random = np.random.default_rng(3)
    wrong = sum(confirmed_wrongly(world, random) for _ in range(number))
    assert wrong <= 0.05 * number + 3 * (0.05 * 0.95 * number) ** 0.5


def test_a_confirmation_finds_a_true_effect() -> None:
    better = replace(CHEST, effect=0.1)
    again = sweep(better, 6, 3, np.random.default_rng(4))
    claims = confirm({"a": again.ours[:3], "b": again.ours[3:]}, again.scratch[0], better.test)
    assert [one.better for one in claims[:2]] == ["a", "b"]
