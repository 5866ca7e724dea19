"""SeLa: the claims of methods.md section 2: schedule, balance, independence of the heads, what `faithful` is."""

import numpy as np
import pytest
import torch

from ssl_app.clustering import sinkhorn
from ssl_app.clustering.agreement import ami, nmi
from ssl_app.data.batch import Batch
from ssl_app.errors import DataError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.sela import SeLa, SeLaConfig, moments
from ssl_app.training.batch_norm import recalibrate
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from tests import toys
from tests.toys import MapInMemory

COUNT, SIDE = 60, 16


def task_of(images: int = COUNT, epochs: int = 4, **settings: object) -> SeLa:
    torch.manual_seed(0)
    defaults = {"clusters": 4, "heads": 3}
    return SeLa(build("small-resnet", 1, SIDE), SeLaConfig(**(defaults | settings)), TrainingSet(images, epochs))


def test_the_schedule_is_the_papers() -> None:
    found = moments(100, 400, "quadratic", released=True)
    reference = [(400 + 1.01) * x**2 for x in np.linspace(0, 1, 100)]
    np.testing.assert_allclose(found, [moment for moment in reference if moment < 400], atol=1e-9)
    np.testing.assert_allclose(found[:7], [0, 0.04, 0.16, 0.37, 0.65, 1.02, 1.47], atol=0.01)
    assert sum(moment < 100 for moment in found) == pytest.approx(50, abs=1)  # half of them in the first quarter
    np.testing.assert_allclose(moments(400, 400, "linear", released=True)[:3], [0, 1.005, 2.01], atol=0.001)


@pytest.mark.parametrize(("relabels", "epochs"), [(1, 10), (2, 60), (10, 60), (80, 1)])
def test_as_many_relabelings_as_asked_lie_inside_the_training(relabels: int, epochs: int) -> None:
    assert moments(relabels, epochs, "linear", released=False) == pytest.approx(
        [epochs * number / relabels for number in range(relabels)]
    )
    assert moments(relabels, epochs, "quadratic", released=False) == pytest.approx(
        [epochs * (number / relabels) ** 2 for number in range(relabels)]
    )


def test_labels_start_random_and_balanced_and_the_first_step_relabels() -> None:
    task = task_of()
    for labels in task.labels:
        assert torch.bincount(labels, minlength=4).tolist() == [15] * 4
    assert not torch.equal(task.labels[0], task.labels[1])
    before = task.labels.clone()
    metrics = task.before_step(0.0, MapInMemory(task, torch.randn(COUNT, 1, SIDE, SIDE)))
    assert int(task.done) == 1
    assert float(metrics["labels_changed"]) == pytest.approx(float((task.labels != before).double().mean()))
    assert task.before_step(0.0, MapInMemory(task, torch.randn(COUNT, 1, SIDE, SIDE))) == {}  # once is enough


def test_each_head_solves_its_own_problem_on_its_own_scores() -> None:
    task = task_of()
    images = torch.randn(COUNT, 1, SIDE, SIDE)
    task.before_step(0.0, MapInMemory(task, images))
    with torch.no_grad():
        features = task.eval().backbone(images)
        for number, head in enumerate(task.heads):
            q = sinkhorn.assignment(head(features).double(), task.config.sharpness, task.potentials[number])
            assert float((q.mean(0) * 4 - 1).abs().mean()) <= 2e-3
            assert torch.equal(q.argmax(1), task.labels[number].long())
        log_clusters = task.log_clusters(images)
    assert torch.equal(log_clusters.argmax(2).t(), task.labels.long())  # what `ssl-app label` writes


def test_the_first_heads_labels_are_compared_with_those_before_and_with_known_classes() -> None:
    task = task_of(relabels=4)
    task.known = torch.arange(COUNT) % 5
    task.known[:10] = -1  # unlabeled
    images = MapInMemory(task, torch.randn(COUNT, 1, SIDE, SIDE))
    first = task.before_step(0.0, images)
    assert "nmi_before" not in first, "those before were random"
    before = task.labels[0].clone()
    with torch.no_grad():
        task.backbone.body.stem[0].weight.mul_(-1)
    metrics = task.before_step(task.times[1], images)
    after = task.labels[0]
    assert float(metrics["nmi_before"]) == pytest.approx(nmi(before.numpy(), after.numpy()))
    assert float(metrics["ami_labels"]) == pytest.approx(ami(task.known[10:].numpy(), after[10:].numpy()))


def test_relabeling_waits_for_its_moment_and_catches_up() -> None:
    task = task_of(epochs=10, relabels=6)
    images = torch.randn(COUNT, 1, SIDE, SIDE)
    done = []
    for progress in (0.0, 0.1, task.times[1], 5.0, 9.9):
        task.before_step(progress, MapInMemory(task, images))
        done.append(int(task.done))
    assert done[:3] == [1, 1, 2]
    assert done[3] == sum(moment <= 5.0 for moment in task.times)
    assert done[4] == len(task.times)


def test_faithful_relabels_as_trained_and_linear_spacing_one_head_at_a_time() -> None:
    task = task_of(faithful=True, spacing="linear", epochs=6, relabels=6)
    before = task.labels.clone()
    images_map = MapInMemory(task, torch.randn(COUNT, 1, SIDE, SIDE))
    task.before_step(0.0, images_map)
    assert images_map.as_trained == [True]
    assert not torch.equal(task.labels[0], before[0])
    assert torch.equal(task.labels[1:], before[1:])
    task.before_step(task.times[1], images_map)
    assert not torch.equal(task.labels[1], before[1])
    assert torch.equal(task.labels[2], before[2])
    plain = task_of()
    images_map = MapInMemory(plain, torch.randn(COUNT, 1, SIDE, SIDE))
    plain.before_step(0.0, images_map)
    assert images_map.as_trained == [False, False]  # a sample for batch norm, and the features


