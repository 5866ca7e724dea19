"""What `auto` is the mean of, and when."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_app.data.intensity import PixelScaling
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.errors import CheckpointError
from ssl_app.evaluation import logistic, propagated_head
from ssl_app.models import backbones
from ssl_app.training.hardware import choose
from ssl_app.training.inference import probabilities
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import trial
from ssl_app.transfer.draw import TransferConfig
from ssl_app.transfer.joined import join
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.strategies.auto import AutoConfig
from ssl_app.transfer.trained import load_classifier, write_classifier
from ssl_app.transfer.trial import Job, Outcome, TrialSetup, with_features

SIDE, COUNT = 16, 48


@pytest.fixture(autouse=True)
def narrow_network(narrow: None) -> None:
    """Small networks."""


@pytest.fixture
def setup(tmp_path: Path) -> TrialSetup:
    """Two classes, stripes that lie and stripes that stand, and weights that may stand for a pretraining's."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    images = generator.integers(0, 120, (COUNT, SIDE, SIDE)).astype(np.uint8)
    images[labels == 0, ::4] += 120
    images[labels == 1, :, ::4] += 120
    split = np.where(np.arange(COUNT) < 36, "train", "test")
    np.savez(tmp_path / "set.npz", images=images, labels=np.array(["a", "b"])[labels], split=split)
    torch.manual_seed(1)
    tensors = {f"backbone.{k}": t for k, t in backbones.build("small-resnet", 1, SIDE).state_dict().items()}
    scaling = PixelScaling("range", 0.0, 255.0, (0.3,), (0.2,), "uint8")
    start = Initialization("pretrained", "small-resnet", tensors, "toy", SIDE, 1, scaling, content="toy")
    config = TransferConfig(
        steps=4, batch_size=8, lr=0.1, weight_decay=5e-4, clip=5.0, optimizer="sgd", augment="light",
        mirror=True, head="linear", layer=None, validation="within", seed=0,
    )  # fmt: skip
    planned = Planned(start, DataSpec(str(tmp_path / "set.npz"), tmp_path / "cache"), PixelSpec(SIDE, 1))
    return prepare(planned, config, choose("cpu", "fp32", 1))


def run(setup: TrialSetup, per_class: int, **settings: bool) -> Outcome:
    return trial.run(setup, Job("auto", np.arange(2 * per_class), 0, AutoConfig(**settings)))


def test_with_few_labels_it_is_the_mean_of_frozen_candidates(setup: TrialSetup) -> None:
    found = run(setup, 15)
    assert found.how == "mean of 2 frozen candidates, by rule below 16 labels per class"
    assert [one.layer for one in found.predictor.classifiers] == [None, "stage3+stage4"]
    assert len({id(one.backbone) for one in found.predictor.classifiers}) == 1
    assert found.predictor.mirrored
    assert not found.history


def test_with_more_labels_fixmatch_joins(setup: TrialSetup) -> None:
    found = run(setup, 16)
    assert found.how.startswith("mean of 4 frozen candidates and FixMatch; ")
    assert found.predictor.weights == pytest.approx([1 / 8] * 4 + [1 / 2])


def another(start: Initialization, name: str, seed: int) -> Initialization:
    torch.manual_seed(seed)
    network = backbones.build("small-resnet", 1, SIDE)
    tensors = {f"backbone.{k}": t for k, t in network.state_dict().items()}
    return replace(start, name=name, tensors=tensors, content=name, settings={"method": name})


def test_of_joined_pretrainings_each_gives_candidates_and_they_are_kept_and_predict_alike(
    setup: TrialSetup, tmp_path: Path
) -> None:
    start = replace(setup.initialization, settings={"method": "first"}, content="first")
    joined = replace(setup, initialization=join([start, another(start, "second", 2)]))
    assert joined.initialization.name == "pretrained+second"
    found = run(joined, 3)
    assert found.how == "mean of 4 frozen candidates of 2 pretrainings, by rule below 16 labels per class"
    networks = {id(one.backbone) for one in found.predictor.classifiers}
    assert len(networks) == 2
    by_features = run(with_features(joined, tmp_path / "kept"), 3)
    np.testing.assert_allclose(by_features.probabilities, found.probabilities, atol=1e-4)
    write_classifier(tmp_path / "classifier.safetensors", joined, found.predictor)
    read = load_classifier(tmp_path).predictor
    again = probabilities(read, joined.rows(found.indices), joined.hardware)
    np.testing.assert_allclose(again, found.probabilities, atol=1e-6)


def test_a_joined_pretraining_that_has_collapsed_is_left_out_with_a_warning(setup: TrialSetup) -> None:
    start = replace(setup.initialization, settings={"method": "first"}, content="first")
    dead = another(start, "dead", 2)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in (dead.tensors or {}).items()}
    joined = replace(setup, initialization=join([start, replace(dead, tensors=tensors)]))
    found = run(joined, 3)
    assert found.how.startswith("mean of 2 frozen candidates of 1 pretrainings")
    assert [warning.partition(" (")[0] for warning in found.warnings] == ["auto, dead: the features have collapsed"]


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"settings": {"method": "first", "seed": 1}}, "differ in their seed alone"),
        ({"content": "first"}, "hold the same weights"),
        ({"image_size": 32}, "differ in image size (16 and 32)"),
        ({"channels": 3}, "differ in channels (1 and 3)"),
        ({"backbone": "nin"}, "differ in backbone (small-resnet and nin)"),
        ({"scaling": PixelScaling("range", 0.0, 90.0, (0.3,), (0.2,), "uint8")}, "differ in how they scale pixels"),
        ({"scaling": None}, "second is no pretraining of ssl-app"),
    ],
)
def test_what_cannot_be_joined_is_refused(setup: TrialSetup, change: dict[str, Any], refusal: str) -> None:
    start = replace(setup.initialization, settings={"method": "first"}, content="first")
    with pytest.raises(CheckpointError) as error:
        join([start, replace(another(start, "second", 2), **change)])
    assert refusal in error.value.notice.found


