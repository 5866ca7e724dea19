"""Images that `ssl-app suggest` chooses against drawn ones: balanced accuracy over labels, as a table and a figure.

    python benchmarks/suggest.py --run RUN [--run RUN ...] [--data D] [--group COLUMN] [--out ssl-runs]
                                 [--labels 3,6,12,24,48] [--draws 10] [--threads N] [--figure FILE.png]

suggested: those of clustering/coverage.py on the frozen features, with nothing labeled before; one choice, and of
           more than 5,000 images one for each sample of them.
balanced:  draws with as many labels of each class, one more of some where the number does not divide.
random:    draws from all training images, as a person has who labels what comes next.

The set must be labeled in full; the labels of what is chosen are looked up. Each choice and each draw trains the head
of label propagation (evaluation/propagated_head.py) on frozen features, and is tested once on the test part. A class
without a label counts as never found. Printed are the mean of each run, and mean and standard deviation over all; the
test images are the same for all, so differences are paired in them. At the end, for each number of suggested labels:
how many drawn ones have the same mean, between two sizes by the logarithm. Draws go on to four times the labels for
that.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_app.clustering import coverage, label_propagation
from ssl_app.commands.base import hardware_of, planned_of, transfer_config
from ssl_app.console import show_messages
from ssl_app.environment import prepare_environment
from ssl_app.evaluation import propagated_head
from ssl_app.settings import StageTwoSettings

FURTHER = (2, 4)  # times the largest number, for draws alone
Choice = Callable[[int, int], np.ndarray]  # labels and seed -> places in the training part


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--run", required=True, action="append")
    reader.add_argument("--data")
    reader.add_argument("--group")
    reader.add_argument("--out", type=Path, default=Path("ssl-runs"))
    reader.add_argument("--labels", default="3,6,12,24,48")
    reader.add_argument("--draws", type=int, default=10)
    reader.add_argument("--threads", type=int)
    reader.add_argument("--figure", type=Path)
    given = reader.parse_args()
    sizes = sorted({int(part) for part in given.labels.split(",")})
    prepare_environment()
    show_messages()
    settings = StageTwoSettings(out=given.out, data=given.data, group=given.group, threads=given.threads)
    trials = [Trial(run, settings) for run in given.run]
    further = [sizes[-1] * times for times in FURTHER]
    found: dict[str, dict[int, np.ndarray]] = {}
    for name in trials[0].choices():
        found[name] = {}
        for size in sizes if name == "suggested" else [*sizes, *further]:
            if size > min(len(one.train) for one in trials):
                continue
            started = time.perf_counter()
            same = name == "suggested" and all(len(one.train) <= coverage.MOST for one in trials)
            seeds = range(1 if same else given.draws)
            each = [[one.score(one.choices()[name](size, seed)) for seed in seeds] for one in trials]
            found[name][size] = scores = np.array(each).ravel()
            spread = scores.std(ddof=1) if len(scores) > 1 else float("nan")
            means = " ".join(f"{np.mean(some):.3f}" for some in each)
            print(
                f"{name:<9} {size:>4} labels: {scores.mean():.3f} ({means}), sd {spread:.3f}, n = {len(scores)} "
                f"({time.perf_counter() - started:.0f} s)",
                flush=True,
            )
    summarize(found)
    if given.figure:
        draw(found, given.figure)


class Trial:
    """A run's frozen features of a labeled set, and the score of any choice of labels."""

    def __init__(self, run: str, settings: StageTwoSettings) -> None:
        from ssl_app.training.initialization import load_initialization
        from ssl_app.transfer.setup import prepare
        from ssl_app.transfer.trial import with_features

        start = load_initialization(run, settings.out, None)
        config = transfer_config(settings, start, "within", settings.seed)
        setup = prepare(planned_of(settings, start, "test"), config, hardware_of(settings))
        setup = with_features(setup, settings.out / "cache")
        dataset, parts = setup.dataset, setup.opened.parts
        every = setup.features_of(setup.config.layer)
        self.dataset, self.train = dataset, parts.train
        self.features = np.asarray(every[parts.train])
        self.labels, self.classes = dataset.labels[parts.train], len(dataset.classes)
        self.tested, self.truth = np.asarray(every[parts.test]), dataset.labels[parts.test]
        self.graph = setup.graph_of(setup.config.layer, parts.train, label_propagation.NEIGHBORS)  # the same for all

    def choices(self) -> dict[str, Choice]:
        """The three ways to choose."""
        dataset, train = self.dataset, self.train
        groups = None if dataset.groups is None else [dataset.units[row] for row in train]

        def suggested(size: int, seed: int) -> np.ndarray:
            nothing = np.zeros(len(train), dtype=bool)
            return coverage.choose(
                self.features, nothing, size, groups=groups, content=dataset.content[train], seed=seed
            ).indices

        def balanced(size: int, seed: int) -> np.ndarray:
            generator = np.random.default_rng([seed, 1])
            each, rest = divmod(size, self.classes)
            more = set(generator.permutation(self.classes)[:rest].tolist())
            own = [generator.permutation(np.flatnonzero(self.labels == label)) for label in range(self.classes)]
            return np.concatenate([rows[: each + (label in more)] for label, rows in enumerate(own)])

        def random(size: int, seed: int) -> np.ndarray:
            return np.random.default_rng([seed, 2]).permutation(len(train))[:size]

        return {"suggested": suggested, "balanced": balanced, "random": random}

    def score(self, places: np.ndarray) -> float:
        """Balanced accuracy on the test part with these labels alone."""
        head, _ = propagated_head.fit(self.features, places, self.labels[places], self.classes, graph=self.graph)
        predicted = head.logits(self.tested).argmax(1)
        return float(np.mean([(predicted[self.truth == one] == one).mean() for one in np.unique(self.truth)]))


def summarize(found: dict[str, dict[int, np.ndarray]]) -> None:
    """How many drawn labels do what the suggested ones do."""
    for size, scores in found["suggested"].items():
        equal = [f"{equivalent(scores.mean(), found[name])} {name} ones" for name in ("balanced", "random")]
        print(f"{size} suggested labels ({scores.mean():.3f}) do what {' and '.join(equal)} do")


def equivalent(score: float, curve: dict[int, np.ndarray]) -> str:
    """The number of labels at which the rising curve of means first has this score."""
    sizes, means = list(curve), np.maximum.accumulate([scores.mean() for scores in curve.values()])
    if score <= means[0]:
        return f"{sizes[0]} or fewer" if score < means[0] else str(sizes[0])
    if score > means[-1]:
        return f"more than {sizes[-1]}"
    after = int(np.searchsorted(means, score))
    share = (score - means[after - 1]) / (means[after] - means[after - 1])
    return f"{np.exp(np.interp(share, [0, 1], np.log(sizes[after - 1 : after + 1]))):.0f}"


def draw(found: dict[str, dict[int, np.ndarray]], path: Path) -> None:
    """Means over labels, with one standard deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in found.items():
        means, spreads = (np.array([fn(scores) for scores in curve.values()]) for fn in (np.mean, np.std))
        axes.plot(list(curve), means, marker="o", label=name)
        axes.fill_between(list(curve), means - spreads, means + spreads, alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(found["random"]), [str(size) for size in found["random"]])
    axes.set(xlabel="labels in all", ylabel="balanced accuracy on the test part")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
