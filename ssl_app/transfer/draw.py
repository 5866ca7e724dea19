"""A draw: the labels that a trial may use, the unlabeled images beside them, and nothing of the test part."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_app.clustering.label_propagation import neighbor_graph
from ssl_app.data import splits, transforms
from ssl_app.data.class_maps import ClassMaps
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Augmentation
from ssl_app.errors import Change, CheckpointError, Set
from ssl_app.evaluation.logistic import Logistic
from ssl_app.models.backbones import Backbone, PreferredOptimizer
from ssl_app.training.classifier import Classifier
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import pooled_features
from ssl_app.training.progressive_resizing import Resizing, Usual

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FOLDS = 5  # inside a draw, at most
# from random weights; ADAMW where the backbone itself prefers SGD
SGD = PreferredOptimizer("sgd", lr=0.15, weight_decay=5e-4)
ADAMW = PreferredOptimizer("adamw", lr=1e-3, weight_decay=0.05)
# steps where the user names none, fewer cut scratch short (docs/design.md): ten for each label
STEPS_PER_LABEL, FEWEST_STEPS, MOST_STEPS = 10, 300, 1000
PASSES = 30  # over the labels, where those are so many that MOST_STEPS make less
HALF_SIZE = Usual(share=0.75, least_side=48)  # of the steps of the whole network (docs/results.md)
CHECKS = 10  # how often a separate validation set is evaluated in a stage


class Kept(Protocol):
    """What is computed once for an untrained backbone and a set, whatever the draw."""

    def take(self, layers: Sequence[str | None]) -> None:
        """Compute what several layers will be asked for together, which takes one pass over the images."""
        ...

    def features_of(self, layer: str | None) -> NDArray[np.float32]:
        """Features of every image of the set, (M, d)."""
        ...

    def graph_of(self, layer: str | None, indices: NDArray[np.int64], neighbors: int) -> "csr_array":
        """The graph of label propagation over some images, in ascending order, (N, N)."""
        ...

    def head_of(self, layer: str | None, what: bytes, fit: Callable[[], Logistic]) -> Logistic:
        """A head fitted on a layer's features; `what` is all that it depends on beside them."""
        ...


