"""Near copies by sight: a 128-bit perceptual hash finds candidates, the correlation of thumbnails decides.

What a checkpoint keeps of an image in place of its thumbnail are the 128 lowest frequencies themselves, as int8.

The hash is the sign of the 128 lowest frequencies of a 32 x 32 thumbnail (pHash, Zauner 2010), which brightness,
contrast, size and compression hardly move. Images are candidates where one of eight bands of 16 bits is equal
(locality-sensitive hashing); of a band only WINDOW neighbors in sorted order are compared, so that a set of much the
same images does not cost all its pairs: N log N in any case.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels of a thumbnail
# pixels of a side, below which different things look the same: six pairs of the 1,797 digits of 8 px are beyond NEAR,
# two ones written by different people among them
LEAST = 16
BANDS, BITS = 8, 16  # of the hash
STEPS = 31  # of a thumbnail's values, to a standard deviation
WINDOW = 32  # neighbors that an image is compared with, in each band
BLOCK = 256  # images in sorted order that are compared with their neighbors at a time: they stay in the cache
MANY = 16  # one pair of so many among a block's, and all of its products are taken at once
# chest X-rays and steel surfaces (5,216 and 1,800): the nearest other image correlates with .992 at most in 99.9 %;
# JPEG of quality 40, noise of 8 gray levels, half the size, gamma .7: .99 and more in 98 to 100 % of the copies
NEAR = 0.99
# of the lowest frequencies alone different things are more alike: of these steel surfaces at 37 and 74 px 13 and 11
# pairs are beyond .99, textures under the same light, and none is beyond .995 but the identical one; copies of JPEG
# quality 40, with noise and at half the size are all beyond it, gamma .7 in 98 % of steel, 40 % of X-rays (.99: 86 %)
NEAR_LOW = 0.995
LOW = sorted(((y, x) for y in range(SIDE) for x in range(SIDE) if y + x), key=lambda at: (sum(at), at))[
    : BANDS * BITS
]
ROWS, COLUMNS = np.array(LOW).T
FARTHEST = 32  # bits that a near copy differs by at most: the mean is 14, when 2 % of every side are cut off
ONES = np.array([number.bit_count() for number in range(2**BITS)], np.uint16)  # set bits of every band
Pairs = NDArray[np.int64]  # (M, 2)


@dataclass(frozen=True, eq=False)
class Prints:
    """What is compared of N images; a blank one, all of one value, is near to none."""

    codes: NDArray[np.uint16]  # (N, 8)
    thumbs: NDArray[np.int8]  # (N, 1024), standardized; or (N, 128), their lowest frequencies
    blank: NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.codes)


def thumbnail(array: NDArray[Any]) -> NDArray[np.int8]:
    """(H, W, C) -> (1024,): the whole image, gray, with mean 0 and deviation STEPS; zeros for a blank one.

    An image below LEAST pixels is taken for a blank one: too little is to be seen of it.
    """
    if min(array.shape[:2]) < LEAST:
        return np.zeros(SIDE * SIDE, np.int8)
    gray = array[..., 0] if array.shape[2] == 1 else array.mean(axis=2, dtype=np.float32)
    small = cv2.resize(gray.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    spread = float(small.std())
    if not np.isfinite(spread) or spread <= 1e-6 * max(1.0, float(np.abs(small).max())):
        return np.zeros(SIDE * SIDE, np.int8)
    found: NDArray[np.int8] = np.clip(np.rint(small * (STEPS / spread)), -127, 127).astype(np.int8)
    return found


def prints(thumbs: NDArray[np.int8]) -> Prints:
    """The hashes of thumbnails (N, 1024)."""
    codes = np.empty((len(thumbs), BANDS), np.uint16)
    for number, thumb in enumerate(thumbs):
        low = cv2.dct(thumb.reshape(SIDE, SIDE).astype(np.float32))[ROWS, COLUMNS] > 0
        codes[number] = np.packbits(low).view(np.uint16)
    return Prints(codes, thumbs, np.asarray(~thumbs.any(axis=1), bool))


def frequencies(thumbs: NDArray[np.int8]) -> NDArray[np.int8]:
    """(N, 1024) -> (N, 128): the lowest frequencies, each image's largest at 127; zeros for a blank one."""
    found = np.zeros((len(thumbs), BANDS * BITS), np.int8)
    for number, thumb in enumerate(thumbs):
        low = cv2.dct(thumb.reshape(SIDE, SIDE).astype(np.float32))[ROWS, COLUMNS]
        if largest := float(np.abs(low).max()):
            found[number] = np.rint(low * (127 / largest))
    return found


