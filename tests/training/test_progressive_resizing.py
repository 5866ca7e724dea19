"""Progressive resizing: when it is on, why not, and what is said before a training that is too short."""

import pytest
from torch import nn

from ssl_app.config import flag
from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, build
from ssl_app.pretext.base import Defaults
from ssl_app.pretext.jigsaw import Jigsaw
from ssl_app.pretext.simclr import SimCLR
from ssl_app.pretraining.schedule import HALF_SIZE, Schedule, resizing_of, too_short
from ssl_app.registry import find, names
from ssl_app.training.progressive_resizing import FULL_STEPS, Resizing

pytestmark = pytest.mark.usefixtures("narrow")


def decide(side: int, requested: float | None = None, backbone: str = "small-resnet") -> Resizing:
    return resizing_of(Schedule(progressive_resizing=requested), "simclr", SimCLR, build(backbone, 1, side))


def test_it_is_on_where_method_network_and_size_allow_it() -> None:
    found = decide(64)
    assert found.share == HALF_SIZE.share
    assert found.sentence(64) == f"resolution: 32 px for the first 92 % of the steps, then 64 px ({found.reason})"
    assert found.reason == "at half the side a step takes about a third of the time"


def test_small_images_are_trained_on_as_they_are_unless_requested() -> None:
    assert decide(28).sentence(28) == "resolution: 28 px in all steps (images below 32 px are quick as they are)"
    assert decide(8).sentence(8) == "resolution: 8 px in all steps (images below 32 px are quick as they are)"
    assert decide(28, 0.5).sentence(28) == "resolution: 14 px for the first 50 % of the steps, then 28 px (as set)"
    assert decide(32).share == HALF_SIZE.share


def test_a_method_of_tiles_trains_in_full_and_says_why() -> None:
    backbone = build("small-resnet", 1, 64)
    found = resizing_of(Schedule(), "jigsaw", Jigsaw, backbone)
    assert found.sentence(64) == "resolution: 64 px in all steps (jigsaw depends on the size of its images)"
    with pytest.raises(SettingsError) as refused:
        resizing_of(Schedule(progressive_resizing=0.9), "jigsaw", Jigsaw, backbone)
    assert refused.value.sentence(flag) == (
        "no steps at half the side: jigsaw depends on the size of its images; type --progressive-resizing 0"
    )


def test_methods_of_whole_images_allow_it_and_those_of_tiles_or_pixels_do_not() -> None:
    allowing = {name for name in names("pretext") if find("pretext", name).progressive_resizing}
    assert allowing == {"simclr", "byol", "rotnet", "sela", "deepcluster", "from-labels"}


@pytest.mark.parametrize(
    ("backbone", "side", "accepted"),
    [
        ("small-resnet", 64, True),
        ("small-resnet", 48, True),
        ("small-resnet", 16, False),  # a last map of 1x1
        ("resnet18", 64, False),
        ("resnet18", 128, True),
        ("vit-tiny", 64, False),  # positions of its own grid
    ],
)
def test_a_network_needs_a_map_at_half_the_side(backbone: str, side: int, accepted: bool) -> None:
    assert build(backbone, 1, side).accepts(side // 2) == accepted


def test_a_network_whose_features_grow_with_the_image_does_not_accept_another_side() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten())
    assert not Backbone("flat", 1, 16, body, {"conv": "0"}).accepts(8)


def test_few_steps_are_all_in_full() -> None:
    steps = round(FULL_STEPS / (1 - HALF_SIZE.share))
    assert decide(64).within(steps + 10).share == HALF_SIZE.share
    short = decide(64).within(steps - 20)
    assert short.sentence(64) == "resolution: 64 px in all steps (355 steps are too few to begin at half the side)"
    assert decide(64, 0.92).within(10).share == 0.92, "as set"


def test_a_length_that_may_leave_the_loss_at_chance_is_named_before_it_begins() -> None:
    own = Defaults(least_steps=1000)
    assert too_short("simclr", own, 1000, None, 10) is None
    for budget, typed in ((None, "--epochs 34"), (300.0, "--budget 17m")):
        notice = too_short("simclr", own, 300, budget, 10)
        assert notice is not None
        assert notice.sentence(flag) == (
            "300 steps are planned; in fewer than 1,000 the loss of simclr may stay at chance; "
            f"type {typed}, or another --method"
        )
