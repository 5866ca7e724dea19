"""Colorization: the claims of methods.md section 6, against slow references."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.errors import DataError, SettingsError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.colorization import (
    MOST_WEIGHT,
    SCALE,
    SEEN,
    Colorization,
    drawn_side,
    fold,
    smoothed,
    soft_cross_entropy,
    weights_of,
)
from ssl_app.pretext.parts.lab import LUMA, ColorBins, bin_centers, lab_of
from ssl_app.training.task import BatchFunction
from tests import toys
from tests.toys import MapInMemory

OFF_GRAY = torch.tensor([0.3, -0.3 * LUMA[0] / LUMA[1], 0.0]).view(1, 3, 1, 1)  # a color whose luma is 0


def batch_of(images: torch.Tensor) -> Batch:
    return Batch((images,), torch.arange(len(images)), None, seed=0)


def make(side: int = 16, backbone: str = "small-resnet", **settings: object) -> Colorization:
    torch.manual_seed(0)
    return Colorization(build(backbone, 3, side), Colorization.Config(**settings), TrainingSet(8, 10))


def photographs(count: int = 4, side: int = 16, seed: int = 0) -> torch.Tensor:
    """Smooth images in many colors, (B, 3, S, S) in [-1, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False) * 2 - 1


def grays(count: int = 4, side: int = 16) -> torch.Tensor:
    return photographs(count, side, seed=1)[:, :1].expand(-1, 3, -1, -1).clone()


