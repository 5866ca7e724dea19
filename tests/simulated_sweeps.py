"""Sweeps that were never trained: right answers drawn from a model whose true effects are known.

A classifier is right on an image where a sum of normal deviates is above zero: how easy the image is, for everyone
and for this kind of network, what its group, its draw of labels and its pretraining add, and the noise of a training.
A mean over any of them is then a normal probability, so that the truth needs no simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.difference import Difference, ScoredPart, reuse_of
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import labels_saved
from ssl_app.evaluation.ranking import confirm, ranking

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Standard deviations, in units of one for all that differs from image to image."""

    images: tuple[int, ...]  # of each class
    in_group: int  # images of a patient
    level: float  # balanced accuracy of scratch
    effect: float  # ours minus scratch, in accuracy
    shared: float  # share of an image's variance that both networks have in common
    draw: float  # luck of a draw of labels, for both
    draw_apart: float  # and for each of the two
    pretraining: float
    training: float  # noise of one training, over all images
    budgets: Sequence[float] = field(default=(0.0,))  # how much better scratch is at each budget, in accuracy

    @property
    def test(self) -> ScoredPart:
        labels = np.repeat(np.arange(len(self.images)), self.images)
        return ScoredPart(labels, np.arange(len(labels)) // self.in_group)


CHEST = World((400, 260, 406), 2, 0.70, 0.0, 0.75, 0.06, 0.04, 0.035, 0.03)
STEEL = World((57,) * 6, 1, 0.90, 0.0, 0.6, 0.12, 0.08, 0.08, 0.05)
SMALL = World((20, 20, 20), 1, 0.75, 0.0, 0.6, 0.10, 0.08, 0.06, 0.05)
WORLDS = {"chest": CHEST, "steel": STEEL, "small": SMALL}
# few labels in all, which are trained on and tested fold by fold
FEW = {
    "sixty": World((20, 20, 20), 1, 0.75, 0.0, 0.6, 0.10, 0.08, 0.06, 0.05),
    "twenty-four": World((12, 12), 1, 0.75, 0.0, 0.6, 0.15, 0.12, 0.06, 0.05),
    "patients": World((24, 24, 24), 2, 0.70, 0.0, 0.75, 0.06, 0.04, 0.035, 0.03),
}
FOLDS = 5


@dataclass(frozen=True)
class Answers:
    """Right answers of one sweep, and the true differences at each budget: for these pretrainings, and for others."""

    ours: Floats  # (P, D, N)
    scratch: Floats  # (B, D, N)
    of_these: float
    of_others: float


def above(mean: float) -> float:
    """Probability that a normal deviate of this mean, and variance one, is above zero."""
    return 0.5 * (1 + erf(mean / sqrt(2)))


def mean_for(probability: float, variance: float) -> float:
    """The mean at which a normal deviate is above zero with this probability."""
    from scipy.stats import norm

    return float(norm.ppf(probability)) * sqrt(variance)


def sweep(world: World, pretrainings: int, draws: int, generator: np.random.Generator) -> Answers:
    """One sweep: new images, draws, pretrainings and trainings."""
    test = world.test
    number, groups = len(test.labels), int(test.members.max()) + 1

    def normal(*shape: int) -> Floats:
        return generator.standard_normal(shape)

    # an image's variance is one: half of it is its group's
    def of_images(share: float, *shape: int) -> Floats:
        apart, together = normal(*shape, number), normal(*shape, groups)[..., test.members]
        return np.asarray(sqrt(share / 2) * (apart + together))

    common = of_images(world.shared)
    kind = [of_images((1 - world.shared) / 2) for _ in range(2)]  # of networks from random weights, and of ours
    rest = (1 - world.shared) / 2
    draw = world.draw * normal(draws)[:, None]
    luck = world.pretraining * normal(pretrainings)[:, None, None]
    ours = common + kind[1] + draw + world.draw_apart * normal(draws)[:, None] + luck
    ours = ours + world.training * normal(pretrainings, draws)[..., None] + of_images(rest, pretrainings, draws)
    scratch = common + kind[0] + draw + world.draw_apart * normal(draws)[:, None]
    scratch = scratch + world.training * normal(len(world.budgets), draws)[..., None]
    scratch = scratch + of_images(rest, len(world.budgets), draws)
    without = 1 + world.draw**2 + world.draw_apart**2 + world.training**2  # variance of one answer, pretraining apart
    mean = mean_for(world.level + world.effect, without + world.pretraining**2)
    means = [mean_for(world.level + more, without) for more in world.budgets]
    now = float(np.mean([above((mean + one) / sqrt(without)) for one in luck.ravel().tolist()]))
    return Answers(
        (ours + mean > 0).astype(np.float64),
        (scratch + np.array(means)[:, None, None] > 0).astype(np.float64),
        now - world.level,
        world.effect,
    )


def cross_validated(
    world: World, per_class: int, pretrainings: int, repeats: int, generator: np.random.Generator
) -> Answers:
    """A sweep by repeated cross-validation: every image is tested once a repeat, by networks that did not see it.

    The luck of a draw is the sum of what its images bring, so that draws which share images share luck.
    """
    test = world.test
    number, groups, classes = len(test.labels), int(test.members.max()) + 1, len(world.images)

    def of_images(share: float) -> Floats:
        apart, together = generator.standard_normal(number), generator.standard_normal(groups)[test.members]
        return np.asarray(sqrt(share / 2) * (apart + together))

    common = of_images(world.shared)
    kind = [of_images((1 - world.shared) / 2) for _ in range(2)]
    rest = sqrt((1 - world.shared) / 2)
    brought = generator.standard_normal((3, number)) * np.array(
        [[world.draw], [world.draw_apart], [world.draw_apart]]
    )
    luck = world.pretraining * generator.standard_normal(pretrainings)
    without = 1 + world.draw**2 + world.draw_apart**2 + world.training**2
    mean = mean_for(world.level + world.effect, without + world.pretraining**2)
    base = mean_for(world.level, without)
    ours, scratch = np.empty((pretrainings, repeats, number)), np.empty((1, repeats, number))
    for repeat in range(repeats):
        fold = generator.permutation(np.arange(groups) % FOLDS)[test.members]
        for one in range(FOLDS):
            held, fit = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
            drawn = np.concatenate(
                [generator.permutation(fit[test.labels[fit] == k])[:per_class] for k in range(classes)]
            )
            both, apart, theirs = brought[:, drawn].mean(1) * sqrt(len(drawn))

            def trained(level: float, which: int) -> Floats:
                noise = world.training * generator.standard_normal() + rest * generator.standard_normal(len(held))  # noqa: B023
                return common[held] + kind[which][held] + noise + level > 0  # noqa: B023

            for number_of, extra in enumerate(luck.tolist()):
                ours[number_of, repeat, held] = trained(mean + both + apart + extra, 1)
            scratch[0, repeat, held] = trained(base + both + theirs, 0)
    now = float(np.mean([above((mean + one) / sqrt(without)) for one in luck.tolist()]))
    return Answers(ours, scratch, now - world.level, world.effect)


# What is counted over sweeps, by the tests and by benchmarks/coverage.py.

LABELS = (2, 4, 8, 16, 32)  # per class, where labels saved are simulated
SLOPE = 0.04  # of scratch's accuracy, for each doubling of the labels
METHODS = 6  # of a comparison


def holds(interval: Interval, truth: float) -> bool:
    """Whether the truth lies inside."""
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= truth <= interval.high


def found(world: World, pretrainings: int, draws: int, generator: np.random.Generator) -> tuple[Difference, Answers]:
    """The difference that one sweep finds, and the truth with it."""
    answers = sweep(world, pretrainings, draws, generator)
    return Difference.between(answers.ours, answers.scratch[0], world.test), answers


def claimed(answers: Answers) -> float:
    """The true difference that a verdict is about: of these pretrainings where there is one, else of others."""
    return answers.of_these if len(answers.ours) == 1 else answers.of_others


def saved_holds(world: World, pretrainings: int, generator: np.random.Generator) -> bool:
    """Whether the interval of labels saved holds a true factor of two, in one sweep of five draws."""
    steps = tuple(SLOPE * (np.log2(labels) - 3) for labels in LABELS)
    luck = world.pretraining if pretrainings > 1 else 0.0
    world = replace(world, level=0.75, budgets=steps, effect=SLOPE, pretraining=luck)
    answers, test = sweep(world, pretrainings, 5, generator), world.test
    differences = [Difference.between(answers.ours, scratch, test) for scratch in answers.scratch]
    scores = (test.balanced_accuracy(answers.scratch).T, test.balanced_accuracy(answers.ours))
    one = labels_saved(LABELS, *scores, differences, 8)
    return (one.low or 0.0) <= 2 <= (one.high or np.inf)


def folds_hold(world: World, per_class: int, size: tuple[int, int], generator: np.random.Generator) -> bool:
    """Whether the interval of one repeated cross-validation holds the truth; size: pretrainings, repeats."""
    answers = cross_validated(world, per_class, *size, generator)
    reuse = reuse_of([per_class] * len(world.images), np.bincount(world.test.labels).tolist(), FOLDS)
    difference = Difference.between(answers.ours, answers.scratch[0], world.test, reuse)
    return holds(difference.interval, claimed(answers))


def confirmed_wrongly(world: World, generator: np.random.Generator) -> bool:
    """Whether `compare --confirm` claims a difference among equal methods."""
    first = sweep(world, METHODS, 3, generator)
    ranked = ranking({str(n): right for n, right in enumerate(first.ours)}, first.scratch[0], world.test)
    again = sweep(world, 6, 3, generator)
    ours = {one.name: again.ours[3 * n : 3 * n + 3] for n, one in enumerate(ranked[:2])}
    claims = confirm(ours, again.scratch[0], world.test)
    return any(one.better == one.name or (one.better and one.other != "scratch") for one in claims)
