"""pretrain --progressive-resizing: what is said and saved, resumed, and refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_app.pretraining.run import Pretraining
from ssl_app.pretraining.schedule import HALF_SIZE
from ssl_app.training import progressive_resizing
from tests import toys


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a test: one step in full."""
    monkeypatch.setattr(progressive_resizing, "FULL_STEPS", 1)


def settings_of(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "settings.json").read_text())["settings"]
    return found


def test_it_says_what_it_decided_and_saves_it(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "scans", per_class=20, side=32), "--image-size", 32, "--batch-size", 16]
    words += ["--method", "simclr", "--epochs", 2, "--out", tmp_path / "o", *tiny]
    for name, more, said in (
        ("usual", [], "resolution: 32 px in all steps (4 steps are too few to begin at half the side)\n"),
        (
            "half",
            ["--progressive-resizing", 0.5],
            "resolution: 16 px for the first 50 % of the steps, then 32 px (as set)\n",
        ),
    ):
        answer = ssl("pretrain", *words, *more, "--name", name)
        assert answer.code == 0, answer.err
        assert said in answer.err
        assert (
            "warning: 4 steps are planned; in fewer than 500 the loss of simclr may stay at chance; "
            "type --epochs 250, or another --method\n"
        ) in answer.err
    assert settings_of(tmp_path / "o" / "usual")["progressive_resizing"] == 0
    assert settings_of(tmp_path / "o" / "half")["progressive_resizing"] == 0.5
    weights = [load_file(tmp_path / "o" / name / "backbone.safetensors") for name in ("usual", "half")]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("few_steps")
def test_a_stopped_run_goes_on_at_its_size_to_the_same_bits(ssl, tiny, images, tmp_path: Path, monkeypatch) -> None:
    words = ["--data", images(tmp_path / "scans", per_class=20, side=32), "--image-size", 32, "--batch-size", 8]
    words += ["--epochs", 3, "--out", tmp_path / "o", *tiny]
    whole = ssl("pretrain", *words, "--name", "whole")
    assert "resolution: 16 px for the first 92 % of the steps, then 32 px (" in whole.err
    train = Pretraining.train

    def stopping(self: Pretraining, *about: object) -> object:
        toys.stop_in_step(self.task, 2)
        return train(self, *about)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "train", stopping)
        stopped = ssl("pretrain", *words, "--name", "broken")
    assert stopped.code != 0
    assert ssl("pretrain", "--resume", "broken", "--out", tmp_path / "o", *tiny).code == 0
    one, other = (load_file(tmp_path / "o" / name / "backbone.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("few_steps")
def test_a_time_budget_times_steps_of_both_sizes(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "scans", per_class=20, side=32), "--image-size", 32, "--batch-size", 8]
    answer = ssl("pretrain", *words, "--budget", "1s", "--name", "b", "--out", tmp_path / "o", *tiny, "--json")
    assert answer.err.count("budget of 1 s: a few steps are timed first\n") == 1
    assert "resolution: 16 px for the first 92 % of the steps, then 32 px (" in answer.err
    assert answer.result["settings"]["progressive_resizing"] == HALF_SIZE.share


def test_a_method_of_tiles_refuses_it(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "scans", side=32), "--image-size", 32, "--method", "jigsaw", *tiny]
    assert ssl("pretrain", *words, "--progressive-resizing", 0.9, "--out", tmp_path / "o").error == (
        "no steps at half the side: jigsaw depends on the size of its images; type --progressive-resizing 0"
    )