def targets_of(images: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Mean ab of the pixels to be drawn. (B, 3, S, S) -> (B, 2, S / factor, S / factor)."""
    return functional.avg_pool2d(lab_of((images + 1) / 2)[:, 1:], factor)


def drawn_of(task: Colorization, images: torch.Tensor) -> torch.Tensor:
    """Logits of the bins or ab. (B, 3, S, S) -> (B, 313 or 2, h, w)."""
    return task.decoder(task.backbone(luma_of(images), task.layer))


def luma_of(images: torch.Tensor) -> torch.Tensor:
    gray = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    return torch.cat([gray, gray, gray], 1)


def test_the_loss_is_the_weighted_cross_entropy_of_dense_soft_colors() -> None:
    task = make().eval()
    task.weights.copy_(torch.rand(313) + 0.5)
    images = photographs()
    loss, metrics = task.loss(batch_of(images), "main")
    logits = task.decoder(task.backbone(luma_of(images), task.layer)).detach().double()
    ab = lab_of((images + 1) / 2)[:, 1:].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).double()  # (4, 2, 8, 8)
    losses, hits = [], []
    for image, y, x in np.ndindex(4, 8, 8):  # equation 2, a pixel at a time
        apart = (bin_centers().double() - ab[image, :, y, x]).norm(dim=1)
        near = apart.argsort()[:5]
        truth = torch.zeros(313, dtype=torch.float64)
        truth[near] = torch.exp(-(apart[near] ** 2) / 50)
        truth /= truth.sum()
        cross = -(truth * logits[image, :, y, x].log_softmax(0)).sum()
        losses.append(float(task.weights[near[0]] * cross))
        hits.append(float(logits[image, :, y, x].argmax() == near[0]))
    assert float(loss.detach()) == pytest.approx(
        np.mean(losses), abs=2e-3
    )  # the fifth bin is looked up for rounded ab
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(hits))
    assert metrics["gray"] == 0


def test_a_network_that_knows_nothing_loses_log_313() -> None:
    loss, _ = make().eval().loss(batch_of(photographs()), "main")
    assert abs(float(loss.detach()) - np.log(313)) < 0.5
    uniform = torch.zeros(1, 313, 1, 1)
    colors = ColorBins().encode(torch.tensor([33.0, -12.0]).view(1, 2, 1, 1))
    assert float(soft_cross_entropy(uniform, colors)) == pytest.approx(np.log(313), abs=1e-5)


def test_the_network_sees_luma_only() -> None:
    task = make().eval()
    images = photographs() * 0.4
    other = images + OFF_GRAY
    given, of_other = (
        toys.inputs_of(task.backbone, lambda i=i: task.loss(batch_of(i), "main")) for i in (images, other)
    )
    torch.testing.assert_close(given, of_other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(given, [luma_of(images)])
    assert not torch.allclose(drawn_of(task, images), drawn_of(task, images + 0.2), atol=1e-3)


@pytest.mark.parametrize("target", ["bins", "regression"])
def test_gray_images_are_left_out_of_loss_and_score(target: str) -> None:
    task = make(target=target).eval()
    color, gray = photographs(3), grays(1)
    alone, of_alone = task.loss(batch_of(color), "main")
    mixed, of_mixed = task.loss(batch_of(torch.cat([color, gray])), "main")
    torch.testing.assert_close(alone, mixed)
    torch.testing.assert_close(of_alone["accuracy"], of_mixed["accuracy"])
    assert of_mixed["gray"] == 0.25
    task.train()
    nothing, metrics = task.loss(batch_of(grays(2)), "main")
    nothing.backward()
    assert nothing == 0
    assert metrics["gray"] == 1
    assert all(not p.grad.any() for p in task.parameters() if p.grad is not None)


def test_weights_have_mean_1_and_fall_with_the_share() -> None:
    shares = smoothed(torch.rand(313, generator=torch.Generator().manual_seed(0)) ** 6, bin_centers())
    shares /= shares.sum()
    weights = weights_of(shares, 0.5)
    assert float((shares * weights).sum()) == pytest.approx(1)
    assert (weights[shares.argsort()].diff() <= 1e-9).all()
    raw = 1 / (0.5 * shares + 0.5 / 313)  # equation 4
    torch.testing.assert_close(weights, raw / (shares * raw).sum())
    assert torch.equal(weights_of(shares, 0.0).float(), torch.ones(313))


def test_rare_colors_weigh_at_most_so_much_and_those_that_never_come_as_much_as_the_rarest() -> None:
    shares = torch.full((313,), 2e-5, dtype=torch.float64)
    shares[:10] = 0
    shares[10] = 1 - shares[11:].sum()
    weights = weights_of(shares, 0.5)
    assert float((shares * weights).sum()) == pytest.approx(1)
    assert float(weights.max()) == pytest.approx(MOST_WEIGHT, rel=1e-3)
    assert torch.equal(weights[:10], weights[20].expand(10))
    assert shares[20] > SEEN


def test_smoothing_spreads_a_share_over_neighbors() -> None:
    centers = bin_centers()
    at = int(((centers - torch.tensor([0.0, 0.0])).norm(dim=1) == 0).nonzero())
    found = smoothed(functional.one_hot(torch.tensor(at), 313), centers)
    kernel = torch.exp(-centers.double().square().sum(1) / 50)
    torch.testing.assert_close(found, kernel / kernel.sum())


def test_colors_are_counted_before_the_first_epoch_only() -> None:
    task = make()
    images = torch.cat([photographs(6), grays(2)])
    task.start_epoch(0, MapInMemory(task, images))
    ab = targets_of(images[:6]).permute(0, 2, 3, 1).reshape(-1, 2)
    counts = torch.bincount(torch.cdist(ab, bin_centers()).argmin(1), minlength=313).double()
    expected = weights_of(smoothed(counts / counts.sum(), bin_centers()), 0.5).float()
    torch.testing.assert_close(task.weights, expected)
    task.start_epoch(1, MapInMemory(task, photographs(4, seed=5)))
    torch.testing.assert_close(task.weights, expected)
    nothing = make()
    nothing.start_epoch(0, MapInMemory(nothing, grays(3)))
    assert torch.equal(nothing.weights, torch.ones(313))


def test_what_is_drawn_is_half_the_image_or_less() -> None:
    assert [drawn_side(side) for side in (16, 32, 48, 64, 96, 224)] == [8, 16, 24, 16, 24, 28]
    for side, backbone in ((32, "small-resnet"), (64, "resnet18")):
        task = make(side, backbone)
        assert drawn_of(task, photographs(2, side)).shape == (2, 313, 16, 16)


@pytest.mark.parametrize(("backbone", "side"), [("small-resnet", 16), ("resnet18", 32), ("alexnet", 64)])
def test_at_the_end_the_network_gives_of_colors_what_it_gave_of_luma(backbone: str, side: int) -> None:
    task = make(side, backbone).eval()
    images = photographs(2, side)
    before = {layer: task.backbone(luma_of(images), layer).detach() for layer in (task.layer, None)}
    task.finish(MapInMemory(task, images))
    for layer, expected in before.items():
        assert (task.backbone(images, layer) - expected).abs().max() < 1e-5
        assert (task.backbone(luma_of(images), layer) - expected).abs().max() < 1e-5
    weights = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task.finish(MapInMemory(task, images))  # a run resumed from its end
    assert all(torch.equal(weights[name], tensor) for name, tensor in task.state_dict().items())


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_folding_keeps_padding_and_bias_right(padding_mode: str) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 5, 2, padding=2, padding_mode=padding_mode)
    images = photographs(2, 9)
    before = convolution(luma_of(images))
    fold(convolution)
    torch.testing.assert_close(convolution(images), before, atol=1e-5, rtol=1e-4)


def test_a_network_that_luma_cannot_be_folded_into_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        make(64, "alexnet+sobel")
    assert str(error.value).startswith(
        "colorization folds luma into a first convolution, and alexnet+sobel begins with Sobel; "
        "type backbone small-resnet"
    )


def test_a_set_without_color_is_refused() -> None:
    gray = np.repeat(np.random.default_rng(0).random((40, 8, 8, 1), np.float32), 3, axis=3)
    with pytest.raises(DataError) as error:
        Colorization.check(gray, Colorization.Config())
    assert str(error.value).startswith(
        "colorization needs color images: 40 of 40 sampled images have no chroma; type method rotnet"
    )
    with pytest.raises(DataError) as error:
        Colorization.check(gray[..., :1], Colorization.Config())
    assert str(error.value).startswith(
        "colorization needs color images: these have 1 channels; expected 3; type method rotnet"
    )
    gray[39, 4, 4] = (1, 0, 0)  # one color is enough to begin with: the others are masked
    Colorization.check(gray, Colorization.Config())


def train_on_two_colors(share: float, **settings: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images that are of one of two colors, whatever their luma. -> ab predicted, and of both, each (2,)."""
    task = make(**settings)
    gray = grays(12) * 0.3
    sign = torch.where(torch.arange(12) < round(share * 12), 1.0, -1.0).view(12, 1, 1, 1)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(50):
        turned = sign[torch.randperm(12, generator=torch.Generator().manual_seed(step))]
        loss, _ = task.loss(batch_of(gray + turned * OFF_GRAY), "main")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        shown = (task.color(gray), gray + OFF_GRAY, gray - OFF_GRAY)
        predicted, likely, rare = (lab_of((images + 1) / 2)[:, 1:].mean((0, 2, 3)) for images in shown)
    return predicted, likely, rare


def test_of_two_colors_regression_predicts_the_mean_and_bins_predict_the_likelier() -> None:
    predicted, likely, rare = train_on_two_colors(0.75, target="regression")
    mean = 0.75 * likely + 0.25 * rare
    assert (predicted - mean).norm() < 5
    predicted, likely, rare = train_on_two_colors(0.75, target="bins")
    assert (predicted - likely).norm() < 0.5 * (mean - likely).norm()


def test_of_two_colors_alike_the_mean_is_gray_and_the_mode_is_one_of_them() -> None:
    bins = ColorBins()
    ab = torch.tensor([[50.0, 0.0], [-50.0, 0.0]]).view(2, 2, 1, 1)
    colors = bins.encode(ab)
    dense = torch.zeros(2, 313, 1, 1).scatter(1, colors.index, colors.weight)
    best = (0.51 * dense[:1] + 0.49 * dense[1:]).clamp_min(1e-9).log()  # what cross-entropy is least at
    assert bins.mean(best, 1.0).norm() < 2
    assert (bins.mean(best, 0.01) - ab[:1]).norm() < 5
    assert (0.51 * ab[0] + 0.49 * ab[1]).norm() < 2  # and squared error


@pytest.mark.parametrize("target", ["bins", "regression"])
def test_a_constant_color_is_learned(target: str) -> None:
    predicted, truth, _ = train_on_two_colors(1.0, target=target)
    assert (predicted - truth).norm() < 10


def test_regression_is_squared_distance_in_units_of_ab() -> None:
    task = make(target="regression").eval()
    images = photographs()
    loss, _ = task.loss(batch_of(images), "main")
    predicted = drawn_of(task, images) * SCALE
    torch.testing.assert_close(
        loss, ((predicted - targets_of(images)) / SCALE).square().sum(1).mean(), atol=1e-4, rtol=1e-4
    )


def test_pictures_show_image_luma_and_colors_of_the_same_lightness() -> None:
    task = make().eval()
    images = photographs()
    with torch.no_grad():
        shown = task.pictures(batch_of(images))["colored"]
    assert shown.shape == (4, 3, 3, 16, 16)
    assert torch.equal(shown[:, 0], images)
    torch.testing.assert_close(shown[:, 1], luma_of(images))
    assert shown.abs().max() <= 1
    inside = ((shown[:, 2] > -1) & (shown[:, 2] < 1)).all(1)  # (4, 16, 16), what no clipping has moved
    assert inside.float().mean() > 0.5
    lightness = [lab_of((image + 1) / 2)[:, 0][inside] for image in (shown[:, 0], shown[:, 2])]
    torch.testing.assert_close(lightness[1], lightness[0], atol=1.0, rtol=0)  # of 100


def test_it_learns_in_bf16_with_a_loss_in_float32() -> None:
    task = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [task.loss(batch_of(photographs()), player)[0] for player in task.players]
    for loss in losses:
        assert loss.dtype == torch.float32
        loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in task.parameters() if p.grad is not None)


