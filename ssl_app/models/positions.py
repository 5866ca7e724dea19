"""Position embeddings of the patches of an image: fixed sines and cosines (He et al., 2022, arXiv:2111.06377)."""

import torch
from torch import Tensor

LONGEST = 10_000.0  # of wavelengths, in units of 2 pi patches (Vaswani et al., 2017, section 3.5)


def sines_and_cosines(grid: int, width: int) -> Tensor:
    """One vector for each patch of a grid x grid image, in rows from the top left. -> (grid * grid, width) f32.

    Half of a vector is of the column, half of the row; each half is sines, then cosines, of the place at width / 4
    wavelengths. `width` is a multiple of 4.
    """
    assert width % 4 == 0
    frequencies = LONGEST ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # (width / 4,)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, width / 4)
    places = torch.cat([angles.sin(), angles.cos()], 1)  # (grid, width / 2)
    rows, columns = places[:, None].expand(-1, grid, -1), places[None].expand(grid, -1, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).float()
