"""pretrain without --method: by the channels of the images; with settings of a method, a line that asks for it."""

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("channels", "flags", "method"),
    [
        (1, (), "sela"),
        (3, (), "simclr"),
        (3, ("--channels", 1), "sela"),
        (4, (), "simclr"),
        (1, ("--channels", 3), "simclr"),
        (3, ("--method", "autoencoder"), "autoencoder"),
    ],
)
def test_the_method_is_by_the_channels(
    channels: int, flags: tuple[object, ...], method: str, ssl, tiny, images, tmp_path: Path
) -> None:
    data = images(tmp_path / "scans", per_class=12, channels=channels) if channels != 4 else bands(tmp_path)
    words = ["--data", data, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "o", "--name", "p", *tiny]
    answer = ssl("pretrain", *words, *flags)
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "o" / "p" / "settings.json").read_text())["settings"]["method"] == method
    named = "--method" in flags
    assert (f"method: {method}, for images in" in answer.err) != named
    assert answer.err.count("labels of the data") <= 1, "the set is described once"


def bands(tmp_path: Path) -> Path:
    """Images of four channels."""
    import numpy as np

    path = tmp_path / "bands.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (36, 16, 16, 4), dtype=np.uint8))
    return path


def test_views_are_drawn_of_the_usual_method(ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=12, channels=3)
    answer = ssl("pretrain", "--data", data, "--show-views", "--out", tmp_path / "o", "--json", *tiny)
    assert answer.code == 0, answer.err
    assert answer.result["settings"]["method"] == "simclr"


def test_a_pretraining_that_goes_on_keeps_its_method(ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=12, channels=3)
    words = ["--data", data, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "o", "--name", "p", *tiny]
    assert ssl("pretrain", *words).code == 0
    answer = ssl("pretrain", "--resume", "p", "--seeds", 2, "--out", tmp_path / "o", "--tracking-uri", "none")
    assert answer.code == 0, answer.err
    again = json.loads((tmp_path / "o" / "p-seed1" / "settings.json").read_text())["settings"]
    assert again["method"] == "simclr"


@pytest.mark.parametrize(
    ("flag", "theirs"),
    [
        (("--clusters", 8), "deepcluster, sela"),
        (("--views", "strong"), "simclr"),
        (("--rotation-head", "mlp"), "rotnet"),
    ],
)
def test_a_setting_of_a_method_asks_for_the_method(flag: tuple[object, ...], theirs: str, ssl) -> None:
    answer = ssl("pretrain", *flag)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert f"{flag[0]} is a setting of" in answer.err
    assert theirs.split(", ")[-1] in answer.err
    assert "type --method" in answer.err