def test_many_grays_are_noted() -> None:
    images = np.random.default_rng(0).random((10, 8, 8, 3), np.float32)
    assert Colorization.check(images, Colorization.Config()) == ()
    images[:3] = images[:3, ..., :1]
    assert tuple(map(str, Colorization.check(images, Colorization.Config()))) == (
        "30% of the images are gray, and left out of colorization's loss",
    )


@pytest.mark.parametrize("rebalancing", [0.0, 0.9])
def test_rebalancing_is_the_users_and_the_commonest_color_is_counted(rebalancing: float) -> None:
    task, images = make(rebalancing=rebalancing), photographs(6)
    found = task.start_epoch(0, MapInMemory(task, images))
    counts = torch.bincount(ColorBins().nearest(targets_of(images)).flatten().long(), minlength=313).double()
    expected = weights_of(smoothed(counts / counts.sum(), bin_centers()), rebalancing)
    torch.testing.assert_close(task.weights, expected.float())
    assert float(found["commonest"]) == pytest.approx(float(counts.max() / counts.sum()))


def test_the_even_part_is_over_the_colors_that_come() -> None:
    shares = torch.cat([torch.tensor([0.75, 0.25]), torch.zeros(311)]).double()
    assert weights_of(shares, 0.5).tolist() == pytest.approx([6 / 7] + [10 / 7] * 312)


