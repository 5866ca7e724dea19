"""BYOL against its formulas: the teacher's moving average, no gradient to it, symmetric loss."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.byol import BYOL, BYOLConfig, distance
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from tests import toys


def make(epochs: int = 4, **settings: object) -> BYOL:
    torch.manual_seed(0)
    return BYOL(build("small-resnet", 1, 16), BYOLConfig(**settings), TrainingSet(24, epochs))


def batch(count: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(count, 1, 16, 16, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), None, 0)


def student(task: BYOL) -> dict[str, torch.Tensor]:
    own = {f"0.{k}": v for k, v in task.backbone.state_dict().items()}
    return {k: v.clone() for k, v in (own | {f"1.{k}": v for k, v in task.projector.state_dict().items()}).items()}


def test_the_teacher_begins_as_the_student() -> None:
    task = make()
    teacher = task.teacher.module.state_dict()
    assert teacher.keys() == student(task).keys()
    assert all(torch.equal(teacher[name], value) for name, value in student(task).items())


def test_the_teacher_follows_the_formula_of_the_moving_average() -> None:
    task = make(decay=0.9)
    before = copy.deepcopy(task.teacher.module.state_dict())
    with torch.no_grad():
        for parameter in task.backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    now = student(task)
    task.update_teacher(progress=1.0)
    decay = 1 - (1 - 0.9) * (math.cos(math.pi * 1.0 / 4) + 1) / 2
    for name, value in task.teacher.module.state_dict().items():
        if value.is_floating_point():
            expected = decay * before[name] + (1 - decay) * now[name]
            assert torch.allclose(value, expected, atol=1e-6), name


def test_the_decay_rises_from_its_setting_to_1_by_a_cosine() -> None:
    task = make(epochs=10, decay=0.99)
    assert task.decay_at(0) == pytest.approx(0.99)
    assert task.decay_at(5) == pytest.approx(0.995)
    assert task.decay_at(10) == pytest.approx(1.0)


def test_no_gradient_reaches_the_teacher_and_all_reach_the_student() -> None:
    task = make()
    task.train()
    loss, _ = task.loss(batch(), "main")
    loss.backward()
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert all(parameter.grad is not None for parameter in task.parameters_of("main"))


def test_the_teacher_moves_by_the_average_alone_in_training() -> None:
    task = make(decay=1.0)  # so that the average stands still
    before = [parameter.clone() for parameter in task.teacher.parameters()]
    fit(task, toys.loader(24, 8, side=16, views=2), Plan({"all": 0.1}, 2, 8), toys.CPU)
    assert all(torch.equal(old, new) for old, new in zip(before, task.teacher.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())


def test_the_loss_is_2_minus_2_cosines_both_ways_round() -> None:
    task = make()
    task.train()
    given = batch()
    with torch.no_grad():
        found = float(copy.deepcopy(task).loss(given, "main")[0])
        one, other = given.views
        backbone, projector = task.teacher.module.children()
        total = 0.0
        for guessed, taught in ((one, other), (other, one)):
            guess = task.predictor(task.projector(task.backbone(guessed).flatten(1)))
            target = projector(backbone(taught).flatten(1))
            for a, b in zip(guess, target, strict=True):
                total += 2 - 2 * float(a @ b / (a.norm() * b.norm()))
    assert found == pytest.approx(total / 12, abs=1e-4)


def test_distance_is_0_for_the_same_direction_and_4_for_the_opposite() -> None:
    one = functional.normalize(torch.randn(5, 3), dim=1)
    assert float(distance(3 * one, one)) == pytest.approx(0, abs=1e-6)
    assert float(distance(-one, one)) == pytest.approx(4, abs=1e-6)


def test_collapse_is_a_warning() -> None:
    assert make().warning([{"embedding_std": 0.5}]) is None
    assert "collapsed" in str(make().warning([{"embedding_std": 0.01}]))
