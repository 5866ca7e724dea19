"""How long scratch trains: the rule of steps or twice as many, chosen by one part of the first draw's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.difference import ScoredPart
from ssl_app.transfer import kept_predictions
from ssl_app.transfer.trial import Job, TrialSetup, draw_of
from ssl_app.transfer.workers import PlannedTrial

LONGER = 2  # times the steps of the rule
FOLDS = 5  # one of them is the validation part
CLEARLY = 2  # standard errors, that the longer training has to be better by to be called so


@dataclass(frozen=True)
class ScratchLength:
    """Steps of scratch at one budget, and why."""

    steps: int
    rising: bool  # whether the longer training was better, by more than the validation images leave open
    how: str


def length_trials(setup: TrialSetup, strategy: str, first: Mapping[int, np.ndarray]) -> list[PlannedTrial]:
    """Two trainings from random weights for each budget whose first draw has folds, none of them on the test part.

    `first` is the first draw of each budget: (n,) indices.
    """
    found = []
    for per_class, drawn in first.items():
        folds = draw_of(setup, Job(strategy, drawn, 0), seed=0).folds(FOLDS)
        if folds is None:
            continue
        fit, held = folds[0]
        for times in (1, LONGER):
            steps = times * setup.config.steps_for(len(drawn))
            job = Job(strategy, drawn[fit], 0, steps=steps, tested=drawn[held])
            found.append(PlannedTrial(_key(per_class, times), SCRATCH, per_class, job))
    return found


def chosen(
    setup: TrialSetup, folder: Path, first: Mapping[int, np.ndarray], trials: Sequence[PlannedTrial]
) -> dict[int, ScratchLength]:
    """The length of each budget, when its trials have run."""
    tried = {one.key: one for one in trials}
    found = {}
    for per_class, drawn in first.items():
        rule = setup.config.steps_for(len(drawn))
        keys = [_key(per_class, times) for times in (1, LONGER)]
        if keys[0] not in tried:
            found[per_class] = ScratchLength(rule, False, f"{rule}: too few labels to choose by")
            continue
        held = tried[keys[0]].job.tested
        assert held is not None
        labels = setup.dataset.labels[held]
        right = kept_predictions.right(folder, keys, labels)
        part = ScoredPart(labels, [setup.dataset.units[index] for index in held])
        scores = [float(part.balanced_accuracy(right[key])) for key in keys]
        gain = right[keys[1]].astype(np.float64) - right[keys[0]]
        error = float(np.square(part.influence(gain)).sum()) ** 0.5
        rising = scores[1] - scores[0] > CLEARLY * error
        steps = rule if scores[1] <= scores[0] else LONGER * rule
        how = f"{steps}: {scores[0]:.3f} at {rule} steps, {scores[1]:.3f} at {LONGER * rule} on {len(held)} labels"
        found[per_class] = ScratchLength(steps, rising, how)
    return found


def _key(per_class: int, times: int) -> str:
    return f"{SCRATCH}-length-k{per_class}-x{times}"
