"""PCA-whitening of features before they are clustered (DeepCluster: Caron et al., 2018, arXiv:1807.05520)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssl_app.errors import Change, DataError, Set

CHUNK = 4 << 20  # numbers that are centered at a time
FLOOR = 1e-5  # of the largest eigenvalue: a direction that hardly varies is not blown up into noise
TINY = 1e-12  # length below which a row is not made longer: an image without features stays zero


@dataclass(frozen=True)
class Whitening:
    """Principal axes, each scaled so that the features that were fitted have unit variance along it."""

    mean: Tensor  # (D,) f32
    basis: Tensor  # (D, d) f32

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Whitened rows of length 1; a row at the mean stays zero. (N, D) -> (N, d) f32."""
        whitened = torch.empty(len(features), self.basis.shape[1], device=features.device)
        for start, chunk in _chunks(features):
            rows = whitened[start : start + len(chunk)]
            # centered before the product: taking the mean's projection off afterwards costs digits
            torch.mm(chunk.float() - self.mean, self.basis, out=rows)
            functional.normalize(rows, dim=1, eps=TINY, out=rows)
        return whitened


@torch.no_grad()
def fit(features: Tensor, dimensions: int, floor: float = FLOOR) -> Whitening:
    """The whitening of these features, (N, D), to at most `dimensions`, D and N - 1 of them.

    Eigenvalues count as `floor` times the largest where they are smaller. Of an axis and its negative, the one
    whose largest entry is positive. Raises DataError for fewer than two images and where a feature is not finite.
    """
    assert dimensions >= 1, "no dimensions"
    count, width = features.shape
    if count < 2:
        raise DataError(
            f"{count} image{'s' * (count != 1)} cannot be whitened", expected="2 or more", fix=Change("data")
        )
    total = torch.zeros(width, dtype=torch.float64, device=features.device)
    for _, chunk in _chunks(features):
        total += chunk.sum(0, dtype=torch.float64)
    if not bool(torch.isfinite(total).all()):
        raise DataError(
            "the features of some images are nan or infinite", fix=(Change("lr", "a smaller"), Set("clip", 1))
        )
    mean = total / count
    covariance = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for _, chunk in _chunks(features):
        centered = chunk.double() - mean
        covariance.addmm_(centered.t(), centered)
    values, axes = torch.linalg.eigh(covariance / (count - 1))  # ascending
    kept = min(dimensions, width, count - 1)
    values, axes = values.flip(0)[:kept], axes.flip(1)[:, :kept]
    sign = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # (1, d)
    largest = float(values[0])
    # features that are all alike, as of a dead network, have no axes but those of rounding: they become zeros
    alike = largest <= (torch.finfo(torch.float32).eps * float(mean.norm())) ** 2
    scale = torch.zeros_like(values) if alike else values.clamp_min(floor * largest).rsqrt()
    return Whitening(mean.float(), (axes * sign * scale).float())


def _chunks(features: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First row and rows of each chunk."""
    step = max(1, CHUNK // features.shape[1])
    for start in range(0, len(features), step):
        yield start, features[start : start + step]
