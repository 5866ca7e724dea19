"""What every transfer strategy keeps: it learns from its draw alone, frozen is frozen, and it says what it used."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ssl_app import registry
from ssl_app.checkpoints import SCRATCH
from ssl_app.cli import main
from ssl_app.config import flag
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.errors import Set, SettingsError
from ssl_app.models import backbones
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import choose
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import trial
from ssl_app.transfer.draw import Draw, TransferConfig
from ssl_app.transfer.fitting import Fitted, Phase, Stage, train
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.strategies.base import Budget, NoSettings, Strategy
from ssl_app.transfer.trial import Job, Outcome, TrialSetup

STRATEGIES = registry.names("transfer.strategies")
CLASSES, SIDE, PER_CLASS, SHOTS = 3, 16, 16, 6
STEPS, BATCH = 30, 12
HERE = __name__


def small_network(channels: int) -> nn.Sequential:
    """A backbone of two convolutions with batch norm, for a few milliseconds a step."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 24, 3, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
    )  # fmt: skip


# a set whose classes are textures, and what may be changed in it


@dataclass(frozen=True, eq=False)
class Pictures:
    """N images with labels; the last third is the test part, the first SHOTS train images of a class are drawn."""

    images: np.ndarray  # (N, S, S) uint8
    labels: np.ndarray  # (N,) of str, "" where there is none
    split: np.ndarray  # (N,) of str

    @classmethod
    def make(cls) -> "Pictures":
        """Stripes that lie, stripes that stand, and none, in noise."""
        generator = np.random.default_rng(0)
        labels = np.arange(CLASSES * PER_CLASS) % CLASSES
        images = generator.integers(0, 120, (len(labels), SIDE, SIDE))
        images[labels == 0, ::4] += 120
        images[labels == 1, :, ::4] += 120
        split = np.where(np.arange(len(labels)) < 2 * len(labels) // 3, "train", "test")
        return cls(images.astype(np.uint8), np.array([f"c{label}" for label in labels]), split)

    @property
    def test(self) -> np.ndarray:
        """(N,) whether an image is of the test part."""
        return self.split == "test"

    @property
    def drawn(self) -> np.ndarray:
        """(n,) indices."""
        train = np.flatnonzero(~self.test)
        return np.sort(np.concatenate([train[train % CLASSES == k][:SHOTS] for k in range(CLASSES)]))

    @property
    def undrawn(self) -> np.ndarray:
        """(N,) whether an image is of the training part and not drawn."""
        mask = ~self.test
        mask[self.drawn] = False
        return mask

    def with_labels(self, where: np.ndarray, turn: int | None) -> "Pictures":
        """Labels of other classes, so many further; without a turn, none."""
        changed = self.labels.copy()
        changed[where] = "" if turn is None else [f"c{(int(one[1:]) + turn) % CLASSES}" for one in changed[where]]
        return replace(self, labels=changed)

    def with_noise(self, where: np.ndarray) -> "Pictures":
        """Other pixels."""
        changed = self.images.copy()
        changed[where] = np.random.default_rng(1).integers(0, 256, changed[where].shape)
        return replace(self, images=changed)

    def write(self, path: Path) -> Path:
        np.savez(path, images=self.images, labels=self.labels, split=self.split)
        return path


PICTURES = Pictures.make()


@cache
def pretrained() -> Initialization:
    """Weights that may stand for a pretraining's, with the scaling of its pixels."""
    torch.manual_seed(1)
    network = backbones.build(f"{HERE}:small_network", 1, SIDE)
    tensors = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    scaling = PixelScaling("range", 0.0, 255.0, (0.3,), (0.2,), "uint8")
    return Initialization("pretrained", network.name, tensors, "toy", SIDE, 1, scaling, content="toy")


# what a strategy may be given, and what becomes of it


@dataclass(frozen=True)
class Way:
    """The weights and the head that a strategy is given, and whether features are taken once, as in a sweep."""

    weights: str
    head: str
    cached: bool = False

    def __str__(self) -> str:
        return f"{self.weights}, {self.head} head{', cached features' * self.cached}"

    @property
    def initialization(self) -> Initialization:
        scratch = Initialization(SCRATCH, f"{HERE}:small_network")
        return pretrained() if self.weights == "pretrained" else scratch


USUAL = Way("pretrained", "linear")
PRETRAINED_WAYS = [USUAL, replace(USUAL, cached=True), replace(USUAL, head="mlp")]
WAYS = [*PRETRAINED_WAYS, replace(USUAL, weights=SCRATCH)]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_pretrained_way = pytest.mark.parametrize("way", PRETRAINED_WAYS, ids=str)


@dataclass(frozen=True)
class Ran:
    """A trial that was run."""

    outcome: Outcome
    steps: int  # of an optimizer

    @property
    def predictor(self) -> Ensemble:
        return self.outcome.predictor

    @property
    def backbones(self) -> list[nn.Module]:
        """Each once."""
        return list({id(one.backbone): one.backbone for one in self.predictor.classifiers}.values())


class ToySet:
    """Runs trials, each set read from a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[tuple[str, Way, Pictures], Ran] = {}

    def run(self, strategy: str, way: Way = USUAL, pictures: Pictures = PICTURES) -> Ran:
        """A trial, run once."""
        key = (strategy, way, pictures)
        if key not in self.done:
            self.done[key] = self.run_anew(*key)
        return self.done[key]

    def run_anew(
        self,
        strategy: str,
        way: Way,
        pictures: Pictures = PICTURES,
        drawn: np.ndarray = PICTURES.drawn,
        steps_planned: int = STEPS,
    ) -> Ran:
        """A trial. A strategy that refuses the mlp head, with what to type, has nothing to keep with it."""
        steps: list[None] = []
        setup = self.set_up(way, pictures, steps_planned)
        handle = register_optimizer_step_post_hook(lambda *about: steps.append(None))
        try:
            return Ran(trial.run(setup, Job(strategy, drawn, 0)), len(steps))
        except SettingsError as error:
            if way.head == "mlp" and Set("head", "linear") in error.notice.fixes:
                pytest.skip(error.sentence(flag))
            raise
        finally:
            handle.remove()

    def set_up(self, way: Way = USUAL, pictures: Pictures = PICTURES, steps: int = STEPS) -> TrialSetup:
        path = pictures.write(self.folder / f"{len(list(self.folder.iterdir()))}.npz")
        data, pixels = DataSpec(str(path), self.folder / "cache"), PixelSpec(SIDE, 1)
        config = TransferConfig(
            steps=steps, batch_size=BATCH, lr=0.15, weight_decay=5e-4, clip=5.0, optimizer="sgd", augment="light",
            mirror=True, head=way.head, layer=None, validation="within", seed=0,
        )  # fmt: skip
        setup = prepare(Planned(way.initialization, data, pixels), config, choose("cpu", "fp32", 1))
        return trial.with_features(setup, self.folder / "cache") if way.cached else setup


@pytest.fixture(scope="module")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> ToySet:
    return ToySet(tmp_path_factory.mktemp("strategies"))


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights and statistics, to the bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# what it learns


@every_way
@every_strategy
def test_it_trains_a_usable_classifier(strategy: str, way: Way, toy_set: ToySet) -> None:
    first = toy_set.run(strategy, way)
    assert first.outcome.test["balanced_accuracy"] > 0.6, "chance is a third"
    assert first.outcome.labels_used == CLASSES * SHOTS
    assert first.outcome.how


@every_strategy
def test_it_trains_the_same_again(strategy: str, toy_set: ToySet) -> None:
    """In every other way a second training is the same where images that have no say are others; see below."""
    first, again = toy_set.run(strategy), toy_set.run_anew(strategy, USUAL)
    np.testing.assert_array_equal(first.outcome.probabilities, again.outcome.probabilities)
    assert same(first.predictor, again.predictor)


@every_way
@every_strategy
def test_it_takes_no_more_steps_than_its_budget(strategy: str, way: Way, toy_set: ToySet) -> None:
    trainings = registry.find("transfer.strategies", strategy).trainings
    assert toy_set.run(strategy, way).steps <= STEPS * trainings


# what it may see


@every_way
@every_strategy
def test_labels_outside_the_draw_and_test_images_influence_nothing(strategy: str, way: Way, toy_set: ToySet) -> None:
    """Half of the labels outside the draw are others, half are gone, and the test images are noise."""
    undrawn = np.flatnonzero(PICTURES.undrawn)
    assert len(undrawn) >= 2 * CLASSES
    others = PICTURES.with_labels(undrawn[::2], 1).with_labels(undrawn[1::2], None).with_noise(PICTURES.test)
    first, other = toy_set.run(strategy, way), toy_set.run(strategy, way, others)
    assert same(first.predictor, other.predictor)
    assert first.outcome.unlabeled_used == other.outcome.unlabeled_used
    assert (first.outcome.probabilities != other.outcome.probabilities).any(), "they are tested all the same"


@every_strategy
def test_the_labels_of_the_draw_are_learned(strategy: str, toy_set: ToySet) -> None:
    in_the_draw = np.isin(np.arange(len(PICTURES.labels)), PICTURES.drawn)
    other = toy_set.run(strategy, USUAL, PICTURES.with_labels(in_the_draw, 1))
    assert other.outcome.test["balanced_accuracy"] < 0.2, "every class is called by another's name"


@every_strategy
def test_unlabeled_images_that_change_the_classifier_are_counted_no_others(strategy: str, toy_set: ToySet) -> None:
    first, other = toy_set.run(strategy), toy_set.run(strategy, USUAL, PICTURES.with_noise(PICTURES.undrawn))
    used = not same(first.predictor, other.predictor)
    for ran in (first, other):
        assert ran.outcome.unlabeled_used == (PICTURES.undrawn.sum() if used else 0)


@pytest.mark.parametrize("way", [USUAL, *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])], ids=str)
@every_strategy
def test_it_trains_where_every_image_is_labeled_too(strategy: str, way: Way, toy_set: ToySet) -> None:
    every = np.flatnonzero(~PICTURES.test)
    found = toy_set.run_anew(strategy, way, drawn=every, steps_planned=3 * STEPS)  # an mlp on small parts is slow
    assert found.outcome.unlabeled_used == 0
    assert found.outcome.labels_used == len(every)
    assert found.outcome.test["balanced_accuracy"] > 0.6


# what it freezes


@every_pretrained_way
@every_strategy
def test_a_backbone_is_trained_or_left_to_the_last_bit(strategy: str, way: Way, toy_set: ToySet) -> None:
    before, _ = pretrained().load(1, SIDE, 0)
    for after in toy_set.run(strategy, way).backbones:
        weights = dict(after.named_parameters())
        moved = [name for name, weight in before.named_parameters() if not torch.equal(weight, weights[name])]
        assert moved or same(before, after), "no weight has moved, but a batch-norm statistic has"


@every_pretrained_way
def test_feature_extraction_freezes_the_backbone(way: Way, toy_set: ToySet) -> None:
    before, _ = pretrained().load(1, SIDE, 0)
    assert same(before, toy_set.run("feature-extraction", way).backbones[0])


# strategies of one's own


class Nothing(Strategy[NoSettings]):
    """Trains nothing."""

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        return Fitted.alone(classifier)


class Neck(Strategy[NoSettings]):
    """Trains a part that no classifier has."""

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        rates = {"head": budget.lr, "neck": budget.lr}
        return Fitted.alone(classifier, train(classifier, draw, Phase("all", budget.steps, rates)))


class Peek(Strategy[NoSettings]):
    """Notes what it is given."""

    draws: list[Draw] = []  # noqa: RUF012

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        Peek.draws.append(draw)
        return Fitted.alone(classifier, Stage("looked"))


REFUSED = [
    (f"{HERE}:Nothing", f"strategy {HERE}:Nothing has trained nothing; expected one stage or more"),
    (f"{HERE}:Neck", "phase all trains 'neck'; expected backbone, head"),
]


@pytest.mark.parametrize(("strategy", "sentence"), REFUSED)
def test_a_strategy_that_trains_nothing_or_an_unknown_part_is_refused(
    strategy: str, sentence: str, toy_set: ToySet
) -> None:
    with pytest.raises(SettingsError) as refused:
        toy_set.run(strategy)
    assert refused.value.sentence(flag) == sentence


def test_a_draw_holds_the_labels_of_the_draw_and_no_image_of_the_test_part(toy_set: ToySet) -> None:
    Peek.draws.clear()
    toy_set.run(f"{HERE}:Peek")
    (draw,) = Peek.draws
    assert draw.labeled.labels is not None
    np.testing.assert_array_equal(draw.labeled.labels, PICTURES.drawn % CLASSES)
    np.testing.assert_array_equal(draw.labeled.indices, PICTURES.drawn)
    np.testing.assert_array_equal(draw.unlabeled.indices, np.flatnonzero(PICTURES.undrawn))
    assert draw.unlabeled.labels is None
    assert draw.validation is None


# from the command line


@dataclass(frozen=True)
class Typed:
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def finetune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Typed]:
    """Type `ssl-app finetune` from random weights on the pictures, with --out out."""
    data = PICTURES.write(tmp_path / "set.npz")
    start = ["--init", "none", "--backbone", f"{HERE}:small_network", "--data", data]
    budget = ["--per-class", SHOTS, "--steps", 4, "--threads", 1, "--precision", "fp32", "--tracking-uri", "none"]

    def typed(*words: object) -> Typed:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in ["finetune", *start, *budget, "--out", tmp_path / "out", *words]])
        assert isinstance(end.value.code, int)
        return Typed(end.value.code, *capsys.readouterr())

    return typed


@pytest.mark.parametrize(("strategy", "sentence"), REFUSED)
def test_refused_at_the_command_line_it_costs_one_line_and_leaves_no_run(
    strategy: str, sentence: str, finetune: Callable[..., Typed], tmp_path: Path
) -> None:
    answer = finetune("--strategy", strategy)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines()[-1] == f"error: {sentence}"
    assert "Traceback" not in answer.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cache"]


def test_what_is_no_strategy_is_refused_before_anything_is_read(
    finetune: Callable[..., Typed], tmp_path: Path
) -> None:
    answer = finetune("--strategy", f"{HERE}:Typed")
    assert answer.err == (
        f"error: --strategy {HERE}:Typed is no transfer strategy (no 'Config'); derive from "
        f"ssl_app.transfer.strategies.base.Strategy\n"
    )
    assert not (tmp_path / "out").exists()


STRATEGY = '''"""Class means: the head compares features with the mean of each class."""

from dataclasses import dataclass

import torch

from ssl_app.config import option
from ssl_app.transfer.fitting import Fitted, Stage, fill_in
from ssl_app.transfer.strategies.base import Strategy


@dataclass(frozen=True)
class ClassMeansConfig:
    """Settings of class means."""

    sharpness: float = option(1.0, "factor of the logits", at_least=0)


class ClassMeans(Strategy):
    """No step is taken."""

    Config = ClassMeansConfig

    def fit(self, classifier, draw, budget):
        features = torch.as_tensor(draw.features(classifier, draw.labeled))  # (n, d)
        labels = torch.as_tensor(draw.labeled.labels)
        means = torch.stack([features[labels == k].mean(0) for k in range(draw.classes)])  # (K, d)
        sharpness = self.config.sharpness
        fill_in(classifier, sharpness * means, -sharpness * means.square().sum(1) / 2)
        return Fitted.alone(classifier, Stage(f"head: class means, sharpness {sharpness:g}"))
'''


@pytest.fixture(params=["module:Class", "file name"])
def own_strategy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A strategy that is one file: of the user's own, or in the folder of the package's strategies."""
    if request.param == "module:Class":
        (tmp_path / "my_strategies.py").write_text(STRATEGY)
        monkeypatch.syspath_prepend(tmp_path)
        yield "my_strategies:ClassMeans"
        sys.modules.pop("my_strategies", None)
        return
    from ssl_app.transfer import strategies

    copy = tmp_path / "package"
    shutil.copytree(registry.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "transfer" / "strategies" / "class_means.py").write_text(STRATEGY)
    monkeypatch.setattr(registry, "ROOT", copy)
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(copy / "transfer" / "strategies")])
    yield "class-means"
    sys.modules.pop("ssl_app.transfer.strategies.class_means", None)


def test_one_file_adds_a_strategy_with_flags_of_its_own(own_strategy: str, finetune: Callable[..., Typed]) -> None:
    assert "--sharpness X" in finetune("--strategy", own_strategy, "--help").out
    assert "--sharpness" not in finetune("--help").out
    answer = finetune("--strategy", own_strategy, "--sharpness", 0.5, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["how"] == "head: class means, sharpness 0.5"
    assert result["test"]["balanced_accuracy"] > 0.5
    stored = json.loads((Path(result["run"]) / "settings.json").read_text())["settings"]
    assert stored["strategy_settings"] == {"sharpness": 0.5}
    refused = finetune("--strategy", own_strategy, "--sharpness", -1)
    assert refused.err == "error: --sharpness is -1.0; expected at least 0\n"
    if own_strategy == "class-means":
        assert own_strategy in registry.names("transfer.strategies")
