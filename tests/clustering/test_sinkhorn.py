"""Balanced assignment: marginals, and three references of others: POT, scipy's exact assignment, the paper's loop."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ssl_app.clustering import sinkhorn
from ssl_app.clustering.sinkhorn import Linear, Matrix, assignment, balance, labels
from ssl_app.errors import DataError, SettingsError


def scores(rows: int, clusters: int, seed: int = 0, scale: float = 0.3, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 24, generator=generator, dtype=torch.float64)
    return (features @ torch.randn(24, clusters, generator=generator, dtype=torch.float64) * scale).to(dtype)


def published(z: Tensor, sharpness: float, iterations: int) -> Tensor:
    """Q of section 3.1 in its own terms: alpha = (1/K) / (P^lambda beta), beta = (1/N) / (alpha^T P^lambda)."""
    kernel = torch.log_softmax(z.double(), 1).t().mul(sharpness)  # (K, N)
    kernel = (kernel - kernel.max(0).values).exp()
    clusters, rows = kernel.shape
    beta = torch.full((rows,), 1 / rows, dtype=torch.float64)
    for _ in range(iterations):
        alpha = (1 / clusters) / (kernel @ beta)
        beta = (1 / rows) / (alpha @ kernel)
    return (alpha[:, None] * kernel * beta).t()  # (N, K)


@pytest.mark.parametrize("sharpness", [10.0, 25.0])
@pytest.mark.parametrize(("dtype", "tolerance", "bound"), [(torch.float32, 3e-5, 1e-4), (torch.float64, 1e-10, 1e-9)])
def test_soft_marginals_hold(dtype: torch.dtype, tolerance: float, bound: float, sharpness: float) -> None:
    z = scores(1500, 20, dtype=dtype)
    found = balance(Matrix(z), sharpness, tolerance=tolerance)
    q = assignment(z, sharpness, found.potential).double()
    assert float((q.mean(0) * 20 - 1).abs().max()) < bound
    assert float((q.sum(1) - 1).abs().max()) < bound


def test_it_equals_pots_log_domain_solution() -> None:
    z = scores(120, 9, dtype=torch.float64)
    cost = -torch.log_softmax(z, 1).numpy()
    reference = ot.sinkhorn(
        np.full(120, 1 / 120), np.full(9, 1 / 9), cost, reg=1 / 10, method="sinkhorn_log", stopThr=1e-13,
        numItermax=100_000,
    )  # fmt: skip
    found = balance(Matrix(z), 10.0, tolerance=1e-12)
    assert np.abs(assignment(z, 10.0, found.potential).numpy() / 120 - reference).max() < 1e-9


def test_it_equals_the_papers_loop_and_needs_fewer_passes() -> None:
    z = scores(800, 16)
    reference = published(z, 25.0, 3000)
    found = balance(Matrix(z), 25.0, tolerance=1e-4)
    q = assignment(z.double(), 25.0, found.potential) / 800
    assert float((q - reference).abs().max() * 800) < 5e-3
    agree = (labels(Matrix(z), 25.0, found.potential) == reference.argmax(1)).double().mean()
    assert float(agree) > 0.999
    assert found.iterations < 60


@pytest.mark.parametrize("sharpness", [10.0, 25.0, 50.0])
def test_the_cost_is_near_the_exact_optimum(sharpness: float) -> None:
    rows, clusters = 240, 8
    z = scores(rows, clusters, scale=1.0, dtype=torch.float64)
    cost = -torch.log_softmax(z, 1)
    places = np.repeat(cost.numpy(), rows // clusters, axis=1)  # (N, N): a column for each place in a cluster
    exact = places[linear_sum_assignment(places)].mean()
    found = balance(Matrix(z), sharpness, tolerance=1e-9)
    soft = float((assignment(z, sharpness, found.potential) * cost).sum(1).mean())
    assert exact - 1e-9 <= soft <= exact + math.log(clusters) / sharpness


def test_rows_may_be_shifted_and_rows_and_columns_permuted() -> None:
    z = scores(300, 7, dtype=torch.float64)
    plain = balance(Matrix(z), 10.0, tolerance=1e-11).potential
    shifted = balance(Matrix(z + 50 * torch.randn(300, 1, dtype=torch.float64)), 10.0, tolerance=1e-11).potential
    torch.testing.assert_close(shifted, plain, atol=1e-7, rtol=0)
    rows, columns = torch.randperm(300), torch.randperm(7)
    moved = balance(Matrix(z[rows][:, columns]), 10.0, tolerance=1e-11).potential
    torch.testing.assert_close(moved, plain[columns], atol=1e-7, rtol=0)


@pytest.mark.parametrize("memory", ["1G", "0"])
def test_blocks_of_rows_change_nothing(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z = scores(500, 11, dtype=torch.float64)
    whole = balance(Matrix(z), 10.0, tolerance=1e-10, memory=sinkhorn.bytes_of(memory))
    monkeypatch.setattr(sinkhorn, "BLOCK", 11 * 37)
    pieces = balance(Matrix(z), 10.0, tolerance=1e-10, memory=sinkhorn.bytes_of(memory))
    torch.testing.assert_close(pieces.potential, whole.potential, atol=1e-8, rtol=0)
    assert torch.equal(labels(Matrix(z), 10.0, pieces.potential), labels(Matrix(z), 10.0, whole.potential))


def test_a_stored_a_bf16_and_a_computed_kernel_agree() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2000, 16, generator=generator)
    weight, bias = torch.randn(30, 16, generator=generator) * 0.3, torch.randn(30, generator=generator)
    rows = Linear(features, weight, bias)
    size = 2000 * 30
    found = [balance(rows, 20.0, memory=memory).potential for memory in (4 * size, 2 * size, 0)]
    chosen = [labels(rows, 20.0, potential) for potential in found]
    for other in chosen[1:]:
        assert float((other == chosen[0]).double().mean()) > 0.995  # tolerance 1e-3 leaves the potentials this free
    exact = features[5:9] @ weight.t() + bias
    torch.testing.assert_close(Linear(features, weight, bias, fast=False).block(5, 9), exact)
    torch.testing.assert_close(Linear(features, weight, bias, fast=True).block(5, 9), exact, atol=1e-4, rtol=0)


def test_f32_labels_are_those_of_f64() -> None:
    z = scores(4000, 40, dtype=torch.float64)
    precise = balance(Matrix(z), 25.0, tolerance=1e-4)
    rough = balance(Matrix(z.float()), 25.0, tolerance=1e-4)
    same = labels(Matrix(z), 25.0, precise.potential) == labels(Matrix(z.float()), 25.0, rough.potential)
    assert float(same.double().mean()) >= 0.999


def test_a_cluster_that_underflows_everywhere_is_filled() -> None:
    z = scores(400, 6)
    z[:, 2] -= 30.0  # at sharpness 25 that is e^-750 of the others
    found = balance(Matrix(z), 25.0, tolerance=1e-4)
    share = assignment(z.double(), 25.0, found.potential).mean(0)
    assert float((share * 6 - 1).abs().max()) < 1e-3
    computed = balance(Matrix(z), 25.0, tolerance=1e-4, memory=0)
    torch.testing.assert_close(computed.potential, found.potential, atol=0.05, rtol=0)


@pytest.mark.parametrize("sharpness", [10.0, 25.0])
@pytest.mark.parametrize("margin", [3.0, 5.0])
@pytest.mark.parametrize("prior", [None, 1.0])
def test_confident_clusters_of_other_sizes_than_wanted_are_balanced(
    sharpness: float, margin: float, prior: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = 1 / torch.arange(1, 9, dtype=torch.float64)
    own = torch.multinomial(torch.ones_like(sizes) if prior else sizes, 800, True, generator=generator)
    z = 0.5 * torch.randn(800, 8, generator=generator, dtype=torch.float64)
    z[torch.arange(800), own] += margin
    wanted = sizes / sizes.sum() if prior else torch.full((8,), 1 / 8, dtype=torch.float64)
    found = balance(Matrix(z.float()), sharpness, prior=wanted, tolerance=5e-3)
    assert found.iterations < 400
    q = assignment(z, sharpness, found.potential)
    assert float((q.mean(0) / wanted - 1).abs().mean()) < 6e-3


def test_uniform_scores_stay_uniform_and_a_balanced_labeling_stays() -> None:
    flat = balance(Matrix(torch.zeros(60, 4)), 10.0)
    assert flat.iterations == 1
    torch.testing.assert_close(assignment(torch.zeros(2, 4), 10.0, flat.potential), torch.full((2, 4), 0.25))
    truth = torch.arange(60) % 4
    z = torch.nn.functional.one_hot(truth, 4).float() * 5
    found = balance(Matrix(z), 10.0)
    assert torch.equal(labels(Matrix(z), 10.0, found.potential), truth)


def test_a_prior_is_met_and_a_warm_start_is_quick() -> None:
    z = scores(2000, 10)
    prior = torch.arange(1, 11).double()
    found = balance(Matrix(z), 10.0, prior=prior)
    share = assignment(z.double(), 10.0, found.potential).mean(0)
    torch.testing.assert_close(share, prior / prior.sum(), rtol=0.01, atol=0)
    again = balance(Matrix(z + 0.001 * torch.randn_like(z)), 10.0, prior=prior, start=found.potential)
    assert again.iterations < found.iterations


def test_many_rows_are_begun_on_a_sample_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    z = scores(8000, 10)
    passes: list[int] = []
    original = sinkhorn._Passes.shares
    monkeypatch.setattr(
        sinkhorn._Passes, "shares", lambda self, f: passes.append(self.scores.rows) or original(self, f)
    )
    found = balance(Matrix(z), 25.0, tolerance=1e-4)
    assert sorted(set(passes)) == [800, 8000]
    assert passes[0] == 800
    share = assignment(z.double(), 25.0, found.potential).mean(0)
    assert float((share * 10 - 1).abs().mean()) < 2e-4
    monkeypatch.setattr(sinkhorn, "MANY", 10_000)
    assert passes.count(8000) < balance(Matrix(z), 25.0, tolerance=1e-4).iterations


def test_bad_scores_have_their_line() -> None:
    with pytest.raises(DataError, match=r"3 images cannot fill 5 clusters; type clusters 2"):
        balance(Matrix(torch.zeros(3, 5)), 10.0)
    broken = scores(50, 5)
    broken[7, 2] = math.nan
    with pytest.raises(DataError, match="nan or infinite"):
        balance(Matrix(broken), 10.0)
    with pytest.raises(SettingsError, match="memory is 'much'; expected a size such as 2G"):
        sinkhorn.bytes_of("much")
    assert sinkhorn.bytes_of("1.5G") == 3 << 29
