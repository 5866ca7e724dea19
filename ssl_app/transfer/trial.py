"""One trial: one initialization, one strategy, one labeled draw; trained on the draw, tested once.

`finetune` runs one of these and `sweep` many, so that both mean the same by every number.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app import registry, runs
from ssl_app.clustering.label_propagation import ALPHA, GRAPH, ITERATIONS, neighbor_graph
from ssl_app.data.class_maps import ClassMaps
from ssl_app.data.dataset import Dataset
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import ImageRows
from ssl_app.data.opened import Opened
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Corners
from ssl_app.errors import SettingsError
from ssl_app.evaluation import logistic, propagated_head
from ssl_app.evaluation.logistic import Logistic
from ssl_app.evaluation.metrics import classification
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import build_head
from ssl_app.training import frozen
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import Hardware
from ssl_app.training.history import History
from ssl_app.training.inference import probabilities
from ssl_app.training.initialization import Initialization
from ssl_app.transfer.draw import Draw, DrawnRows, Further, GivenMaps, TransferConfig
from ssl_app.transfer.fitting import Fitted
from ssl_app.transfer.strategies.base import Budget, Strategy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# what a graph that is kept depends on, beside its features, and what a head does, beside its features and labels
GRAPHS = ("corners", *GRAPH)
HEADS = (logistic.STRENGTHS, logistic.RULE, logistic.PATIENCE, GRAPHS, ALPHA, ITERATIONS, propagated_head.MOST)


@dataclass(frozen=True)
class TrialSetup:
    """A set, an initialization and the hardware: what the trials of one initialization have in common."""

    opened: Opened
    unlabeled: NDArray[np.int64]  # indices of the whole training part, images without a label included
    initialization: Initialization
    scaling: PixelScaling
    config: TransferConfig
    hardware: Hardware
    maps: ClassMaps | None = None  # by a teacher of the user's, for strategies that take them
    cache: Path | None = None  # where features of every image of the set are kept; None: each trial takes its own

    @property
    def dataset(self) -> Dataset:
        """The set."""
        return self.opened.dataset

    @property
    def mirrors(self) -> bool:
        """Whether a mirror image is as good as the image."""
        return self.dataset.mirrors if self.config.mirror is None else self.config.mirror

    def features_of(self, layer: str | None) -> NDArray[np.float32]:
        """Features as `Draw.features` has them, of every image, (M, d), computed once for a checkpoint and set."""
        return self._features(layer, corners=False)

    def features_file(self, layer: str | None, corners: bool = False) -> Path:
        """Where `features_of` keeps them; those that the graph is built on, where they are others, with `corners`."""
        assert self.cache is not None
        others = corners and Corners(self.rows(self.unlabeled).frame).views > 1
        return self.cache / frozen.FOLDER / f"{self._digest(layer)}{'-corners' * others}.npy"

    def graph_of(self, layer: str | None, indices: NDArray[np.int64], neighbors: int) -> "csr_array":
        """The graph of label propagation over some images, (N, N): all draws that leave none of them out share it."""
        from scipy.sparse import csr_array, load_npz, save_npz

        assert self.cache is not None
        made = repr((neighbors, GRAPHS)).encode()
        digest = hashlib.blake2b(indices.tobytes() + made, digest_size=8).hexdigest()
        path = self.cache / frozen.FOLDER / f"{self._digest(layer)}-{digest}.npz"
        if not path.is_file():
            found = neighbor_graph(self._features(layer, corners=True)[indices], neighbors)
            with _kept(path) as file:
                save_npz(file, found, compressed=False)
        return csr_array(load_npz(path))

    def head_of(self, layer: str | None, what: bytes, fit: Callable[[], Logistic]) -> Logistic:
        """A head fitted on a layer's features, kept: all strategies of a draw share it."""
        assert self.cache is not None
        made = hashlib.blake2b(what + repr(HEADS).encode(), digest_size=8).hexdigest()
        path = self.cache / frozen.FOLDER / f"{self._digest(layer)}-head-{made}.npz"
        if path.is_file():
            with np.load(path) as found:
                return Logistic(found["weight"], found["bias"], float(found["strength"]), str(found["how"]))
        head = fit()
        with _kept(path) as file:
            np.savez(file, weight=head.weight, bias=head.bias, strength=head.strength, how=head.how)
        return head

    def take(self, layers: Sequence[str | None]) -> None:
        """Compute what is missing of the features of several layers, and of their graphs', in one pass each."""
        for corners in (False, True):
            paths = {layer: self.features_file(layer, corners) for layer in layers}
            self._write({layer: path for layer, path in paths.items() if not path.is_file()}, corners)

    def _features(self, layer: str | None, corners: bool) -> NDArray[np.float32]:
        """(M, d) memory-mapped."""
        path = self.features_file(layer, corners)
        if not path.is_file():
            self._write({layer: path}, corners)
        kept: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return kept

    def _write(self, paths: Mapping[str | None, Path], corners: bool) -> None:
        """Features of these layers, in one pass over every image of the set."""
        if paths:
            dataset = self.dataset
            backbone, _ = self.initialization.load(dataset.images.shape[-1], dataset.image_size, self.config.seed)
            every = self.rows(np.arange(len(dataset.keys)))
            frozen.write(paths, backbone, every, self.hardware, self.mirrors, corners)

    def _digest(self, layer: str | None) -> str:
        """Of all that features depend on."""
        dataset, start = self.dataset, self.initialization.first
        network = (start.content, start.backbone, layer, dataset.image_size)
        what = (network, dataset.key, self.scaling.to_json(), self.hardware.device.type, self.hardware.bf16)
        content = repr((*what, "mirrored") if self.mirrors else what)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def further(self) -> list["TrialSetup"]:
        """The same of every pretraining beside the first, in the pixels of the first."""
        return [replace(self, initialization=one) for one in self.initialization.members[1:]]

    def rows(self, indices: NDArray[np.int64], labeled: bool = False) -> ImageRows:
        """Some images of the set, with their labels where asked."""
        dataset = self.dataset
        labels = dataset.labels[indices] if labeled else None
        return ImageRows(dataset.images, indices, self.scaling, dataset.image_size, labels, self.mirrors)


