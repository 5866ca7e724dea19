"""Every kind of picture on every backbone: it is drawn, or one line says why not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import build
from ssl_app.models.heads import build_head
from ssl_app.registry import describe, names
from ssl_app.report import learned
from ssl_app.report.pictures import Picture, Subject
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.inference import frozen_features
from tests import toys

BACKBONES = [*names("models.backbones"), "small-resnet+sobel", "resnet18"]
COUNT, SIDE = 14, 32
FILES = {
    "attention-maps": ["attention-maps.png"],
    "attention-rollout": ["attention-rollout.png"],
    "class-maps": ["class-maps.png"],
    "feature-map": ["feature-map.png"],
    "filters": ["filters.png"],
    "nearest-neighbors": ["nearest-neighbors.png"],
    "top-activations": ["top-activations-{0}.png", "top-activations-{1}.png"],
}
CONVOLUTIONAL = {"attention-rollout": "has no tokens; expected a vision transformer; type backbone vit-tiny"}


def subject(name: str, channels: int = 1) -> Subject:
    """A network that was never trained, with a linear head, on images of noise."""
    torch.manual_seed(0)
    network = build(name, channels, SIDE).eval()
    rows = toys.rows(toys.images(COUNT, SIDE, channels))
    head = build_head("linear", network.shape(), 2)
    classifier = Classifier(network, head, None, torch.zeros(0, dtype=torch.int64))
    layers = (network.layers[0], network.map_layer())
    return Subject(
        name="a-run",
        backbone=network,
        layers=layers,
        rows=rows,
        hardware=toys.CPU,
        features=frozen_features(network, None, rows, toys.CPU),
        keys=[f"{i}.png" for i in range(COUNT)],
        units=[f"p{i // 2}" for i in range(COUNT)],
        classes=["normal", "$x_1"],
        labels=np.arange(COUNT) % 3 - 1,
        groups=[f"p{i // 2}" for i in range(COUNT - 2)] + [None, None],
        clusters=np.arange(COUNT) % 4,
        predictor=Ensemble([classifier]),
    )


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not rendered, which takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: Path(path).write_bytes(b"png"))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("name", BACKBONES)
def test_every_kind_that_applies_is_drawn_and_a_line_says_why_another_is_not(
    name: str, tmp_path: Path, messages: list[str]
) -> None:
    one = subject(name)
    drawn = learned.draw(one, tmp_path / "pictures")
    absent = {} if name == "vit-tiny" else CONVOLUTIONAL
    expected = [file.format(*one.layers) for kind in FILES if kind not in absent for file in FILES[kind]]
    assert [path.name for path in drawn] == expected
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(expected)
    bare = one.backbone.name
    assert messages == [f"no {kind.replace('-', ' ')}: {bare} {reason}" for kind, reason in absent.items()]


def test_the_kinds_are_those_that_are_tested_and_each_says_what_it_is() -> None:
    assert learned.kinds() == sorted(FILES)
    for kind in learned.kinds():
        assert describe(learned.PACKAGE, kind).endswith("."), kind
        assert issubclass(learned.registry.find(learned.PACKAGE, kind), Picture)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("channels", [3, 5])
def test_images_of_any_channels_are_drawn(channels: int, tmp_path: Path) -> None:
    kinds = ["filters", "nearest-neighbors", "class-maps"]
    assert len(learned.draw(subject("nin", channels), tmp_path, kinds)) == 3


@pytest.mark.usefixtures("unrendered")
def test_what_is_not_known_is_left_out(tmp_path: Path, messages: list[str]) -> None:
    one = subject("nin")
    bare = replace(one, classes=(), labels=np.full(COUNT, -1), groups=None, clusters=None, predictor=None)
    assert len(learned.draw(bare, tmp_path)) == 6
    assert "no class maps: a-run is no classifier; expected a finished run of finetune" in messages
    assert (bare.caption(3), one.caption(3), one.caption(4)) == ("3.png", "", "normal")
    alone = replace(one, units=["all"] * COUNT)
    assert learned.draw(alone, tmp_path, ["nearest-neighbors"]) == []
    assert messages[-1] == "no nearest neighbors: all images of a-run are of one group"


def test_a_layer_or_a_kind_that_is_not_there_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    one = subject("nin")
    with pytest.raises(SettingsError, match="no layer 'block9'"):
        learned.draw(replace(one, layers=("block1", "block9")), tmp_path / "a")
    with pytest.raises(SettingsError, match="no picture is named 'filtres'; did you mean 'filters'"):
        learned.draw(one, tmp_path / "a", ["filtres"])
    assert not (tmp_path / "a").exists()


def test_a_sheet_is_as_large_as_its_tiles_and_the_same_every_time(tmp_path: Path) -> None:
    one = subject("nin")
    for folder in ("a", "b"):
        learned.draw(one, tmp_path / folder, ["nearest-neighbors", "feature-map"])
    for file in ("nearest-neighbors.png", "feature-map.png"):
        with Image.open(tmp_path / "a" / file) as first, Image.open(tmp_path / "b" / file) as second:
            assert np.array_equal(np.asarray(first), np.asarray(second))
            assert first.width > 800


def test_examples_are_of_every_class_in_turn_and_of_units_of_their_own() -> None:
    one = subject("nin")
    found = one.examples(6)
    assert [int(one.labels[i]) for i in found] == [0, 0, 0, 1, 1, 1]
    assert len({one.units[i] for i in found}) == 6
    assert found == one.examples(6)
    assert len(one.examples(100)) == sum(one.labels >= 0)
