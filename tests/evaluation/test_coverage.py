"""Intervals hold what is claimed of them, over sweeps that were simulated whole (tests/simulated_sweeps.py)."""

from dataclasses import replace

import numpy as np
import pytest

from tests.simulated_sweeps import FEW, WORLDS, World, claimed, folds_hold, found, holds, saved_holds

FAST, SLOW = 300, 2000

SIZES = [FAST, pytest.param(SLOW, marks=pytest.mark.slow)]


def within(share: float, number: int, low: float, high: float) -> bool:
    """Whether a share among so many sweeps may be that of a probability from low to high, with 3 standard errors."""
    error = 3 * (0.05 * 0.95 / number) ** 0.5
    return low - error <= share <= high + error


def covered(world: World, pretrainings: int, draws: int, number: int) -> tuple[float, float]:
    """Shares of sweeps whose interval holds the truth, and lies above zero."""
    generator, held, above = np.random.default_rng(1), 0, 0
    for _ in range(number):
        difference, answers = found(world, pretrainings, draws, generator)
        held += holds(difference.interval, claimed(answers))
        above += (difference.interval.low or 0.0) > 0
    return held / number, above / number


@pytest.mark.parametrize("number", SIZES)
@pytest.mark.parametrize(("pretrainings", "draws"), [(1, 3), (1, 5), (3, 3)])
@pytest.mark.parametrize("name", WORLDS)
def test_an_interval_covers_these_pretrainings_or_others_and_other_test_images(
    name: str, pretrainings: int, draws: int, number: int
) -> None:
    share, _ = covered(WORLDS[name], pretrainings, draws, number)
    assert within(share, number, 0.93, 0.98 if pretrainings == 3 else 0.97), share


@pytest.mark.parametrize("number", SIZES)
@pytest.mark.parametrize(("pretrainings", "draws"), [(1, 5), (3, 3)])
@pytest.mark.parametrize("name", WORLDS)
def test_without_an_effect_an_interval_lies_above_zero_in_at_most_3_5_percent(
    name: str, pretrainings: int, draws: int, number: int
) -> None:
    world = WORLDS[name] if pretrainings == 3 else replace(WORLDS[name], pretraining=0.0)
    _, above = covered(world, pretrainings, draws, number)
    assert above <= 0.035 + 3 * (0.03 * 0.97 / number) ** 0.5


@pytest.mark.parametrize(
    ("name", "pretrainings", "number"),
    [("chest", 1, FAST), *(pytest.param(name, p, SLOW, marks=pytest.mark.slow) for name in WORLDS for p in (1, 3))],
)
def test_labels_saved_covers_a_factor_of_two(name: str, pretrainings: int, number: int) -> None:
    number //= 4  # each tries many numbers of labels
    generator = np.random.default_rng(2)
    held = sum(saved_holds(WORLDS[name], pretrainings, generator) for _ in range(number))
    assert within(held / number, number, 0.90, 0.99), held / number


@pytest.mark.parametrize("number", SIZES)
@pytest.mark.parametrize(
    ("per_class", "pretrainings", "repeats"),
    [(4, 3, 5), *(pytest.param(*one, marks=pytest.mark.slow) for one in [(4, 1, 3), (4, 1, 5), (8, 1, 5)])],
)
@pytest.mark.parametrize("name", FEW)
def test_repeated_cross_validation_covers_other_labels_and_other_images(
    name: str, per_class: int, pretrainings: int, repeats: int, number: int
) -> None:
    generator = np.random.default_rng(5)
    held = sum(folds_hold(FEW[name], per_class, (pretrainings, repeats), generator) for _ in range(number))
    assert within(held / number, number, 0.92, 0.985), held / number
