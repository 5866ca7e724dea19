"""One trial: one initialization, one strategy, one labeled draw; trained on the draw, tested once.

`finetune` runs one of these and `sweep` many, so that both mean the same by every number.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app import registry
from ssl_app.classification import Classifier
from ssl_app.data import splits
from ssl_app.data.loading import Loader
from ssl_app.data.pixels import Pixels
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Augment
from ssl_app.evaluation import logistic
from ssl_app.evaluation.metrics import classification
from ssl_app.handover import Initialization
from ssl_app.inference import pooled_features, probabilities, probabilities_of_features
from ssl_app.models.heads import build_head
from ssl_app.opening import Opened
from ssl_app.settings import TransferSettings
from ssl_app.training.hardware import Hardware
from ssl_app.training.loop import fit
from ssl_app.training.optimizing import Plan
from ssl_app.training.saving import Row
from ssl_app.transfer.base import Budget, Phase, Strategy

FOLDS = 5  # inside a draw, to choose the regularization
# steps where the user names none, fewer cut scratch short (docs/design.md): ten for each label
STEPS_PER_LABEL, FEWEST_STEPS, MOST_STEPS = 10, 300, 1000
PASSES = 30  # over the labels, where those are so many that MOST_STEPS make less
LOOKS = 10  # how often a held-out validation set is looked at in a phase
Validation = Literal["within", "held-out"]


@dataclass(frozen=True)
class Recipe:
    """What every trial of a comparison shares."""

    steps: int | None  # None: by the number of labels
    batch_size: int
    rate: float
    weight_decay: float
    clip: float
    optimizer: Literal["sgd", "adamw"]
    augment: Literal["none", "light", "standard"]
    mirror: bool | None
    head: Literal["linear", "mlp"]
    layer: str | None
    validation: Validation
    seed: int

    def steps_for(self, labels: int) -> int:
        """Optimizer steps with so many labels, the same for every arm: enough for scratch to be trained fully."""
        if self.steps is not None:
            return self.steps
        by_label = min(STEPS_PER_LABEL * labels, MOST_STEPS)
        by_pass = -(-PASSES * labels // (self.batch_size * LOOKS)) * LOOKS
        return max(FEWEST_STEPS, by_label, by_pass)


def recipe_of(settings: TransferSettings, validation: Validation, seed: int) -> Recipe:
    """The recipe that a verb's settings ask for."""
    own = {field: getattr(settings, field) for field in Recipe.__dataclass_fields__ if hasattr(settings, field)}
    return Recipe(**(own | {"rate": settings.lr, "validation": validation, "seed": seed}))


@dataclass(frozen=True)
class Bench:
    """A set, an initialization and the hardware: what trials of one initialization are run on."""

    opened: Opened
    start: Initialization
    pixels: Pixels
    recipe: Recipe
    hardware: Hardware
    features: NDArray[np.float32] | None = None  # (M, d) of every row of the set, where a closed fit needs them


@dataclass(frozen=True)
class Outcome:
    """What a trial found."""

    test: Mapping[str, Any]  # metrics on the test set
    probabilities: NDArray[np.float64]  # (n, K)
    labels: NDArray[np.int64]  # (n,)
    rows: NDArray[np.int64]  # (n,) of the set
    labels_used: int
    how: str  # what was chosen, and by what
    seconds: float
    history: list[Row]
    classifier: Classifier


def run(bench: Bench, strategy: str, drawn: NDArray[np.int64], draw: int) -> Outcome:
    """Train on the rows drawn and test. Randomness is a function of (seed, draw, number of labels)."""
    started = time.monotonic()
    dataset, parts = bench.opened.dataset, bench.opened.parts
    method: Strategy = registry.find("transfer", strategy)()
    seed = mix(bench.recipe.seed, draw, len(drawn), 7) >> 1
    classifier = _classifier(bench, drawn, seed)
    how, history = _train(bench, classifier, method, drawn, draw, seed)
    test = parts.test
    if bench.features is not None and not history:  # the backbone is as the features were made: nothing to compute
        found = probabilities_of_features(classifier, bench.features[test])
    else:
        found = probabilities(classifier, test, dataset.images, bench.pixels, bench.hardware)
    labels = dataset.labels[test]
    metrics = classification(found, labels, dataset.classes)
    seconds = time.monotonic() - started
    return Outcome(metrics, found, labels, test, len(drawn), how, seconds, history, classifier)


def _classifier(bench: Bench, drawn: NDArray[np.int64], seed: int) -> Classifier:
    dataset = bench.opened.dataset
    backbone, _ = bench.start.build(dataset.images.shape[-1], dataset.image_size, seed)
    torch.manual_seed(seed)  # heads of one draw start alike, whatever the backbone
    head = build_head(bench.recipe.head, backbone.shape(bench.recipe.layer), len(dataset.classes))
    return Classifier(backbone, head, bench.recipe.layer, torch.from_numpy(dataset.labels[drawn]))


