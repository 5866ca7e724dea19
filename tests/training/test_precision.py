"""The faster precision is found by timing both, kept for later runs, and taken only where it gains."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_app.models.backbones import build
from ssl_app.training import precision
from ssl_app.training.hardware import Hardware

UNDECIDED = Hardware(torch.device("cpu"), False, "not yet timed", 1, undecided=True)


@pytest.mark.usefixtures("narrow")
def test_both_are_timed_once_and_kept(tmp_path: Path) -> None:
    backbone = build("small-resnet", 1, 8)
    before = torch.get_rng_state()
    found = precision.measured(UNDECIDED, backbone, tmp_path)
    assert not found.undecided
    assert torch.equal(torch.get_rng_state(), before)  # a timing changes no run
    assert all(weight.grad is None for weight in backbone.parameters())
    (path,) = (tmp_path / "precision").iterdir()
    times = json.loads(path.read_text())
    assert min(times.values()) > 0
    assert found.bf16 == (times["bf16"] < precision.GAIN * times["fp32"])
    path.write_text(json.dumps({"fp32": 3.0, "bf16": 1.0}))
    again = precision.measured(UNDECIDED, backbone, tmp_path)
    assert again.bf16
    assert again.reason == "a step takes 1000 ms in bf16, 3000 ms in fp32"


@pytest.mark.parametrize(("bf16", "chosen"), [(0.9, True), (0.96, False), (2.0, False)])
@pytest.mark.usefixtures("narrow")
def test_bf16_must_gain_more_than_its_rounding_is_worth(
    bf16: float, chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda hardware, backbone: {"fp32": 1.0, "bf16": bf16})
    assert precision.measured(UNDECIDED, build("small-resnet", 1, 8), tmp_path).bf16 == chosen


@pytest.mark.usefixtures("narrow")
def test_what_is_decided_is_not_timed(tmp_path: Path) -> None:
    decided = replace(UNDECIDED, undecided=False)
    assert precision.measured(decided, build("small-resnet", 1, 8), tmp_path) is decided
    assert not list(tmp_path.iterdir())
