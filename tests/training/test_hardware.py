"""Hardware seeds as torch does."""

import torch

from tests import toys


def test_a_seed_draws_what_torch_draws_after_it() -> None:
    for number in (0, 3, 2**62 + 1):
        torch.manual_seed(number)
        expected = torch.rand(5)
        toys.CPU.seed(number)
        assert torch.equal(torch.rand(5), expected)
