import pytest
import torch
from sklearn.decomposition import PCA

from ssl_app.clustering import whitening
from ssl_app.clustering.whitening import Whitening, fit
from ssl_app.errors import DataError


def correlated(count, width, seed=0):
    """Features far from zero, whose deviations along hidden axes go from 3 down to .1."""
    random = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(width, width, generator=random))
    deviations = torch.logspace(0.5, -1, width)
    return 5 + (torch.randn(count, width, generator=random) * deviations) @ axes.T


def before_length(found: Whitening, features):
    """What is whitened but not yet of length 1, (N, d) f64."""
    return (features.double() - found.mean.double()) @ found.basis.double()


def test_the_covariance_is_the_identity_and_the_rows_have_length_1():
    features = correlated(500, 12)
    found = fit(features, 8)
    assert found.mean.shape == (12,)
    assert found.basis.shape == (12, 8)
    whitened = before_length(found, features)
    assert torch.allclose(whitened.T @ whitened / 499, torch.eye(8, dtype=torch.float64), atol=1e-3)
    rows = found(features)
    assert rows.dtype == torch.float32
    assert torch.allclose(rows.norm(dim=1), torch.ones(500), atol=1e-5)
    assert torch.allclose(rows, torch.nn.functional.normalize(whitened, dim=1).float(), atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(300, 20), (15, 40)])
def test_it_is_scikit_learns_up_to_signs(count, width):
    features = correlated(count, width)
    theirs = torch.from_numpy(PCA(10, whiten=True, svd_solver="full").fit_transform(features.double().numpy()))
    ours = before_length(fit(features, 10), features)
    signs = (ours * theirs).sum(0).sign()
    assert torch.allclose(ours, theirs * signs, atol=2e-4)


def test_a_direction_that_hardly_varies_is_not_blown_up():
    features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5, 1e-5])
    deviations = before_length(fit(features, 3), features).std(0)
    assert torch.allclose(deviations[:2], torch.ones(2, dtype=torch.float64), atol=1e-3)
    assert deviations[2] < 5e-3  # 1e-5 over the root of the floor
    assert torch.allclose(before_length(fit(features, 3, floor=0), features).std(0)[2].float(), torch.ones(()), 1e-3)


def test_dimensions_are_at_most_those_of_the_features_and_one_fewer_than_the_images():
    assert fit(correlated(100, 6), 256).basis.shape == (6, 6)
    assert fit(correlated(5, 30), 256).basis.shape == (30, 4)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e6])
def test_dead_features_become_zeros(value):
    features = torch.full((50, 4), value)
    assert torch.equal(fit(features, 2)(features), torch.zeros(50, 2))


def test_a_row_at_the_mean_and_a_dead_feature_stay_finite():
    features = torch.cat([correlated(60, 5), torch.zeros(60, 1)], 1)
    found = fit(features, 6)
    rows = found(torch.cat([features, found.mean[None]]))
    assert bool(torch.isfinite(rows).all())
    assert torch.equal(rows[-1], torch.zeros(6))


def test_signs_and_bits_are_the_same_each_time():
    features = correlated(80, 9)
    one, other = fit(features, 5), fit(features.clone(), 5)
    assert torch.equal(one.basis, other.basis)
    tops = one.basis.gather(0, one.basis.abs().argmax(0, keepdim=True))
    assert bool((tops > 0).all())


def test_chunks_change_nothing(monkeypatch):
    features = correlated(101, 7)
    whole = fit(features, 5)
    rows = whole(features)
    monkeypatch.setattr(whitening, "CHUNK", 7 * 10)
    parts = fit(features, 5)
    assert torch.allclose(parts.basis, whole.basis, atol=1e-6)
    assert torch.allclose(parts(features), rows, atol=1e-5)


def test_half_precision_is_read_as_it_is():
    features = correlated(200, 6).bfloat16()
    found = fit(features, 4)
    assert found.basis.dtype == torch.float32
    assert torch.allclose(found(features), fit(features.float(), 4)(features.float()), atol=1e-5)


def test_the_line_for_too_few_images_and_for_features_that_are_not_numbers():
    with pytest.raises(DataError) as error:
        fit(torch.ones(1, 4), 2)
    assert str(error.value) == "1 image cannot be whitened; expected 2 or more; type another data"
    features = correlated(20, 4)
    features[3, 1] = torch.nan
    with pytest.raises(DataError) as error:
        fit(features, 2)
    assert str(error.value) == "the features of some images are nan or infinite; type a smaller lr, or clip 1"
