"""RotNet: the claims of methods.md section 1, against plain numpy."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.data.transforms import Frame
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.rotnet import TURNS, RotNet, RotNetConfig, turn
from ssl_app.training.loop import fit
from ssl_app.training.optimizer import Plan
from tests import toys


def batch_of(images: torch.Tensor) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=0)


def test_turns_equal_numpys_and_come_turn_by_turn() -> None:
    images = torch.randn(3, 2, 6, 6)
    turned, turns = turn(images)
    assert turns.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for k in range(TURNS):
        expected = np.rot90(images.numpy(), k, (2, 3))
        assert np.array_equal(turned[3 * k : 3 * k + 3].numpy(), expected)


@pytest.mark.parametrize(("side", "smallest"), [(32, 1.0), (64, 0.28)])
def test_small_images_are_shifted_and_of_larger_ones_a_part_is_cut(side: int, smallest: float) -> None:
    task = RotNet(build("small-resnet", 1, side), RotNetConfig(), TrainingSet(8, 1))
    augmentation = task.augmentation(Frame(side, side, 1))
    ramp = np.linspace(0, 1, side, dtype=np.float32)[None, :, None].repeat(side, 0)
    views = np.stack([augmentation(ramp, seed, 0) for seed in range(200)])
    slopes = np.abs(np.median(np.diff(views[..., 0], axis=2), axis=(1, 2))) * (side - 1)  # share of the width in view
    assert float(slopes.min()) == pytest.approx(smallest, abs=0.06)


def test_four_quarter_turns_are_the_identity_and_k_undoes_4_minus_k() -> None:
    images = torch.randn(2, 1, 5, 5)
    again = images
    for _ in range(TURNS):
        again = turn(again)[0][2:4]
    assert torch.equal(again, images)
    for k in range(1, TURNS):
        once = turn(images)[0][2 * k : 2 * k + 2]
        assert torch.equal(turn(once)[0][2 * (TURNS - k) : 2 * (TURNS - k) + 2], images)


def test_turning_introduces_and_loses_no_pixel() -> None:
    images = torch.rand(2, 3, 8, 8) + 0.1
    turned, _ = turn(images)
    for k in range(TURNS):
        assert torch.equal(turned[2 * k : 2 * k + 2].flatten(1).sort().values, images.flatten(1).sort().values)
    assert turned.min() > 0  # nothing was filled


def test_turning_keeps_the_memory_format() -> None:
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert turn(images)[0].is_contiguous(memory_format=torch.channels_last)


def test_the_loss_is_the_mean_cross_entropy_over_images_and_turns() -> None:
    torch.manual_seed(0)
    task = RotNet(build("small-resnet", 1, 16), RotNet.Config(), TrainingSet(4, 10)).eval()
    images = torch.randn(4, 1, 16, 16)
    loss, metrics = task.loss(batch_of(images), "main")
    losses, hits = [], []
    for image in images:  # one image and one turn at a time, from the paper's equation 2
        for k in range(TURNS):
            turned = torch.from_numpy(np.rot90(image.numpy(), k, (1, 2)).copy())[None]
            logits = task.head(task.backbone(turned))
            losses.append(functional.cross_entropy(logits, torch.tensor([k])))
            hits.append(float(logits.argmax() == k))
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(hits))


def test_images_that_look_alike_in_all_turns_stay_at_chance() -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 1, 16, 16)
    symmetric = turn(images)[0].view(TURNS, 16, 1, 16, 16).mean(0)
    task = RotNet(build("small-resnet", 1, 16), RotNet.Config(), TrainingSet(16, 10)).eval()
    _, metrics = task.loss(batch_of(symmetric), "main")
    assert float(metrics["accuracy"]) == 0.25  # the four turns are one image: exactly one of them is right


def test_it_learns_images_that_have_an_orientation() -> None:
    images = toys.images(64, 16)
    images[:, :8] //= 4  # dark above
    torch.manual_seed(0)
    task = RotNet(build("small-resnet", 1, 16), RotNet.Config(), TrainingSet(64, 20))
    plan = Plan(rates={"all": 0.05}, epochs=20, batch_size=32)
    history = fit(task, toys.loader_of(toys.rows(images), 32, "none"), plan, toys.CPU)
    assert history[0]["accuracy"] < history[-1]["accuracy"]
    assert history[-1]["accuracy"] > 0.95
