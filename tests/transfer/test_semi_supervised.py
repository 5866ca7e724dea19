"""Training on unlabeled images too: the losses of the papers, what a batch holds, and averaged weights."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from ssl_app.training.resume import Checkpointing
from ssl_app.transfer.draw import Draw
from ssl_app.transfer.draw_task import DECAY
from ssl_app.transfer.semi_supervised import UNLABELED, both
from ssl_app.transfer.strategies.fixmatch import Confident
from ssl_app.transfer.strategies.self_training import GivenTargets
from tests import toys

CLASSES, SIDE = 3, 16
LABELS = np.array([0, 0, 0, 1, 1, 2])


@pytest.fixture(autouse=True)
def narrow_network(narrow: None) -> None:
    """Small networks."""


def a_draw(unlabeled: int = 18) -> Draw:
    packed, count = toys.images(len(LABELS) + unlabeled, SIDE), len(LABELS)
    one = ImageRows(packed, np.arange(count), toys.scaling(), SIDE, LABELS)
    rest = ImageRows(packed, np.arange(count, count + unlabeled), toys.scaling(), SIDE)
    return cast(Any, SimpleNamespace(labeled=one, unlabeled=rest, classes=CLASSES))


def a_classifier() -> Classifier:
    torch.manual_seed(0)
    backbone = backbones.build("small-resnet", 1, SIDE)
    head = build_head("linear", backbone.shape(), CLASSES)
    torch.nn.init.normal_(head.last.weight)
    return Classifier(backbone, head, None, torch.from_numpy(LABELS))


def matching(threshold: float = 0.5, mix: np.ndarray | None = None) -> Confident:
    return Confident(a_classifier(), a_draw(), threshold, mix)


def a_batch(labels: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(2)
    views = tuple(torch.randn(len(labels), 1, SIDE, SIDE, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(len(labels)), torch.tensor(labels), 5)


def log_softmax(logits: torch.Tensor) -> list[list[float]]:
    rows = logits.double().tolist()
    return [[z - math.log(sum(math.exp(other) for other in row)) for z in row] for row in rows]


def test_fixmatch_is_the_loss_of_the_paper() -> None:
    """Sohn et al., equations 3 and 4: the mean over all unlabeled images, those under the threshold as 0."""
    task, batch = matching(), a_batch([0, -1, 2, -1, -1, -1])
    weak, strong = batch.views
    task.teacher.eval()
    with torch.no_grad():
        said = torch.softmax(task.teacher(weak[[1, 3, 4, 5]]), 1).tolist()
    threshold = sum(sorted(max(row) for row in said)[1:3]) / 2  # two of the four are above it
    task.classifier.train()
    with torch.no_grad():  # in one batch, as in training
        logs = log_softmax(task.classifier(torch.cat([weak[[0, 2]], strong[[1, 3, 4, 5]]])))
    labeled = -(logs[0][0] + logs[1][2]) / 2
    unlabeled = 0.0
    for row, log in zip(said, logs[2:], strict=True):
        if max(row) >= threshold:
            unlabeled -= log[row.index(max(row))] / 4
    loss, metrics = matching(threshold).train().loss(batch, "main")
    assert loss.item() == pytest.approx(labeled + unlabeled, rel=1e-4)
    assert float(metrics["confident"]) == 0.5


def test_predictions_are_aligned_to_the_mix() -> None:
    """Berthelot et al., section 3.1: times target mix over running mean, normalized."""
    mix = np.array([0.6, 0.3, 0.1])
    task = matching(mix=mix)
    first, second = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), torch.tensor([[0.1, 0.1, 0.8]])
    mean = first.mean(0)
    for given in (first, second):
        mean = mean if given is first else 0.95 * mean + 0.05 * given.mean(0)
        expected = given * torch.from_numpy(mix).float() / mean
        torch.testing.assert_close(task.aligned(given), expected / expected.sum(1, keepdim=True))
    assert torch.equal(matching().aligned(first), first)


def test_targets_are_learned_by_how_much_they_count() -> None:
    draw = a_draw()
    targets = np.random.default_rng(0).dirichlet(np.ones(CLASSES), 24)
    counted = np.linspace(0, 1, 24)
    task = GivenTargets(a_classifier(), draw, targets, counted)
    logits, index = torch.randn(4, CLASSES), torch.tensor([7, 20, 11, 9])
    logs = log_softmax(logits)
    parts = [-counted[i] * sum(targets[i] * log) for i, log in zip(index.tolist(), logs, strict=True)]
    loss, _ = task.unlabeled_loss(logits, logits, index)
    assert loss.item() == pytest.approx(sum(parts) / counted[index.numpy()].sum(), rel=1e-4)


def test_a_batch_holds_classes_as_often_and_its_share_of_unlabeled_images() -> None:
    draw = a_draw()
    share = matching().sampling_weights().numpy()
    assert share[len(LABELS) :].sum() / share[: len(LABELS)].sum() == pytest.approx(UNLABELED)
    for label in range(CLASSES):
        assert share[: len(LABELS)][label == LABELS].sum() == pytest.approx(1 / 3)
    rows = both(draw)
    assert rows.labels is not None
    assert rows.labels.tolist() == [*LABELS, *[-1] * 18]
    assert rows.indices.tolist() == list(range(24))


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, -1, -1]])
def test_a_batch_of_one_kind_has_a_loss_too(labels: list[int]) -> None:
    loss, _ = matching(0.0).train().loss(a_batch(labels), "main")
    loss.backward()  # type: ignore[no-untyped-call]
    assert bool(loss.isfinite())


def train(task: Confident, checkpointing: Checkpointing | None = None, hooks: Hooks | None = None) -> None:
    rows = both(a_draw())
    views = transforms.preset("light", rows.frame)
    loader = Loader(rows, views, Batching(12, 0, 2))
    plan = Plan({"backbone": 0.05, "head": 0.05}, epochs=3, batch_size=12, steps_per_epoch=3)
    fit(task, loader, plan, toys.CPU, hooks, checkpointing)


def test_the_result_is_the_moving_average_of_the_weights_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = matching(), []
    before = task.before_step

    def spy(progress: float, map_dataset: Any) -> Any:
        if progress > 0:
            seen.append(task.classifier.head.last.weight.detach().clone())
        return before(progress, map_dataset)

    monkeypatch.setattr(task, "before_step", spy)
    average = task.classifier.head.last.weight.detach().clone()
    train(task)
    seen.append(task.classifier.head.last.weight.detach().clone())
    assert len(seen) == int(task.steps) == 9
    for step, weight in enumerate(seen, 1):
        decay = min(1 - 1 / (step + 1), DECAY)
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(task.result.head.last.weight, average)


def test_stopped_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, first, second = matching(), matching(), matching()
    train(whole)

    def stop(history: Any) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(first, Checkpointing(path), Hooks(each_epoch=stop))
    train(second, Checkpointing(path, resume=True))
    toys.assert_same_bits(toys.bits(whole), toys.bits(second))


def test_few_confident_images_and_another_mix_are_said() -> None:
    task = matching(0.8, np.array([0.5, 0.4, 0.1]))
    task.passing.fill_(0.04)
    (few,) = task.warnings()
    assert few == "fixmatch: only 4 % of the unlabeled images were above the threshold of 0.8 at the end; they " + (
        "taught little"
    )
    task.passing.fill_(0.5)
    task.taught.copy_(torch.tensor([0.3, 0.0, 0.2]))
    (far,) = task.warnings()
    assert far.startswith("fixmatch: 0 % of the pseudo-labels are of class number 1, which has an estimated 40 %")
    task.taught.copy_(torch.tensor([0.2, 0.2, 0.1]))
    assert not task.warnings()
