"""DeepCluster: the claims of methods.md section 3; above all that drawing is uniform and labels stay with images."""

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_app.clustering.agreement import nmi
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.deepcluster import DeepCluster, DeepClusterConfig
from ssl_app.training.batch_norm import recalibrate
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan, build_optimizer
from tests import toys

SIDE = 16


@pytest.fixture
def narrow() -> None:
    """Not here: clusters of random features need many of them."""


def task_of(count: int, labels: torch.Tensor | None = None, **settings: object) -> DeepCluster:
    torch.manual_seed(0)
    config = DeepClusterConfig(**({"clusters": 8} | settings))
    return DeepCluster(build("small-resnet", 1, SIDE), config, TrainingSet(count, 4, (), labels))


def cluster(task: DeepCluster, images: torch.Tensor, epoch: int = 0) -> dict[str, torch.Tensor]:
    return task.start_epoch(epoch, toys.MapInMemory(task, images))


def test_clusters_are_drawn_uniformly_and_images_keep_their_labels_on_a_long_tail() -> None:
    sizes = [400, 200, 100, 50, 25, 12, 6, 3]
    count = sum(sizes)
    task = task_of(count)
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(8), sizes)))
    task.labels.copy_(shuffled)
    images = toys.images(count)
    images[:, 0, 0, 0] = shuffled.numpy() + 100  # the image itself says whose it is
    loader = toys.loader_of(toys.rows(images), 64, "none")
    seen, wrong = np.zeros(8), 0
    for (batch,) in loader.epoch(0, 60, weights=task.sampling_weights()):
        said = task.labels[batch.index].numpy()
        shown = ((batch.images[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long().numpy() - 100
        wrong += int((said != shown).sum())
        seen += np.bincount(said, minlength=8)
    assert wrong == 0
    assert stats.chisquare(seen).pvalue > 0.001
    assert stats.chisquare(seen, np.array(sizes) / count * seen.sum()).pvalue < 1e-9  # and not as the images are


def test_a_new_epoch_has_new_clusters_and_a_new_layer_that_the_loop_forgets() -> None:
    task = task_of(40, clusters=4)
    assert task.head is not None
    before = task.head.weight.clone()
    metrics = cluster(task, torch.randn(40, 1, SIDE, SIDE))
    assert set(metrics) == {"objective", "repaired", "cluster_use"}
    assert not torch.equal(task.head.weight, before)
    assert float(task.head.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    assert list(task.reinitialized()) == [task.head.weight, task.head.bias]
    assert list(task.reinitialized()) == []
    assert torch.bincount(task.labels, minlength=4).min() > 0  # none is empty


def test_without_head_momentum_a_step_of_the_new_layer_is_one_of_its_gradient_alone() -> None:
    for momentum, factor in ((True, 0.9), (False, 0.0)):
        task = task_of(40, clusters=4, head_momentum=momentum)
        assert task.head is not None
        optimizer = build_optimizer(task, "main", Plan({"all": 0.1}, 1, 8, weight_decay=0.0))
        for _ in range(2):
            before = task.head.bias.detach().clone()
            optimizer.zero_grad()
            task.head.bias.grad = torch.ones(4)
            optimizer.step()
            moved = (before - task.head.bias.detach()).mean()
        # Nesterov's: v = .9 * 1 + 1, a step of g + .9 v
        assert float(moved) == pytest.approx(0.1 * (1 + factor * (1 + factor)))


def test_agreement_is_reported_with_chance_taken_away() -> None:
    labels = torch.arange(40) % 5
    labels[:10] = -1  # unlabeled
    task = task_of(40, labels, clusters=4)
    cluster(task, torch.randn(40, 1, SIDE, SIDE))
    last = task.labels.clone()
    metrics = cluster(task, torch.randn(40, 1, SIDE, SIDE), epoch=1)
    assert float(metrics["nmi_before"]) == pytest.approx(nmi(last.numpy(), task.labels.numpy()))
    assert float(metrics["nmi_labels"]) == pytest.approx(nmi(labels[10:].numpy(), task.labels[10:].numpy()))
    assert float(metrics["ami_labels"]) < float(metrics["nmi_labels"])  # at so few images chance is much


def test_the_first_clusters_are_of_batch_norm_statistics_of_the_images_and_the_last_of_the_last_network() -> None:
    images = torch.randn(60, 1, SIDE, SIDE) * 3 + 5
    task = task_of(60, clusters=5)
    cluster(task, images)
    with torch.no_grad():
        first = task.eval().backbone(images)
        recalibrate(task.backbone, images)
        torch.testing.assert_close(task.backbone(images), first)
        for parameter in task.backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    before = task.labels.clone()
    task.finish(toys.MapInMemory(task, images))
    assert nmi(before.numpy(), task.labels.numpy()) < 0.98
    with torch.no_grad():
        now = task.log_clusters(images)[:, 0].argmax(1)
    assert float((now == task.labels).float().mean()) > 0.9  # k-means may not have settled


@pytest.mark.parametrize(("backbone", "side", "width"), [("small-resnet", 16, 64), ("resnet50", 32, 256)])
def test_features_are_whitened_to_a_quarter(backbone: str, side: int, width: int) -> None:
    task = DeepCluster(build(backbone, 1, side), DeepClusterConfig(), TrainingSet(1000, 4))
    assert task.basis.shape[1] == width


def test_clusters_that_stand_still_at_once_give_a_warning() -> None:
    task = task_of(40, clusters=4)
    assert task.warning([{"nmi_before": 0.5}, {"nmi_before": 0.97}]) is None
    assert task.warning([{"accuracy": 0.1}]) is None
    assert str(task.warning([{"nmi_before": 0.5}, {"nmi_before": 0.99}])) == (
        "the clusters of deepcluster stand still: NMI 0.990 with the last by epoch 2; "
        "type more clusters, or a larger lr"
    )
    assert task.warning([{"nmi_before": 0.99}] * 6) is None


def test_clusters_that_stay_empty_give_a_warning() -> None:
    task = task_of(40, clusters=10)
    assert task.warning([{"repaired": 30.0}, {"repaired": 2.0}]) is None
    assert str(task.warning([{"repaired": 3.0}])) == (
        "3 times in the last k-means a cluster of deepcluster's 10 was left empty and filled by splitting another; "
        "type clusters 5"
    )


@pytest.mark.parametrize("classifier", ["new", "centroids"])
def test_the_labels_are_the_nearest_centroids_of_the_whitened_features(classifier: str) -> None:
    images = torch.randn(60, 1, SIDE, SIDE)
    task = task_of(60, clusters=5, classifier=classifier, pca=8, iterations=50)
    cluster(task, images)
    with torch.no_grad():
        features = task.eval().backbone(images).double().numpy()
        written = task.log_clusters(images)[:, 0]
    white = (features - task.mean.numpy()) @ task.basis.double().numpy()
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    distance = ((white[:, None] - task.centroids.double().numpy()) ** 2).sum(2)
    assert (distance.argmin(1) == task.labels.numpy()).all()  # k-means has settled by then
    assert (written.argmax(1).numpy() == distance.argmin(1)).all()
    torch.testing.assert_close(written.exp().sum(1), torch.ones(60))


def test_it_finds_kinds_of_images_again_and_again() -> None:
    count = 80
    images, kinds = toys.of_four_kinds(count, SIDE)
    task = task_of(count, torch.from_numpy(kinds), clusters=4, pca=4)
    loader = toys.loader_of(toys.rows(images), 20, "none")
    history = fit(task, loader, Plan({"all": 0.02}, 6, 20), toys.CPU)
    assert history[-1]["ami_labels"] > 0.9
    assert history[-1]["ami_before"] > 0.9
