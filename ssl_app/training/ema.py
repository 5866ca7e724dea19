"""EMA: a copy of a module that follows it as an exponential moving average, and is trained by nobody."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """The moving average of a module's parameters and batch-norm statistics.

    Part of the task that owns it, so that a resumed run finds it; the loop gives its parameters no gradient.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """average = decay * average + (1 - decay) * module, in place."""
        for mine, new in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - decay)

    def forward(self, *arguments: Any) -> Tensor:
        """What the averaged module gives."""
        found: Tensor = self.module(*arguments)
        return found
