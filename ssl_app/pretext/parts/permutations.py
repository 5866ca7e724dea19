"""Sets of permutations that differ from each other in as many places as a set of their size can."""

import itertools

import torch
from torch import Tensor

INFINITY = 8  # the ninth point of the projective line over GF(8), whose others are 0 to 7


def permutation_set(size: int) -> Tensor:
    """Row p sends place j to p[j]; the first is the identity. -> (size, 4 or 9) int64.

    24: all of four. Of nine: 72, any two apart in 8 places or more (AGL(1, 9)); 504 in 7 (PGL(2, 8)); 1512 in 6
    (PGammaL(2, 8)). Each is a group, so every tile comes to every place equally often, and for 72 and 504 no larger
    set is so far apart (9! / 7! and 9! / 6!). A set drawn greedily by mean distance, the usual way, is 2 apart.
    """
    build = {24: lambda: itertools.permutations(range(4)), 72: _affine, 504: _projective, 1512: _semilinear}
    return torch.tensor(sorted(build[size]()))


def _affine() -> list[tuple[int, ...]]:
    """x -> a x + b over GF(9) for a other than 0."""
    plus, times = field(3, (1, 0, 1))
    return [tuple(plus[times[a][x]][b] for x in range(9)) for a in range(1, 9) for b in range(9)]


def _projective() -> list[tuple[int, ...]]:
    """x -> (a x + b) / (c x + d) over GF(8) and infinity, for a d other than b c; c and d are 0 and 1, or c is 1."""
    plus, times = field(2, (1, 1, 0, 1))
    inverse = [0] + [row.index(1) for row in times[1:]]
    found = [(*(plus[times[a][x]][b] for x in range(8)), INFINITY) for a in range(1, 8) for b in range(8)]
    for a, b, d in itertools.product(range(8), repeat=3):
        if times[a][d] == b:
            continue
        # characteristic 2: x + d is 0 where x is d, which goes to infinity, and infinity goes to a / 1
        above, below = [plus[times[a][x]][b] for x in range(8)], [plus[x][d] for x in range(8)]
        image = [times[p][inverse[q]] if q else INFINITY for p, q in zip(above, below, strict=True)]
        found.append((*image, a))
    return found


def _semilinear() -> list[tuple[int, ...]]:
    """The projective maps after x, x^2 and x^4, the automorphisms of GF(8)."""
    _, times = field(2, (1, 1, 0, 1))
    square = (*(times[x][x] for x in range(8)), INFINITY)
    fourth = tuple(square[x] for x in square)
    powers = (tuple(range(9)), square, fourth)
    return [tuple(p[x] for x in power) for p in _projective() for power in powers]


def field(prime: int, modulus: tuple[int, ...]) -> tuple[list[list[int]], list[list[int]]]:
    """Sums and products of the field of prime ** n numbers, as tables.

    A number's digits to the base `prime`, lowest first, are the coefficients of a polynomial; `modulus` is an
    irreducible one of degree n, lowest first, that ends in 1.
    """
    degree = len(modulus) - 1
    digits = [tuple(x // prime**i % prime for i in range(degree)) for x in range(prime**degree)]
    number = {coefficients: x for x, coefficients in enumerate(digits)}

    def product(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
        full = [0] * (2 * degree - 1)
        for i, j in itertools.product(range(degree), repeat=2):
            full[i + j] += one[i] * other[j]
        for power in reversed(range(degree, len(full))):  # the modulus is 0, so its highest power is minus the rest
            for i in range(degree):
                full[power - degree + i] -= full[power] * modulus[i]
        return tuple(value % prime for value in full[:degree])

    plus = [[number[tuple((p + q) % prime for p, q in zip(a, b, strict=True))] for b in digits] for a in digits]
    times = [[number[product(a, b)] for b in digits] for a in digits]
    return plus, times
