"""A map of features in the plane: principal components, or t-SNE (van der Maaten and Hinton, 2008)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

PERPLEXITY = 30.0
NEIGHBORHOODS = 3.0  # perplexities that must lie within the images
COMPONENTS = 50  # that t-SNE is given


@dataclass(frozen=True, eq=False)
class Projection:
    """Images in the plane."""

    points: NDArray[np.float64]  # (N, 2)
    how: str  # in words
    axes: tuple[str, str]  # what lies along them


def principal(features: ArrayLike) -> Projection:
    """The first two principal components of features of length 1, with their shares of the variance. (N, d)."""
    rows = _unit(features)
    fitted = PCA(2, random_state=0)
    with np.errstate(invalid="ignore"):  # of equal features a share is 0 / 0
        points = fitted.fit_transform(rows)
    shares = np.nan_to_num(fitted.explained_variance_ratio_)
    axes = [f"component {n}: {share:.0%} of the variance" for n, share in enumerate(shares, start=1)]
    return Projection(points.astype(np.float64), "first two principal components", (axes[0], axes[1]))


def tsne(features: ArrayLike, seed: int) -> Projection:
    """t-SNE of the first 50 principal components, from the first two. (N, d); N is 5 or more.

    Neighbors in the plane are neighbors in the features; distances and sizes between groups mean nothing.
    """
    rows = _unit(features)
    components = min(COMPONENTS, *rows.shape)
    rows = PCA(components, random_state=0).fit_transform(rows)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / NEIGHBORHOODS)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
    return Projection(points.astype(np.float64), f"t-SNE, perplexity {perplexity:.0f}, seed {seed}", ("", ""))


def _unit(features: ArrayLike) -> NDArray[np.float64]:
    """Rows of length 1, as kNN compares them; rows of zeros stay. (N, d) -> (N, d)."""
    rows = np.asarray(features, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: NDArray[np.float64] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return found
