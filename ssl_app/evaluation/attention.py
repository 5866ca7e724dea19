"""Where a network looks: energy of a layer's activations, and attention rolled out over a transformer's blocks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

OWN = 0.5  # of a block's output comes from its own token, past the attention


def energy(maps: ArrayLike, power: float) -> NDArray[np.float64]:
    """Sum over channels of |activation|^power (RotNet, arXiv:1803.07728, figure 3). (B, D, h, w) -> (B, h, w)."""
    found: NDArray[np.float64] = (np.abs(np.asarray(maps, dtype=np.float64)) ** power).sum(1)
    return found


def rollout(weights: ArrayLike) -> NDArray[np.float64]:
    """Share of each token of the input in each of the output, over all paths through the blocks. (L, T, T) -> (T, T).

    Weights of a block are (to, from), first block first. The way around each attention counts for half
    (Abnar and Zuidema, 2020, arXiv:2005.00928, section 3). Rows sum to 1 where those of the weights do.
    """
    blocks = np.asarray(weights, dtype=np.float64)
    mixed = OWN * blocks + (1 - OWN) * np.eye(blocks.shape[-1])
    found: NDArray[np.float64] = np.eye(blocks.shape[-1])
    for block in mixed:
        found = block @ found
    return found