def test_the_first_relabeling_sees_batch_norm_statistics_of_the_images() -> None:
    images = torch.randn(COUNT, 1, SIDE, SIDE) * 3 + 5
    task, faithful = task_of(), task_of(faithful=True)
    for one in (task, faithful):
        one.before_step(0.0, MapInMemory(one, images))
    with torch.no_grad():
        found = task.eval().backbone(images)
        recalibrate(task.backbone, images)
        torch.testing.assert_close(task.backbone(images), found)
    assert float(found.std(0).mean()) > 0.05  # images differ: else a few clusters would take nearly all of them


def test_the_last_labels_are_those_of_the_last_network() -> None:
    task = task_of()
    images = torch.randn(COUNT, 1, SIDE, SIDE)
    images_map = MapInMemory(task, images)
    task.before_step(0.0, images_map)
    with torch.no_grad():
        for head in task.heads:
            head.weight.copy_(torch.randn_like(head.weight))
    before = task.labels.clone()
    task.finish(images_map)
    assert not torch.equal(task.labels, before)
    with torch.no_grad():
        assert torch.equal(task.eval().log_clusters(images).argmax(2).t(), task.labels.long())


def test_heads_that_were_due_at_once_are_all_relabeled() -> None:
    task = task_of(faithful=True, spacing="linear", epochs=6, relabels=60)
    before = task.labels.clone()
    images_map = MapInMemory(task, torch.randn(COUNT, 1, SIDE, SIDE))
    task.before_step(task.times[1], images_map)
    assert [torch.equal(now, then) for now, then in zip(task.labels, before, strict=True)] == [False, False, True]


def test_an_epoch_that_is_timed_has_one_relabeling() -> None:
    config = SeLa.for_one_epoch(SeLaConfig(relabels=40))
    assert isinstance(config, SeLaConfig)
    assert SeLa(build("small-resnet", 1, SIDE), config, TrainingSet(COUNT, 1)).times == [0.0]


def test_the_loss_is_the_mean_over_heads_of_cross_entropy() -> None:
    task = task_of().eval()
    images = torch.randn(6, 1, SIDE, SIDE)
    index = torch.tensor([3, 9, 1, 40, 59, 0])
    loss, _ = task.loss(Batch((images,), index, None, 0), "main")
    features = task.backbone(images)
    each = []
    for number, head in enumerate(task.heads):
        for row, place in enumerate(index):
            each.append(-torch.log_softmax(head(features[row]), 0)[task.labels[number, place].long()])
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_a_skewed_prior_gives_clusters_of_many_sizes() -> None:
    task = task_of(images=400, skew=1.0, clusters=4)
    images = torch.randn(400, 1, SIDE, SIDE)
    task.before_step(0.0, MapInMemory(task, images))
    vague = torch.bincount(task.labels[0], minlength=4) / 400
    assert vague.max() < 0.5  # a network that knows nothing does not give all to the largest
    with torch.no_grad():
        task.heads[0].weight *= 1000
    task.before_step(4.0, MapInMemory(task, images))
    sizes = torch.bincount(task.labels[0], minlength=4).sort(descending=True).values / 400
    expected = torch.tensor([1, 1 / 2, 1 / 3, 1 / 4]) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    torch.testing.assert_close(sizes, expected, atol=0.03, rtol=0)  # hard labels round the soft shares


def test_as_many_clusters_as_asked_and_a_line_where_there_are_too_many() -> None:
    with pytest.raises(DataError) as error:
        task_of(clusters=61)
    assert str(error.value).startswith("60 images cannot fill 61 clusters; type clusters 6")
    assert "type clusters 6 or fewer" in str(task_of(clusters=7).notes[0])
    assert "type" not in str(task_of(clusters=6).notes[0])
    assert task_of(images=50_000, clusters=None).clusters == 125
    assert task_of(images=200, clusters=None).clusters == 16


def test_an_assignment_that_ended_unbalanced_gives_a_warning() -> None:
    task = task_of()
    assert task.warning([{"accuracy": 0.1}]) is None
    assert task.warning([{"sinkhorn_error": 0.5}, {"sinkhorn_error": 0.001}, {"accuracy": 0.1}]) is None
    warning = task.warning([{"sinkhorn_error": 0.001}, {"sinkhorn_error": 0.25}, {"accuracy": 0.1}])
    assert str(warning) == (
        "the clusters of sela are not balanced: their sizes are 25% off in the mean; type a smaller sharpness"
    )


def test_it_groups_images_that_are_alike() -> None:
    """Four kinds of image, four clusters: the labels end as the kinds, under any names."""
    images, kinds = toys.of_four_kinds(COUNT, SIDE)
    task = task_of(epochs=15, heads=2, relabels=15)
    fit(task, toys.loader_of(toys.rows(images), 20, "none"), Plan({"all": 0.05}, 15, 20), toys.CPU)
    for labels in task.labels:
        assert all(len(set(labels[kinds == kind].tolist())) == 1 for kind in range(4))
        assert len(set(labels.tolist())) == 4
