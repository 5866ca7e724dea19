"""Seeds made from what a draw is for, so that randomness has no state to save and order does not matter."""

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
ADDED, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of splitmix64
Seeds = NDArray[np.uint64]


def mix(*numbers: int) -> int:
    """One 64-bit seed from several whole numbers (splitmix64): (seed, epoch, index) -> seed of that image.

    Any change of any number gives an unrelated seed; the order counts.
    """
    state = 0
    for number in numbers:
        state = (state ^ (number & MASK)) + ADDED & MASK
        state = (state ^ (state >> 30)) * FIRST & MASK
        state = (state ^ (state >> 27)) * SECOND & MASK
        state ^= state >> 31
    return state


def mix_each(*numbers: int | Seeds) -> Seeds:
    """`mix` of arrays, which are broadcast, to the bit: one seed for each of their elements."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = state ^ (np.uint64(number & MASK) if isinstance(number, int) else number)
        state += np.uint64(ADDED)
        state ^= state >> np.uint64(30)
        state *= np.uint64(FIRST)
        state ^= state >> np.uint64(27)
        state *= np.uint64(SECOND)
        state ^= state >> np.uint64(31)
    return state