def _train(
    bench: Bench, classifier: Classifier, method: Strategy, drawn: NDArray[np.int64], draw: int, seed: int
) -> tuple[str, list[Row]]:
    """The strategy's phases, one after the other. -> what was chosen and by what, and the rows of the curves."""
    recipe, dataset = bench.recipe, bench.opened.dataset
    budget = Budget(
        recipe.steps_for(len(drawn)),
        len(drawn),
        recipe.rate,
        bench.start.tensors is not None,
        recipe.head == "linear",
    )
    augment = Augment(recipe.augment, dataset.image_size, dataset.images.shape[1], _mirrors(bench))
    history: list[Row] = []
    told = []
    for number, phase in enumerate(method.phases(budget)):
        if phase.closed:
            told.append(f"{phase.name}: {_closed(bench, classifier, drawn, draw)}")
            continue
        loader = Loader(
            dataset.images,
            drawn,
            bench.pixels,
            augment,
            batch_size=recipe.batch_size,
            seed=mix(seed, number) >> 1,
            labels=dataset.labels[drawn],
        )
        history += _phase(bench, classifier, phase, loader)
        picked = (
            "the last weights"
            if recipe.validation == "within"
            else f"best of {_looks(phase.steps)} looks at held-out labels"
        )
        told.append(f"{phase.name}: {phase.steps} steps, {picked}")
    return "; ".join(told), history


def _phase(bench: Bench, classifier: Classifier, phase: Phase, loader: Loader) -> list[Row]:
    recipe = bench.recipe
    looks = 1 if recipe.validation == "within" else _looks(phase.steps)
    plan = Plan(
        rates=phase.rates,
        epochs=looks,
        steps_per_epoch=phase.steps // looks,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
    )
    best_score: float = -1.0
    best_state: dict[str, Tensor] | None = None

    def look(rows: list[Row]) -> None:
        nonlocal best_score, best_state
        if recipe.validation == "held-out":
            dataset, val = bench.opened.dataset, bench.opened.parts.val
            found = probabilities(classifier, val, dataset.images, bench.pixels, bench.hardware)
            metrics = classification(found, dataset.labels[val], dataset.classes)
            score = cast(float, metrics["balanced_accuracy"])
            rows[-1]["val_balanced_accuracy"] = score
            if score > best_score:
                best_score = score
                best_state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}

    rows = fit(classifier, loader, plan, bench.hardware, title=phase.name, say=_quiet, each_epoch=look)
    if best_state is not None:
        classifier.load_state_dict(best_state)
    return [row | {"phase_" + phase.name: 1.0} for row in rows]


def _looks(steps: int) -> int:
    """How often held-out labels are looked at: at most LOOKS times, in stretches of equal length."""
    return next(looks for looks in range(LOOKS, 0, -1) if steps % looks == 0)


def _quiet(sentence: str) -> None:
    pass


def _mirrors(bench: Bench) -> bool:
    mirror = bench.recipe.mirror
    return bench.opened.dataset.mirrors if mirror is None else mirror


def _closed(bench: Bench, classifier: Classifier, drawn: NDArray[np.int64], draw: int) -> str:
    """Fill a linear head in by a convex fit on features, cached or computed for these rows. -> how C was chosen."""
    dataset, recipe = bench.opened.dataset, bench.recipe
    labels = dataset.labels[drawn]
    validation, folds = None, None
    if recipe.validation == "held-out":
        val = bench.opened.parts.val
        validation = (_features_of(bench, classifier, val), dataset.labels[val])
    else:
        units = [dataset.units[row] for row in drawn]
        folds = splits.folds(labels, units, FOLDS, mix(recipe.seed, draw) % 2**32)
    features = _features_of(bench, classifier, drawn)
    found = logistic.fit(features, labels, len(dataset.classes), folds=folds, validation=validation)
    with torch.no_grad():
        classifier.head.last.weight.copy_(torch.as_tensor(found.weight))
        classifier.head.last.bias.copy_(torch.as_tensor(found.bias))
    return found.how


def _features_of(bench: Bench, classifier: Classifier, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    if bench.features is not None:
        return bench.features[rows]
    return pooled_features(classifier, rows, bench.opened.dataset.images, bench.pixels, bench.hardware)


def features(bench: Bench, cache: Path) -> Bench:
    """The bench with pooled features of every image, (M, d), computed once a checkpoint, layer and set."""
    dataset, layer = bench.opened.dataset, bench.recipe.layer
    start, hardware = bench.start, bench.hardware
    network = (start.content, start.backbone, layer, dataset.image_size)
    what = repr((network, dataset.key, bench.pixels.to_json(), hardware.device.type, hardware.bf16))
    path = cache / "features" / f"{hashlib.blake2b(what.encode(), digest_size=16).hexdigest()}.npy"
    if not path.is_file():
        classifier = _classifier(bench, np.arange(0), bench.recipe.seed)
        rows = np.arange(len(dataset.keys))
        found = pooled_features(classifier, rows, dataset.images, bench.pixels, bench.hardware)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{time.time_ns()}.npy")
        np.save(temporary, found)
        temporary.replace(path)
    return replace(bench, features=np.load(path, mmap_mode="r"))