@dataclass(frozen=True)
class Job:
    """What a trial runs: a strategy with its settings, on a draw."""

    strategy: str
    drawn: NDArray[np.int64]  # indices of the labeled images
    draw: int  # its number
    strategy_config: object = None  # an instance of the strategy's Config; None: its defaults
    steps: int | None = None  # None: by the number of labels
    tested: NDArray[np.int64] | None = None  # indices of the images to test on; None: the test part
    per_class: float | None = None  # labels of a class that the strategy acts by; None: those of the draw


@dataclass(frozen=True)
class Outcome:
    """What a trial found."""

    test: Mapping[str, Any]  # metrics on the test set
    probabilities: NDArray[np.float64]  # (n, K)
    labels: NDArray[np.int64]  # (n,)
    indices: NDArray[np.int64]  # (n,) of the set
    labels_used: int
    unlabeled_used: int  # images without a label in the draw that the strategy looked at
    validation_used: bool  # whether it looked at labels set apart beside the draw
    labels_seen: NDArray[np.int64]  # hashes of the images whose labels it, or its teacher, has learned from
    teacher_labels: (
        int | None
    )  # labels outside the draw that a teacher of the user's has learned from; None: not known
    steps: int  # optimizer steps that it was given
    how: str  # what was chosen, and by what
    seconds: float
    history: History
    predictor: Ensemble
    warnings: tuple[str, ...]  # of the strategy


def run(setup: TrialSetup, job: Job) -> Outcome:
    """Train on the images drawn, and test. Randomness is a function of (seed, draw, number of labels).

    Raises SettingsError where the strategy trains nothing.
    """
    started = time.monotonic()
    kind: type[Strategy[object]] = registry.find("transfer.strategies", job.strategy)
    strategy = kind(kind.Config() if job.strategy_config is None else job.strategy_config)
    seed = mix(setup.config.seed, job.draw, len(job.drawn), 7) >> 1
    classifier = new_classifier(setup, job.drawn, seed)
    draw = draw_of(setup, job, seed)
    budget = budget_of(setup, job)
    fitted = strategy.fit(classifier, draw, budget)
    if not isinstance(fitted, Fitted):
        raise SettingsError(f"fit of strategy {job.strategy} returns {fitted!r}", expected="Fitted")
    stages, predictor = fitted.stages, fitted.predictor
    predictor.mirrored = setup.mirrors  # of every strategy and of scratch alike
    if not stages:
        raise SettingsError(f"strategy {job.strategy} has trained nothing", expected="one stage or more")
    history = [metrics for stage in stages for metrics in stage.history]
    test = setup.opened.parts.test if job.tested is None else job.tested
    if setup.cache is not None and not history:  # the backbone is as the features were made: nothing to compute
        networks = [classifier.backbone, *(one.backbone for one in draw.further)]
        found = _of_features(predictor, dict(zip(networks, [setup, *setup.further()], strict=True)), test)
    else:
        found = probabilities(predictor, setup.rows(test), setup.hardware)
    labels = setup.dataset.labels[test]
    return Outcome(
        classification(found, labels, setup.dataset.classes),
        found,
        labels,
        test,
        len(job.drawn),
        len(draw.rows.unlabeled.indices) if "unlabeled" in draw.used else 0,
        draw.rows.validation is not None and "validation" in draw.used,
        *_seen(setup, job, draw),
        budget.steps,
        "; ".join(stage.how for stage in stages),
        time.monotonic() - started,
        history,
        predictor,
        tuple(warning for stage in stages for warning in stage.warnings),
    )


