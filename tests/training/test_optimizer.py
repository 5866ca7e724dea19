"""Optimizers and learning-rate schedules of a plan, by hand."""

import pytest
import torch

from ssl_app.training.optimizer import Plan, build_optimizer, factor
from tests import toys


def test_weights_decay_biases_and_norms_do_not() -> None:
    task = toys.Mean()
    plan = Plan({"all": 0.1}, 1, 8, weight_decay=0.01)
    decays = {id(p): g["weight_decay"] for g in build_optimizer(task, "main", plan).param_groups for p in g["params"]}
    assert {n: decays[id(p)] for n, p in task.named_parameters()} == {
        "net.0.weight": 0.01,
        "net.1.weight": 0.0,
        "net.1.bias": 0.0,
        "net.6.weight": 0.01,
        "net.6.bias": 0.0,
    }


def test_optimizers_have_their_momentum() -> None:
    sgd = build_optimizer(toys.Mean(), "main", Plan({"all": 0.1}, 1, 8))
    assert (type(sgd), sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (torch.optim.SGD, 0.9, True)
    adam = build_optimizer(toys.Mean(), "main", Plan({"all": 0.1}, 1, 8, optimizer="adamw", momentum=0.8))
    assert (type(adam), adam.defaults["betas"]) == (torch.optim.AdamW, (0.8, 0.999))


def test_milestones_lower_the_rate_one_after_the_other_and_after_a_warmup() -> None:
    steps = Plan({}, 1, 1, warmup=0.2, schedule="step", milestones=(0.5, 0.8), gamma=0.1)
    assert [factor(steps, step, 10) for step in (0, 1, 2, 4, 5, 7, 8)] == pytest.approx(
        [0.5, 1, 1, 1, 0.1, 0.1, 0.01]
    )
