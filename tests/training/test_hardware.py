"""Hardware seeds as torch does."""

import pytest
import torch

from ssl_app.errors import SettingsError
from ssl_app.training.hardware import choose
from tests import toys


def test_a_seed_draws_what_torch_draws_after_it() -> None:
    for number in (0, 3, 2**62 + 1):
        torch.manual_seed(number)
        expected = torch.rand(5)
        toys.CPU.seed(number)
        assert torch.equal(torch.rand(5), expected)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match="the device is 'cuda:3', and torch finds 1 GPU here"):
        choose("cuda:3", "fp32")
    assert choose("cuda:0", "fp32").device.index == 0