@dataclass(frozen=True)
class TransferConfig:
    """What every trial of a comparison shares."""

    steps: int | None  # None: by the number of labels
    batch_size: int
    lr: float  # from random weights; pretrained parts take a share of it
    weight_decay: float
    clip: float
    optimizer: Literal["sgd", "adamw"]
    augment: Literal["none", "light", "standard"]
    mirror: bool | None  # None: as the data say
    head: Literal["linear", "mlp"]
    layer: str | None
    validation: Literal["within", "separate"]
    seed: int
    progressive_resizing: float | None = None  # share of the steps; None: the usual one where it is possible

    def steps_for(self, labels: int) -> int:
        """Optimizer steps with so many labels, the same for every strategy: enough to train scratch fully."""
        if self.steps is not None:
            return self.steps
        by_label = min(STEPS_PER_LABEL * labels, MOST_STEPS)
        by_pass = -(-PASSES * labels // (self.batch_size * CHECKS)) * CHECKS
        return max(FEWEST_STEPS, by_label, by_pass)

    def resizing(self, backbone: Backbone) -> Resizing:
        """Which share of the steps of the whole network is at half the side.

        Raises SettingsError where a request cannot be met.
        """
        flat = len(backbone.shape(self.layer)) == 1
        against = None if flat else f"a head on {self.layer or backbone.name} has weights for each place of the map"
        return Resizing.decide(self.progressive_resizing, HALF_SIZE, backbone, against)


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Images of the training part by what a strategy may know of them."""

    labeled: ImageRows  # with the labels of the draw
    unlabeled: ImageRows  # the others; their labels, if any, are not here
    validation: ImageRows | None  # further labeled images to select on, where the user set some apart


@dataclass(frozen=True, eq=False)
class Further:
    """A pretraining beside the one that the classifier starts from, for members on frozen features."""

    name: str
    backbone: Backbone
    kept: Kept | None  # of it


@dataclass(frozen=True, eq=False)
class GivenMaps:
    """Class maps by a teacher of the user's, which may have seen other labels than the draw's."""

    maps: ClassMaps
    content: NDArray[np.int64]  # (M,) hashes of the images of the whole set


@dataclass(frozen=True, eq=False)
class Draw:
    """What a strategy is given of the data. `used` is what the result says of it."""

    rows: DrawnRows
    classes: int  # K
    units: Sequence[str]  # (n,) what folds must not cut: the group of each labeled image, or its content
    seed: int  # of this trial
    fold_seed: int
    config: TransferConfig
    hardware: Hardware
    kept: Kept | None = None  # of the untrained backbone
    further: Sequence["Further"] = ()  # pretrainings beside the one that the classifier starts from
    given: "GivenMaps | None" = None  # class maps by the user
    used: set[str] = field(default_factory=set)  # which of `unlabeled`, `validation` and `maps` were asked for

    @property
    def labeled(self) -> ImageRows:
        """The images of the draw, with their labels."""
        return self.rows.labeled

    @property
    def unlabeled(self) -> ImageRows:
        """The other images of the training part, without labels."""
        self.used.add("unlabeled")
        return self.rows.unlabeled

    @property
    def validation(self) -> ImageRows | None:
        """Further labeled images to select on; None: selection by folds of the draw."""
        self.used.add("validation")
        return self.rows.validation

    @property
    def maps(self) -> GivenMaps | None:
        """Class maps of the training part, where the user gave some."""
        self.used.add("maps")
        return self.given

    def loader(
        self,
        rows: ImageRows,
        views: int = 1,
        augmentation: Augmentation | None = None,
        stage: int = 0,
        batch_size: int | None = None,
        boxes: bool = False,
    ) -> Loader:
        """Batches of some rows, in random views; without an augmentation or a size, as the trial's settings say.

        With `boxes`, batches say which box of its image each first view shows.
        """
        if augmentation is None:
            augmentation = transforms.preset(self.config.augment, rows.frame)
        size = batch_size or self.config.batch_size
        return Loader(rows, augmentation, Batching(size, mix(self.seed, stage) >> 1, views, boxes=boxes))

    def features(self, classifier: Classifier, rows: ImageRows) -> NDArray[np.float32]:
        """What the head is given of center crops, by the backbone as it is, on the classifier's layer. (n, d).

        The mean over an image and its mirror image, where a mirror image is as good: so do predictions.
        Raises CheckpointError where a feature is not finite.
        """
        if not len(rows.indices):
            return np.zeros((0, classifier.head.features), dtype=np.float32)
        if self.kept is not None:
            found = self.kept.features_of(classifier.layer)[rows.indices]
        else:
            found = pooled_features(classifier, rows, self.hardware, rows.mirrors)
        if not np.isfinite(found).all():
            raise CheckpointError("the features are not finite", fix=(Set("precision", "fp32"), Change("init")))
        return found

    def graph(self, classifier: Classifier, indices: NDArray[np.int64], neighbors: int) -> "csr_array":
        """The graph of label propagation over these images, (N, N).

        On features of the whole packed image: with the crops of its corners beside the center's, labels spread better
        (docs/results.md).
        """
        if self.kept is None:
            rows = self.unlabeled.at(indices)
            found = pooled_features(classifier, rows, self.hardware, rows.mirrors, corners=True)
            return neighbor_graph(found, neighbors)
        order = np.argsort(indices)
        places = np.argsort(order)  # of each image in ascending order
        return self.kept.graph_of(classifier.layer, indices[order], neighbors)[places][:, places]

    def head(self, classifier: Classifier, what: Sequence[object], fit: Callable[[], Logistic]) -> Logistic:
        """A head fitted on the features of center crops: once for all strategies, where features are kept.

        `what` is all that it depends on beside the features: arrays and plain values.
        """
        if self.kept is None:
            return fit()
        state = hashlib.blake2b(digest_size=8)
        for part in (*what, self.classes, self.labeled.labels, self.labeled.indices):
            state.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        return self.kept.head_of(classifier.layer, state.digest(), fit)

    def folds(self, count: int = FOLDS) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]] | None:
        """(fit, held out) positions among the labeled images, stratified, no unit on both sides; None: impossible."""
        assert self.labeled.labels is not None
        return splits.folds(self.labeled.labels, self.units, count, self.fold_seed)
