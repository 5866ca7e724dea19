"""Products through bf16: three of them keep nearly the digits of f32, and one does not."""

import pytest
import torch

from ssl_app.clustering.products import Product, arithmetic, bf16_pays


@pytest.mark.parametrize("fast", [False, True])
def test_a_product_keeps_its_digits(fast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 64, generator=generator), torch.randn(64, 30, generator=generator)
    exact = x.double() @ weight.double()
    size = x.norm(dim=1)[:, None] * weight.norm(dim=0)
    error = ((Product(weight, fast)(x) - exact) / size).abs().max()
    assert float(error) < 2**-16
    once = ((x.bfloat16().float() @ weight.bfloat16().float() - exact) / size).abs().max()
    assert float(once) > 2**-12  # what the three products are for


def test_f64_is_multiplied_as_it_is() -> None:
    x, weight = torch.randn(5, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(Product(weight, True)(x), x @ weight)


def test_precision_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    with arithmetic(True):
        assert torch.get_float32_matmul_precision() == "medium"
        with arithmetic(False):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
    assert isinstance(bf16_pays(torch.device("cpu")), bool)
    assert not bf16_pays(torch.device("meta"))
