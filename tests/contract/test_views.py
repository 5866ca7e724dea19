"""What every registered method gives to its network, as `pretrain` draws it before it trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_app.data.loading import Batching, Loader
from ssl_app.models.backbones import build
from ssl_app.pretext.base import Pretext, TrainingSet
from ssl_app.pretraining.views import MOST, VIEWED, views_of
from ssl_app.registry import find, names
from tests import toys
from tests.toys import assert_same_bits, bits

pytestmark = pytest.mark.usefixtures("narrow")
COUNT = 10
INPUTS = {  # of each image of 48 px; None: the views as they are
    "autoencoder": 1,
    "byol": None,
    "colorization": 1,
    "context-encoder": 1,
    "deepcluster": None,
    "from-labels": None,
    "jigsaw": 4,
    "mae": 1,
    "relative-patch": 4,
    "rotnet": 4,
    "sela": None,
    "simclr": None,
    "triplet": None,
}


def made(name: str, folder: Path) -> tuple[Pretext[Any], Loader]:
    """A method as it begins, and its loader."""
    torch.manual_seed(0)
    kind = find("pretext", name)
    keys = [f"{i}.png" for i in range(COUNT)]
    (folder / "labels.csv").write_text("\n".join(["path,cluster", *(f"{key},{i % 2}" for i, key in enumerate(keys))]))
    config = kind.Config() if kind.standalone else kind.Config(labels=folder / "labels.csv")
    side, channels = max(48, kind.needs.smallest_image), kind.needs.channels or 1
    side = side if kind.defaults.backbone == "small-resnet" else 32
    task = kind(build(kind.defaults.backbone, channels, side), config, TrainingSet(COUNT, 2, keys))
    rows = toys.rows(toys.images(COUNT, side, channels), pixels=toys.symmetric(channels))
    return task, Loader(rows, task.augmentation(rows.frame), Batching(COUNT, seed=3, views=task.needs.views))


@pytest.mark.parametrize("name", names("pretext"))
def test_its_views_are_drawn_and_nothing_is_changed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **how: Path(path).touch())
    task, loader = made(name, tmp_path)
    before, random = bits(task), torch.get_rng_state()
    found = views_of(task, loader)
    assert_same_bits(before, bits(task))
    assert torch.equal(random, torch.get_rng_state())
    assert not task.backbone._forward_pre_hooks
    side, channels = task.backbone.image_size, task.backbone.channels
    assert found.images.shape == (VIEWED, channels, side, side)
    assert len(found.views) == task.needs.views
    if name in INPUTS:
        counts = None if found.given is None else {len(one) for one in found.given}
        assert counts == (None if INPUTS[name] is None else {INPUTS[name]})
    again = views_of(task, loader)
    assert all(torch.equal(one, other) for one, other in zip(found.views, again.views, strict=True))
    for one, other in zip(found.given or (), again.given or (), strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()
    assert found.draw(tmp_path / "views.png", loader.rows.scaling, name, "More.").is_file()


def test_rotnet_is_given_the_four_turns_of_the_view(tmp_path: Path) -> None:
    found = views_of(*made("rotnet", tmp_path))
    assert found.given is not None
    for view, turns in zip(found.views[0], found.given, strict=True):
        expected = [np.rot90(view.numpy(), k, (1, 2)) for k in range(4)]
        assert np.array_equal(turns.numpy(), np.stack(expected))
    assert MOST >= 9


def test_mae_is_given_a_quarter_of_the_patches(tmp_path: Path) -> None:
    task, loader = made("mae", tmp_path)
    found = views_of(task, loader)
    assert found.given is not None
    patch = task.backbone.tokens().patch
    for view, (given,) in zip(found.views[0], found.given, strict=True):
        same = (given == view).unfold(1, patch, patch).unfold(2, patch, patch).flatten(3).all(3)
        assert float(same.float().mean()) == pytest.approx(0.25, abs=0.01)
        assert ((given == view) | (given == 0)).all()


def test_a_loss_that_fails_on_one_image_costs_a_note_and_no_training(
    tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, loader = made("sela", tmp_path)

    def fails(self: object, batch: object, player: str) -> None:
        raise ValueError("expected two\nimages")

    monkeypatch.setattr(type(task), "loss", fails)
    assert views_of(task, loader).given == []
    expected = "note: views.png shows no inputs of the network, since the loss of one image raises"
    assert messages == [f"{expected} ValueError: expected two images"]
