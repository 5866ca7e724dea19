import numpy as np
import torch

from ssl_app.clustering import neighbors
from ssl_app.clustering.neighbors import nearest_by_cosine


def rows(count=2000, width=16, groups=40):
    """Rows of length 1 in loose groups."""
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(groups, width, generator=random)
    found = centers[torch.arange(count) % groups] + 0.5 * torch.randn(count, width, generator=random)
    return torch.nn.functional.normalize(found, dim=1)


def cells_of(monkeypatch, size, near):
    for name, value in (("EXACT", 10), ("CELL", size), ("NEAR", near)):
        monkeypatch.setattr(neighbors, name, value)


def test_cells_find_most_neighbors_and_say_their_cosines(monkeypatch, caplog):
    unit = rows()
    near = nearest_by_cosine(unit, 10)[1]
    caplog.set_level("INFO")
    cells_of(monkeypatch, 50, 8)
    some, found = nearest_by_cosine(unit, 10)
    assert caplog.messages == ["neighbors of 2,000 images are looked for in 8 of 40 cells of k-means"]
    shared = [len(set(a) & set(b)) for a, b in zip(near.tolist(), found.tolist(), strict=True)]
    assert np.mean(shared) > 9.5
    assert np.allclose(some, (unit[:, None] * unit[found]).sum(2), atol=1e-6)
    assert (np.diff(some, axis=1) <= 0).all()
    assert not (found == np.arange(2000)[:, None]).any()


def test_all_cells_together_are_exact_in_any_blocks(monkeypatch):
    unit = rows(300)
    cosine, near = nearest_by_cosine(unit, 7)
    cells_of(monkeypatch, 30, 10)
    monkeypatch.setattr(neighbors, "BLOCK", 1000)
    some, found = nearest_by_cosine(unit, 7)
    assert np.allclose(some, cosine, atol=1e-6)
    assert (found == near).mean() > 0.999


def test_a_lonely_cell_leaves_places_without_weight(monkeypatch):
    unit = torch.eye(12)
    cells_of(monkeypatch, 1, 1)
    cosine, near = nearest_by_cosine(unit, 3)
    assert not cosine.any()
    assert (near == np.arange(12)[:, None]).all()


def test_the_same_rows_have_the_same_neighbors(monkeypatch):
    cells_of(monkeypatch, 50, 4)
    one, other = (nearest_by_cosine(rows(500), 5) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
