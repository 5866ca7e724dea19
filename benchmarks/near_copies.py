"""How the search for near copies grows with the set, and how many planted ones it finds.

    python benchmarks/near_copies.py [--images 5000,20000,80000] [--seed 0]

Three kinds of sets, made here. random: thumbnails of noise. scenes: smooth pictures, of which one in a hundred is
there again, brighter and with noise. alike: variants of one picture, the worst case, where every image is a candidate
for every other. Seconds are of the process's CPU: for the hashes, and for the pairs. N log N from 5 to 80 thousand is
a factor of 21.
"""

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.prints import near_pairs, prints, thumbnail

COPIES = 100  # one image in so many is there again
Thumbs = NDArray[np.int8]  # (N, 1024)


def random(count: int, rng: np.random.Generator) -> tuple[Thumbs, int]:
    """Thumbnails without anything in common. -> them, and how many near copies are among them."""
    return rng.integers(-100, 100, (count, 1024)).astype(np.int8), 0


def scenes(count: int, rng: np.random.Generator) -> tuple[Thumbs, int]:
    """Smooth pictures, some of them twice."""
    copies = count // COPIES
    small = rng.normal(size=(count - copies, 10, 10)).astype(np.float32)
    images = [cv2.resize(one, (64, 64), interpolation=cv2.INTER_CUBIC)[..., None] for one in small]
    images += [image * 1.3 + rng.normal(0, 0.05, image.shape) + 1 for image in images[:copies]]
    return np.stack([thumbnail(image) for image in images]), copies


def alike(count: int, rng: np.random.Generator) -> tuple[Thumbs, int]:
    """One picture with noise: most pairs are near, and a window of each image's neighbors is compared."""
    one = cv2.resize(rng.normal(size=(10, 10)).astype(np.float32), (32, 32), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.stack([thumbnail(one + rng.normal(0, 0.3, one.shape)) for _ in range(count)]), 0


SETS: dict[str, Callable[[int, np.random.Generator], tuple[Thumbs, int]]] = {
    "random": random, "scenes": scenes, "alike": alike,
}  # fmt: skip


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--images", default="5000,20000,80000")
    reader.add_argument("--seed", type=int, default=0)
    given = reader.parse_args()
    print(f"{'set':<8}{'images':>8}{'hashes, s':>11}{'pairs, s':>10}{'found':>9}{'planted':>9}")
    for name, make in SETS.items():
        for count in map(int, given.images.split(",")):
            thumbs, planted = make(count, np.random.default_rng(given.seed))
            started = time.process_time()
            images = prints(thumbs)
            hashed = time.process_time()
            pairs, _ = near_pairs(images)
            ended = time.process_time()
            print(f"{name:<8}{count:>8}{hashed - started:>11.2f}{ended - hashed:>10.2f}{len(pairs):>9}{planted:>9}")


if __name__ == "__main__":
    main()