def test_the_more_labels_the_less_say_have_frozen_candidates(setup: TrialSetup) -> None:
    assert run(setup, 17).predictor.weights == pytest.approx([4 / 33] * 4 + [17 / 33])


def test_scratch_joins_where_the_pretraining_ended_with_a_warning(setup: TrialSetup) -> None:
    doubted = replace(setup, initialization=replace(setup.initialization, doubts=("too easy",)))
    few = run(doubted, 2)
    assert few.how.startswith(
        "mean of 2 frozen candidates and scratch, since the pretraining ended with a warning (too easy), by rule"
    )
    assert few.predictor.weights == pytest.approx([1 / 6] * 2 + [2 / 3])
    found = run(doubted, 16)
    assert found.predictor.weights == pytest.approx([1 / 20] * 4 + [2 / 5] * 2)
    *frozen, tuned, scratch = [one.backbone for one in found.predictor.classifiers]
    start, _ = setup.initialization.load(1, SIDE, 0)
    weight = next(iter(start.state_dict()))
    assert all(torch.equal(one.state_dict()[weight], start.state_dict()[weight]) for one in frozen)
    assert not torch.equal(tuned.state_dict()[weight], start.state_dict()[weight])
    near = [float((one.state_dict()[weight] - start.state_dict()[weight]).norm()) for one in (tuned, scratch)]
    assert near[0] < near[1] / 2, "one is tuned from the pretraining, the other is not"


def test_one_that_was_named_is_the_only_layer(setup: TrialSetup) -> None:
    found = run(replace(setup, config=replace(setup.config, layer="stage3")), 2)
    assert [one.layer for one in found.predictor.classifiers] == ["stage3"]


def test_a_collapsed_pretraining_is_not_used(setup: TrialSetup) -> None:
    dead = {name: torch.zeros_like(tensor) for name, tensor in setup.initialization.tensors.items()}
    found = run(replace(setup, initialization=replace(setup.initialization, tensors=dead)), 2)
    assert found.warnings == ("auto: the features have collapsed (effective rank 1.0, std 0.000), and are not used",)
    assert found.how.startswith("scratch alone: the pretraining has collapsed; scratch: all: 4 steps")
    assert found.test["balanced_accuracy"] >= 0.5


def test_distilled_it_is_one_network_near_the_pretraining(setup: TrialSetup) -> None:
    found = run(setup, 2, distill=True)
    (one,) = found.predictor.classifiers
    assert one.layer is None
    assert found.how.endswith("; distilled: 4 steps, averaged weights")
    assert found.unlabeled_used == 32


@pytest.mark.parametrize("per_class", [2, 16])
def test_written_and_read_it_says_the_same(setup: TrialSetup, per_class: int, tmp_path: Path) -> None:
    found = run(setup, per_class)
    write_classifier(tmp_path / "classifier.safetensors", setup, found.predictor)
    read = load_classifier(tmp_path).predictor
    assert read.mirrored
    assert [one.layer for one in read.classifiers] == [one.layer for one in found.predictor.classifiers]
    assert len({id(one.backbone) for one in read.classifiers}) == (1 if per_class == 2 else 2)
    images = torch.randn(3, 1, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(
            read.probabilities(images), found.predictor.eval().probabilities(images), rtol=1e-4, atol=1e-5
        )


def test_where_every_image_is_labeled_two_stage_takes_the_place_of_fixmatch(setup: TrialSetup) -> None:
    found = run(setup, 18)
    assert found.unlabeled_used == 0
    assert found.how.startswith("mean of 4 frozen candidates and two-stage, since every image is labeled; head: ")


def test_strategies_of_a_draw_share_the_heads_that_are_fitted(
    setup: TrialSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[str] = []
    for name, module in (("fit", logistic), ("fit", propagated_head)):
        inner = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, of=module, inner=inner, **k: fits.append(of.__name__) or inner(*a, **k)
        )
    kept = with_features(setup, tmp_path / "kept")

    def outcome(strategy: str, count: int, of: TrialSetup = kept, draw: int = 0) -> Outcome:
        return trial.run(of, Job(strategy, np.arange(count), draw))

    one, again = outcome("label-propagation", 8), outcome("label-propagation", 8)
    assert len(fits) == 1
    assert np.array_equal(one.probabilities, again.probabilities)
    assert one.how == again.how
    alone = outcome("label-propagation", 8, setup)  # features are taken in other batches
    assert np.allclose(one.probabilities, alone.probabilities, atol=1e-4)
    fits.clear()
    outcome("feature-extraction", 4), outcome("two-stage", 4)
    assert len(fits) == 1
    outcome("feature-extraction", 4, draw=1)  # other folds
    outcome("label-propagation", 4)
    assert len(fits) == 3
