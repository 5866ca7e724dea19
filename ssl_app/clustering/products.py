"""Products of f32 matrices through the bf16 units of a CPU that has them, and what digits that leaves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssl_app import processor


def bf16_pays(device: torch.device) -> bool:
    """Whether products of f32 are faster through bf16 here: oneDNN does that with AMX, and not with AVX-512 alone."""
    return device.type == "cpu" and "amx_bf16" in processor.features()


def bf16_multiplies(device: torch.device) -> bool:
    """Whether products of what is bf16 already are faster than of f32: with AVX-512 bf16 twice, with AMX more."""
    return device.type == "cpu" and not processor.features().isdisjoint({"avx512_bf16", "amx_bf16"})


@contextmanager
def arithmetic(fast: bool) -> Iterator[None]:
    """F32 products, or f32 products of what is rounded to bf16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if fast else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Product:
    """x @ weight for one weight and many x, f32. (n, D), (D, K) -> (n, K).

    `fast` takes three products of bf16, of the numbers and of what rounding left of them: 2^-17 of
    |x| |weight|, where one product of bf16 has 2^-9. Other dtypes are multiplied as they are.
    """

    def __init__(self, weight: Tensor, fast: bool) -> None:
        self.fast = fast and weight.dtype == torch.float32
        if self.fast:
            high, low = _halves(weight)
            weight = torch.cat([high, high, low])  # (3D, K)
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """One product; a fresh tensor."""
        if not self.fast:
            return x @ self.weight
        high, low = _halves(x)
        with arithmetic(True):
            return torch.cat([high, low, high], 1) @ self.weight


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """What bf16 holds of x, and the rest."""
    high = x.bfloat16().float()
    return high, x - high
