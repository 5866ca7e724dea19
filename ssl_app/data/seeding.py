"""Seeds made from what a draw is for, so that randomness has no state to save and order does not matter."""

MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """One 64-bit seed from several whole numbers (splitmix64): (seed, epoch, index) -> seed of that image.

    Any change of any number gives an unrelated seed; the order counts.
    """
    state = 0
    for number in numbers:
        state = (state ^ (number & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state
