"""Progressive resizing in stage two: which steps are at half the side, what forbids it, and what it costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app.config import flag
from ssl_app.data.spec import DataSpec, PixelSpec
from ssl_app.errors import SettingsError
from ssl_app.training import progressive_resizing
from ssl_app.training.hardware import choose
from ssl_app.training.initialization import Initialization
from ssl_app.transfer import sweep_cost
from ssl_app.transfer.draw import HALF_SIZE, TransferConfig
from ssl_app.transfer.fitting import Phase, train
from ssl_app.transfer.setup import Planned, prepare
from ssl_app.transfer.sweep_cost import SweepCost
from ssl_app.transfer.trial import Job, TrialSetup, draw_of, new_classifier
from ssl_app.transfer.workers import PlannedTrial
from tests import toys

pytestmark = pytest.mark.usefixtures("narrow")
STEPS = 8
CONFIG = TransferConfig(
    steps=STEPS, batch_size=8, lr=0.1, weight_decay=0.0, clip=5.0, optimizer="sgd", augment="none", mirror=False,
    head="linear", layer=None, validation="within", seed=0,
)  # fmt: skip


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive_resizing, "FULL_STEPS", 2)


def setup_of(tmp_path: Path, side: int = 64, **changed: Any) -> TrialSetup:
    labels = np.arange(24) % 2
    images = np.random.default_rng(0).integers(0, 100, (24, side, side)) + 100 * labels[:, None, None]
    split = np.where(np.arange(24) < 16, "train", "test")
    np.savez(tmp_path / "i.npz", images=images.astype(np.uint8), labels=labels.astype(str), split=split)
    data, pixels = DataSpec(str(tmp_path / "i.npz"), tmp_path / "cache"), PixelSpec(side, 1)
    planned = Planned(Initialization("scratch", "small-resnet"), data, pixels)
    return prepare(planned, replace(CONFIG, **changed), choose("cpu", "fp32", 1))


def sides(setup: TrialSetup, *parts: str) -> list[int]:
    """Of the images that the backbone is given in training some parts, step by step."""
    classifier = new_classifier(setup, np.arange(16), 0)
    draw = draw_of(setup, Job("two-stage", np.arange(16), 0), 0)
    phase = Phase("all", STEPS, dict.fromkeys(parts, 0.1))
    seen = toys.inputs_of(classifier.backbone, lambda: train(classifier, draw, phase))
    return [images.shape[-1] for images in seen if len(images) == CONFIG.batch_size]  # others ask for a shape


@pytest.mark.usefixtures("few_steps")
def test_the_first_steps_of_the_whole_network_are_at_half_the_side(tmp_path: Path) -> None:
    assert HALF_SIZE.share == 0.75
    setup = setup_of(tmp_path)
    assert sides(setup, "head", "backbone") == [32] * 6 + [64] * 2
    assert sides(setup, "head") == [64] * STEPS, "a frozen backbone sees images as the head will"
    requested = replace(setup, config=replace(CONFIG, progressive_resizing=0.5))
    assert sides(requested, "head", "backbone") == [32] * 4 + [64] * 4
    assert sides(replace(setup, config=replace(CONFIG, progressive_resizing=0.0)), "head", "backbone") == [64] * 8


@pytest.mark.usefixtures("few_steps")
def test_small_images_are_trained_on_as_they_are(tmp_path: Path) -> None:
    assert sides(setup_of(tmp_path, side=32), "head", "backbone") == [32] * STEPS


def test_few_steps_are_all_in_full(tmp_path: Path) -> None:
    assert sides(setup_of(tmp_path), "head", "backbone") == [64] * STEPS


def test_a_head_on_a_map_is_refused_what_it_cannot_do(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, layer="stage3")
    classifier = new_classifier(setup, np.arange(16), 0)
    if len(classifier.backbone.shape("stage3")) == 1:
        pytest.skip("pooled")
    assert setup.config.resizing(classifier.backbone).share == 0
    with pytest.raises(SettingsError) as refused:
        setup_of(tmp_path, layer="stage3", progressive_resizing=0.5)
    assert refused.value.sentence(flag) == (
        "no steps at half the side: a head on stage3 has weights for each place of the map; "
        "type --progressive-resizing 0"
    )


@pytest.mark.usefixtures("few_steps")
def test_the_cost_of_a_sweep_counts_small_steps_as_what_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_of(tmp_path)
    seconds_by_side = {64: 1.0, 32: 0.2}
    timed = []

    def step(setup: TrialSetup, one: PlannedTrial) -> float:
        resizing = setup.config.resizing(new_classifier(setup, one.job.drawn, 0).backbone)
        timed.append(64 - 32 * int(resizing.share))
        return seconds_by_side[timed[-1]]

    monkeypatch.setattr(sweep_cost, "_step", step)
    monkeypatch.setattr(sweep_cost, "_tested", lambda setup, one: 0.0)
    cost = SweepCost.measured(setup, [PlannedTrial("a", "x", 8, Job("full-fine-tuning", np.arange(16), 0))], 1)
    assert timed == [64, 32]
    assert (cost.step, cost.small) == (1.0, 0.2)
    for steps, seconds in ((8, 6 * 0.2 + 2), (4, 4.0)):  # four steps leave too few in full
        cost.plan([PlannedTrial("b", "x", 8, Job("full-fine-tuning", np.arange(16), 0, steps=steps))])
        assert cost.predicted["b"] == pytest.approx(seconds)
