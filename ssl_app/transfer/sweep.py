"""A sweep: what is compared, what makes it the same sweep, which trials it has and which are missing."""

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import console
from ssl_app.checkpoints import SCRATCH
from ssl_app.data import splits
from ssl_app.data.dataset import Dataset
from ssl_app.data.opened import Opened
from ssl_app.data.seeding import mix
from ssl_app.errors import DataError, Fix, RunError, Set, SettingsError
from ssl_app.evaluation.comparison import BASELINE, Answered
from ssl_app.evaluation.difference import reuse_of
from ssl_app.training.hardware import Hardware
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import kept_predictions
from ssl_app.transfer.draw import TransferConfig
from ssl_app.transfer.replicates import why_apart
from ssl_app.transfer.scratch_length import ScratchLength, chosen, length_trials
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.sweep_identity import identify, keep_draw, keep_identity, place_of
from ssl_app.transfer.trial import Job, TrialSetup, with_features
from ssl_app.transfer.workers import Place, PlannedTrial, Workers, read_trial

logger = logging.getLogger(__name__)

FOLDS = 5  # of cross-validation, at most


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep compares."""

    planned: Sequence[Planned]  # one for each initialization
    strategies: tuple[str, ...]
    per_class: tuple[int, ...]
    baseline_per_class: tuple[int, ...]  # of scratch alone, beside those
    draws: int
    baseline: bool  # whether scratch is among the initializations
    baseline_strategies: tuple[str, ...]  # of scratch, beside full fine-tuning
    choose_length: bool  # of scratch, by a validation part; else as long as every variant
    config: TransferConfig
    out: Path
    name: str | None
    settings: Mapping[str, Any]  # as typed, in JSON


@dataclass(frozen=True, eq=False)
class Fold:
    """Labels to train on, and the images to test on where those are not the test part."""

    drawn: NDArray[np.int64]
    tested: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Sweep:
    """Setups by name of the initialization, where results lie, and the labels of every trial."""

    spec: SweepSpec
    setups: dict[str, TrialSetup]
    place: Place
    drawn: dict[
        tuple[int, int], list[Fold]
    ]  # by labels per class and draw; one fold, or several that test all images
    identity: dict[str, Any]

    @classmethod
    def prepare(cls, spec: SweepSpec, hardware: Hardware) -> "Sweep":
        """Open everything, find or make the folder, save the draws. RunError where another sweep lies there."""
        setups = open_setups(spec, hardware)
        opened = next(iter(setups.values())).opened  # the same for all of them
        folds = [folds_of(opened, spec.config.seed, draw) for draw in range(spec.draws)]
        budgets = sorted({*spec.per_class, *spec.baseline_per_class})
        splits.check_budgets(opened.dataset, smallest(opened.dataset, folds[0]), budgets)
        identity = identify(spec, setups)
        place = place_of(spec, identity)
        drawn: dict[tuple[int, int], list[Fold]] = {}
        for draw, parts in enumerate(folds):
            for number, (train, tested) in enumerate(parts):
                for per_class in budgets:
                    found = splits.draw(opened.dataset, train, per_class, seed=spec.config.seed, draw=draw)
                    fold = "" if tested is None else f"_f{number}"
                    keep_draw(place.folder / "draws" / f"k{per_class}_d{draw}{fold}.csv", opened.dataset, found)
                    drawn.setdefault((per_class, draw), []).append(Fold(found, tested))
        return cls(spec, setups, place, drawn, identity)

    def keep_identity(self) -> None:
        """Write what the sweep is now, when no other process works on it."""
        keep_identity(self.folder, self.spec.settings, self.identity)

    @property
    def most_labels(self) -> int:
        """Of the largest class, in every part to train on."""
        opened = next(iter(self.setups.values())).opened
        return int(
            splits.label_counts(
                opened.dataset, smallest(opened.dataset, folds_of(opened, self.spec.config.seed, 0))
            ).max()
        )

    @property
    def folder(self) -> Path:
        """Of the sweep."""
        return self.place.folder

    def length_trials(self) -> list[PlannedTrial]:
        """Trainings that choose how long scratch trains; none where the user chose."""
        if SCRATCH not in self.setups or not self.spec.choose_length:
            return []
        return length_trials(self.setups[SCRATCH], BASELINE, self._first_draws())

    def scratch_lengths(self) -> dict[int, ScratchLength]:
        """Steps of scratch by labels per class, when `length_trials` have run; empty where the user chose."""
        if SCRATCH not in self.setups or not self.spec.choose_length:
            return {}
        return chosen(self.setups[SCRATCH], self.folder, self._first_draws(), self.length_trials())

    def trials(self, lengths: Mapping[int, ScratchLength]) -> list[PlannedTrial]:
        """Every trial, the large ones first. Scratch is fully trained, and only so."""
        found = []
        for (per_class, draw), folds in sorted(self.drawn.items(), key=lambda one: (one[0][1], -one[0][0])):
            for name in self.setups:
                for strategy in self._strategies(name, per_class):
                    scratch = name == SCRATCH and strategy == BASELINE
                    steps = lengths[per_class].steps if scratch and lengths else None
                    for number, fold in enumerate(folds):
                        key = kept_predictions.key_of(name, strategy, per_class, draw)
                        job = Job(strategy, fold.drawn, draw, steps=steps, tested=fold.tested)
                        if fold.tested is None:
                            found.append(PlannedTrial(key, name, per_class, job))
                        else:
                            found.append(PlannedTrial(f"{key}-f{number}", name, per_class, job, number))
        return found

    def _strategies(self, name: str, per_class: int) -> tuple[str, ...]:
        """Those of an initialization at one size: scratch has its own, and further sizes of the baseline."""
        usual = per_class in self.spec.per_class
        if name != SCRATCH:
            return self.spec.strategies if usual else ()
        return (BASELINE, *(self.spec.baseline_strategies if usual else ()))

    def _first_draws(self) -> dict[int, NDArray[np.int64]]:
        return {per_class: folds[0].drawn for (per_class, draw), folds in self.drawn.items() if draw == 0}

    def done(self, trials: Sequence[PlannedTrial]) -> dict[str, dict[str, Any]]:
        """Results of those that have run, by key."""
        kept = kept_predictions.keys(self.folder)
        read = {one.key: read_trial(self.place, one) for one in trials if kept & {one.key, one.kept_as}}
        return {key: content for key, content in read.items() if content is not None}

    def run(self, trials: list[PlannedTrial], workers: Workers) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """Run trials. -> (trial, result) as they finish."""
        return workers.run(self.setups, trials, self.place)

    def answered(self, trials: Sequence[PlannedTrial]) -> Answered:
        """What trials that have run answered; their predictions are joined into one file."""
        opened = next(iter(self.setups.values())).opened
        test = opened.parts.test
        labels, groups = opened.dataset.labels[test], [opened.dataset.units[index] for index in test]
        places: dict[str, list[tuple[str, NDArray[np.int64] | None]]] = {}
        for one in trials:
            rows = None if one.job.tested is None else np.searchsorted(test, one.job.tested)
            places.setdefault(one.kept_as, []).append((one.key, rows))
        kept_predictions.gather(self.folder, places, labels, groups)
        parts = opened.parts
        pool = splits.label_counts(opened.dataset, parts.test if parts.cross_validated else parts.train).tolist()
        reuse = {
            per_class: reuse_of(splits.label_counts(opened.dataset, folds[0].drawn).tolist(), pool, len(folds))
            for (per_class, _), folds in self.drawn.items()
        }
        about = {(one.init, one.job.strategy, one.per_class, one.job.draw) for one in trials}
        return kept_predictions.answered(self.folder, sorted(about), reuse)

    def pooled(self) -> list[str]:
        """The inits that the verdict is about: the first, and replicates of it with other seeds."""
        outside = self.outside()
        return [name for name in self.setups if name != SCRATCH and name not in outside]

    def outside(self) -> dict[str, str]:
        """The other inits, each with the reason why the verdict leaves it out."""
        starts = [setup.initialization for name, setup in self.setups.items() if name != SCRATCH]
        taken, found = starts[:1], {}
        for start in starts[1:]:
            reason = why_apart(start, taken)
            if reason is None:
                taken.append(start)
            else:
                found[start.name] = reason
        return found


def open_setups(spec: SweepSpec, hardware: Hardware) -> dict[str, TrialSetup]:
    """A setup for each initialization and for scratch, which is built as the first of them is.

    Raises DataError and RunError where two would differ in more than their weights.
    """
    _refuse_same_names([one.initialization for one in spec.planned])
    setups: dict[str, TrialSetup] = {}
    pretrained = [one for one in spec.planned if one.initialization.name != SCRATCH]
    with console.without_repeats():  # of data that all of them share
        for one in pretrained or spec.planned:
            setup = prepare(one, spec.config, hardware)
            for first in list(setups.values())[:1]:
                refuse_unlike(first, setup)
            if spec.config.head == "linear" and one.initialization.pretrained:
                setup = with_features(setup, spec.out / "cache")
            setups[one.initialization.name] = setup
    wanted = spec.baseline or len(pretrained) < len(spec.planned)
    if wanted and SCRATCH not in setups:
        first = next(iter(setups.values()))
        scratch = Initialization(SCRATCH, first.initialization.backbone)
        setups[SCRATCH] = replace(first, initialization=scratch, cache=None)
    return setups


def _refuse_same_names(starts: Sequence[Initialization]) -> None:
    """Raise SettingsError where a table could not tell two initializations apart."""
    names: set[str] = set()
    for start in starts:
        if start.name in names:
            raise SettingsError(
                f"two initializations have the same name, {start.name} ({start.source} is the second)",
                fix=Fix("rename one of them"),
            )
        if start.name == SCRATCH and start.pretrained:
            raise SettingsError(
                f"{start.source} would be called {SCRATCH}, as random weights are", fix=Fix("rename it")
            )
        names.add(start.name)


def refuse_unlike(one: TrialSetup, other: TrialSetup) -> None:
    """Raise DataError or RunError where two would not share data, split, network and size of images."""
    ours, theirs = one.opened, other.opened
    a, b = ours.dataset, theirs.dataset
    first, second = one.initialization, other.initialization
    names = f"the initializations {first.name} and {second.name}"
    if (a.hash, a.classes) != (b.hash, b.classes):
        raise DataError(
            f"{names} would see different data ({a.name} and {b.name})",
            expected="one set for all",
            fix=Set("data", "D"),
        )
    if not all(np.array_equal(getattr(ours.parts, part), getattr(theirs.parts, part)) for part in ("train", "test")):
        also: tuple[tuple[str, object], ...] = (("split", "COLUMN"),)
        if ours.parts.seed is not None:
            also = (("split_seed", ours.parts.seed), ("test_fraction", f"{ours.parts.fraction:g}"))
        raise DataError(
            f"{names} would be tested on different images of {a.name} ({ours.parts.how}, and {theirs.parts.how})",
            expected="one split for all",
            fix=Set("data", a.name, also),
        )
    pairs = (
        ("backbone", first.backbone, second.backbone),
        ("image size", f"{a.image_size} px", f"{b.image_size} px"),
        ("channels", a.images.shape[-1], b.images.shape[-1]),
    )
    unlike = ", ".join(f"{what} ({x} and {y})" for what, x, y in pairs if x != y)
    if unlike:
        raise RunError(
            f"{names} differ in {unlike}, and one scratch cannot serve both", fix=Fix("run one sweep for each")
        )
    if one.scaling != other.scaling:
        logger.info(
            f"remark: {second.name} scales pixels in another way than {first.name}, each as its weights "
            f"need it; scratch does as {first.name}"
        )


def folds_of(opened: Opened, seed: int, draw: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
    """(train, tested) indices: the training part and the test part as they are, or folds of all labeled images.

    Raises DataError where a class cannot be trained on and tested.
    """
    parts, dataset = opened.parts, opened.dataset
    if not parts.cross_validated:
        return [(parts.train, None)]
    labeled = parts.test
    units = [dataset.units[index] for index in labeled]
    found = splits.folds(dataset.labels[labeled], units, FOLDS, mix(seed, draw) % 2**32)
    if found is None:
        of_class = splits.units_of_classes(dataset)
        scarce = min(range(len(of_class)), key=lambda label: len(of_class[label]))
        name, count = dataset.classes[scarce], int(splits.label_counts(dataset, labeled)[scarce])
        group = dataset.columns.group if dataset.groups is not None else None
        few = "" if count == 1 or len(of_class[scarce]) > 1 else f", all of one {group or 'picture'}"
        more = "label more of that class" if group is None else f"give it images of another {group}"
        raise DataError(
            f"class '{name}' has {count} labeled image{'s' * (count > 1)}{few}: none to train on and "
            "others to test on",
            fix=(Set("unlabeled", quote(name)), Fix(more)),
        )
    return [(labeled[fit], labeled[held]) for fit, held in found]


def smallest(dataset: Dataset, folds: Sequence[tuple[NDArray[np.int64], object]]) -> NDArray[np.int64]:
    """The training part, or that of the fold whose largest class has the fewest labels."""
    return min((train for train, _ in folds), key=lambda train: int(splits.label_counts(dataset, train).max()))