def prints_of(frequencies: NDArray[np.int8]) -> Prints:
    """The hashes of lowest frequencies (N, 128)."""
    codes = np.packbits(frequencies > 0, axis=1).view(np.uint16)
    return Prints(codes, frequencies, np.asarray(~frequencies.any(axis=1), bool))


def near_between(one: NDArray[np.int8], other: NDArray[np.int8]) -> Pairs:
    """Pairs of an image of the one, by its lowest frequencies (N, 128), and one of the other that look the same."""
    first = np.arange(len(one) + len(other)) < len(one)
    pairs, _ = near_pairs(prints_of(np.concatenate([one, other])), NEAR_LOW, first)
    pairs[:, 1] -= len(one)
    return pairs


def near_pairs(
    images: Prints, near: float = NEAR, first: NDArray[np.bool_] | None = None
) -> tuple[Pairs, NDArray[np.float32]]:
    """Pairs of images (i < j) that look the same, sorted, and their correlation.

    With `first`, (N,), only pairs of an image where it holds and one where it does not.
    """
    found, alike = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    count = max(len(images), 1)
    for one, other, correlation in _compared(images, first):
        kept = correlation >= near
        found.append(np.minimum(one[kept], other[kept]) * count + np.maximum(one[kept], other[kept]))
        alike.append(correlation[kept])
    unique, at = np.unique(np.concatenate(found), return_index=True)
    return np.stack([unique // count, unique % count], axis=1), np.concatenate(alike)[at]


Compared = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # (M,) rows, (M,) rows, (M,) correlation


def _compared(images: Prints, first: NDArray[np.bool_] | None) -> Iterator[Compared]:
    """Pairs that share a band and are neighbors there, with their correlation; of several bands several times."""
    rows = np.flatnonzero(~images.blank)
    norms = np.sqrt(np.einsum("ij,ij->i", images.thumbs, images.thumbs, dtype=np.float32, casting="unsafe"))
    for band in range(BANDS):
        codes = np.roll(images.codes[rows], -band, axis=1)  # this band first, and the others as far as they are equal
        order = np.lexsort(codes.T[::-1])
        places, aheads = _candidates(codes[order], None if first is None else first[rows[order]])
        for start, some, ahead in _blocks(places, aheads, len(rows)):
            held = rows[order[start : start + BLOCK + WINDOW]]
            one, other = some - start, some - start + ahead
            yield held[one], held[other], _correlation(images.thumbs[held], norms[held], one, other)


def _candidates(
    codes: NDArray[np.uint16], first: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in sorted order of pairs with an equal band, and how far ahead the other is, by place."""
    places, aheads = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for ahead in range(1, min(WINDOW, len(codes) - 1) + 1):
        same = codes[:-ahead, 0] == codes[ahead:, 0]
        if not same.any():
            break
        if first is not None:
            same &= first[:-ahead] != first[ahead:]
        same[same] = _distance(codes[:-ahead][same], codes[ahead:][same]) <= FARTHEST
        places.append(np.flatnonzero(same))
        aheads.append(np.full(len(places[-1]), ahead))
    place, ahead_of = np.concatenate(places), np.concatenate(aheads)
    sorted_by_place = np.argsort(place, kind="stable")
    return place[sorted_by_place], ahead_of[sorted_by_place]


def _blocks(
    places: NDArray[np.int64], aheads: NDArray[np.int64], count: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """The candidates of BLOCK places at a time: (first place, places, how far ahead)."""
    starts = np.arange(0, count, BLOCK)
    for start, (begin, end) in zip(starts.tolist(), pairwise(np.searchsorted(places, [*starts, count])), strict=True):
        if begin < end:
            yield start, places[begin:end], aheads[begin:end]


def _distance(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(M,) how many of the 128 bits differ. (M, 8), (M, 8)."""
    bits = np.bitwise_xor(one, other)
    counts = np.zeros(len(bits), np.uint16)
    for band in range(BANDS):
        counts += ONES[bits[:, band]]
    return counts


def _correlation(
    thumbs: NDArray[np.int8], norms: NDArray[np.float32], one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(M,) of the thumbnails of pairs among a few, (n, 1024): those of many pairs as one product of matrices.

    Both ways give the same numbers: sums of products of int8 are whole and below 2^24.
    """
    if len(one) * MANY < len(thumbs) ** 2:
        products = np.einsum("ij,ij->i", thumbs[one], thumbs[other], dtype=np.float32, casting="unsafe")
    else:
        real = thumbs.astype(np.float32)
        products = (real @ real.T)[one, other]
    found: NDArray[np.float32] = products / np.maximum(norms[one] * norms[other], 1)
    return found