def _seen(setup: TrialSetup, job: Job, draw: Draw) -> tuple[NDArray[np.int64], int | None]:
    """Hashes of the images whose labels had a part in it, and how many of them only a teacher has seen."""
    content = setup.dataset.content
    seen = content[job.drawn]
    if draw.rows.validation is not None and "validation" in draw.used:
        seen = np.union1d(seen, content[draw.rows.validation.indices])
    if setup.maps is None or "maps" not in draw.used:
        return np.unique(seen), 0
    of_teacher = setup.maps.index.labeled
    if of_teacher is None:
        return np.unique(seen), None
    return np.union1d(seen, of_teacher), len(np.setdiff1d(of_teacher, seen))


@contextmanager
def _kept(path: Path) -> Iterator[BinaryIO]:
    """A file in the cache that is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.clear_half_made(path.parent)
    with runs.draft(path) as draft, draft.open("wb") as file:
        yield file


def _of_features(
    predictor: Ensemble, setups: Mapping[Backbone, TrialSetup], test: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probabilities of the test images, (n, K), by features that are kept of each backbone."""

    def features(backbone: Backbone, layer: str | None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(setups[backbone].features_of(layer)[test]))

    with torch.no_grad():
        return predictor.cpu().probabilities_of_features(features).numpy()


def draw_of(setup: TrialSetup, job: Job, seed: int) -> Draw:
    """What the strategy is given: the labels of the draw, and no others."""
    dataset, config, val = setup.dataset, setup.config, setup.opened.parts.val
    known = job.drawn
    if job.tested is not None:  # of what is tested neither the images nor others of their group or content
        tested = {dataset.units[index] for index in job.tested}
        same = [index for index in setup.unlabeled.tolist() if dataset.units[index] in tested]
        known = np.union1d(job.drawn, np.array(same, dtype=np.int64))
    return Draw(
        rows=DrawnRows(
            labeled=setup.rows(job.drawn, labeled=True),
            unlabeled=setup.rows(np.setdiff1d(setup.unlabeled, known)),
            validation=setup.rows(val, labeled=True) if config.validation == "separate" else None,
        ),
        classes=len(dataset.classes),
        units=[dataset.units[index] for index in job.drawn],
        seed=seed,
        fold_seed=mix(config.seed, job.draw) % 2**32,
        config=config,
        hardware=setup.hardware,
        kept=None if setup.cache is None else setup,
        further=[_further(one, seed) for one in setup.further()],
        given=None if setup.maps is None else GivenMaps(setup.maps, dataset.content),
    )


def _further(setup: TrialSetup, seed: int) -> Further:
    """A pretraining beside the first, as it is."""
    start = setup.initialization
    backbone, _ = start.load(setup.dataset.images.shape[-1], setup.dataset.image_size, seed)
    return Further(start.name, backbone.eval(), None if setup.cache is None else setup)


def budget_of(setup: TrialSetup, job: Job) -> Budget:
    """What the strategy may spend: by the number of labels, where the job does not say."""
    config = setup.config
    return Budget(
        job.steps or config.steps_for(len(job.drawn)),
        job.per_class or len(job.drawn) / len(np.unique(setup.dataset.labels[job.drawn])),
        config.lr,
        setup.initialization.pretrained,
        config.head == "linear",
        setup.initialization.doubts,
    )


def new_classifier(setup: TrialSetup, drawn: NDArray[np.int64], seed: int) -> Classifier:
    """The backbone as it is initialized, with a new head."""
    dataset, config = setup.dataset, setup.config
    backbone, _ = setup.initialization.load(dataset.images.shape[-1], dataset.image_size, seed)
    torch.manual_seed(seed)  # heads of one draw start alike, whatever the backbone
    head = build_head(config.head, backbone.shape(config.layer), len(dataset.classes))
    return Classifier(backbone, head, config.layer, torch.from_numpy(dataset.labels[drawn]))


def with_features(setup: TrialSetup, cache: Path) -> TrialSetup:
    """The setup with features of every image kept in a folder; those of the head's own layer are taken now."""
    found = replace(setup, cache=cache)
    for one in (found, *found.further()):
        one.features_of(setup.config.layer)
    return found
