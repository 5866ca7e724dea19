"""Permutation sets: the distances and sizes of methods.md section 0.1.6, counted pair by pair."""

import itertools

import pytest
import torch

from ssl_app.pretext.parts.permutations import field, permutation_set

SETS = {24: (4, 2), 72: (9, 8), 504: (9, 7), 1512: (9, 6)}  # tiles, least distance


@pytest.mark.parametrize("size", SETS)
def test_a_set_is_as_large_and_as_far_apart_as_it_says(size: int) -> None:
    tiles, distance = SETS[size]
    found = permutation_set(size)
    assert found.shape == (size, tiles)
    assert found[0].tolist() == list(range(tiles))
    assert len({tuple(row) for row in found.tolist()}) == size
    assert torch.equal(found.sort(1).values, torch.arange(tiles).expand(size, -1))
    # each pair of rows, place by place
    least = min(int((found[i] != found[i + 1 :]).sum(1).min()) for i in range(size - 1))
    assert least == distance


def test_mean_distances_are_those_that_methods_md_counted() -> None:
    for size, mean in ((72, 8.113), (504, 8.016), (1512, 8.005)):
        found = permutation_set(size)
        total = sum(int((row != found).sum()) for row in found)
        assert total / (size * (size - 1)) == pytest.approx(mean, abs=5e-4)


@pytest.mark.parametrize("size", [24, 72, 504])
def test_a_set_is_a_group(size: int) -> None:
    found = permutation_set(size)
    members = {tuple(row) for row in found.tolist()}
    assert {tuple(row) for row in found.argsort(1).tolist()} == members  # inverses
    products = found[:, found].flatten(0, 1)  # (K * K, T) p after q, for all p and q
    assert {tuple(row) for row in products.unique(dim=0).tolist()} == members


def test_the_largest_set_is_a_group_that_holds_the_second() -> None:
    large, small = permutation_set(1512), permutation_set(504)
    members = {tuple(row) for row in large.tolist()}
    assert {tuple(row) for row in small.tolist()} < members
    for row in large[:: len(large) // 12]:
        assert {tuple(product) for product in large[:, row].tolist()} == members


@pytest.mark.parametrize("size", SETS)
def test_every_tile_comes_to_every_place_equally_often(size: int) -> None:
    found = permutation_set(size)
    for place in found.unbind(1):
        assert place.bincount().tolist() == [size // found.shape[1]] * found.shape[1]


@pytest.mark.parametrize(("prime", "modulus"), [(3, (1, 0, 1)), (2, (1, 1, 0, 1))])
def test_the_tables_are_of_a_field(prime: int, modulus: tuple[int, ...]) -> None:
    plus, times = field(prime, modulus)
    numbers = range(prime ** (len(modulus) - 1))
    for a, b in itertools.product(numbers, repeat=2):
        assert plus[a][b] == plus[b][a]
        assert times[a][b] == times[b][a]
    for a, b, c in itertools.product(numbers, repeat=3):
        assert plus[a][plus[b][c]] == plus[plus[a][b]][c]
        assert times[a][times[b][c]] == times[times[a][b]][c]
        assert times[a][plus[b][c]] == plus[times[a][b]][times[a][c]]
    for a in numbers:
        assert (plus[a][0], times[a][1]) == (a, a)
        assert sorted(plus[a]) == list(numbers)
        assert a == 0 or sorted(times[a]) == list(numbers)