def test_colors_are_counted_all_over_a_large_image() -> None:
    class Kept(MapInMemory):
        def local(self, fn: BatchFunction, *, as_trained: bool = False) -> torch.Tensor:
            kept.append(super().local(fn, as_trained=as_trained))
            return kept[-1]

    kept: list[torch.Tensor] = []
    task, images = make(64), photographs(2, 64)
    task.start_epoch(0, Kept(task, images))
    every = task.bins.nearest(targets_of(images, 4))  # (2, 16, 16)
    assert torch.equal(kept[0].long(), every[:, ::2, ::2].flatten(1).long())


def test_a_perfect_regression_loses_nothing_and_is_always_right() -> None:
    task, images = make(target="regression").eval(), photographs()
    task.decoder = toys.Returns(
        lambda features: functional.adaptive_avg_pool2d(lab_of((images + 1) / 2)[:, 1:], 8) / SCALE
    )
    loss, metrics = task.loss(batch_of(images), "main")
    assert (loss, metrics["accuracy"]) == (0, 1)


def test_monitored_features_are_those_of_the_checkpoint() -> None:
    task, images = make().eval(), photographs()
    before = task.features(images)
    torch.testing.assert_close(before, task.backbone(luma_of(images)))
    task.finish(MapInMemory(task, images))
    torch.testing.assert_close(task.features(images), before, atol=1e-5, rtol=1e-4)


def test_pale_colors_are_colors() -> None:
    pale = np.full((4, 8, 8, 3), 0.5, np.float32)
    pale[..., 0] = 0.57  # a is 6.7
    assert Colorization.check(pale, Colorization.Config()) == ()
