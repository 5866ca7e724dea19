"""How the search for near copies grows with the set, and how many planted ones it finds.

    python benchmarks/near_copies.py [--images 5000,20000,80000] [--seed 0]

Three kinds of sets, made here. random: thumbnails of noise. scenes: smooth pictures, of which one in a hundred is
there again, brighter and with noise. alike: variants of one picture, the worst case, where every image is a candidate
for every other. Seconds are of the process's CPU: for the hashes, and for the pairs. N log N from 5 to 80 thousand is
a factor of 21.

    python benchmarks/near_copies.py --features RUN --data D [--out DIR]

By the features of a pretraining, on a set of images: how many of 300 copies of each kind are found, as they are and
mirrored and turned, and how many pairs of the set itself are taken for near copies.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import ssl_app
from ssl_app.clustering.near_copies import RATIO, near_copies
from ssl_app.data.images import Unreadable
from ssl_app.data.prints import near_pairs, prints, thumbnail
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.training.frozen import TURNS, turned

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


Image = NDArray[Any]  # (H, W, C) uint8
PLANTED = 300
RATIOS = (0.35, 0.4, RATIO, 0.5, 0.6)


def again(image: Image, quality: int) -> Image:
    """Saved as JPEG."""
    mode = cv2.IMREAD_GRAYSCALE if image.shape[2] == 1 else cv2.IMREAD_COLOR
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(content, mode)).reshape(image.shape)


def cropped(image: Image, share: float) -> Image:
    """The middle of it."""
    high, wide = (round(side * (1 - share) / 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[high : image.shape[0] - high, wide : image.shape[1] - wide])


def tilted(image: Image, degrees: float) -> Image:
    """Turned about the center by a few degrees."""
    high, wide = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((wide / 2, high / 2), degrees, 1)
    return cv2.warpAffine(image, matrix, (wide, high), borderMode=cv2.BORDER_REPLICATE).reshape(image.shape)


def noisy(image: Image) -> Image:
    """With noise of 8 gray levels."""
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def half(image: Image) -> Image:
    """At half the size."""
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return small.reshape(*small.shape[:2], -1)


COPIED: dict[str, Callable[[Image], Image]] = {
    "JPEG 40": lambda image: again(image, 40),
    "noise": noisy,
    "half size": half,
    "contrast 1.4": lambda image: np.clip((image - 128.0) * 1.4 + 140, 0, 255).astype(np.uint8),
    "gamma .7": lambda image: (255 * (image / 255.0) ** 0.7).astype(np.uint8),
    "tilted 5": lambda image: tilted(image, 5),
    "90 % of it": lambda image: cropped(image, 0.9),
    "turned, JPEG": lambda image: again(np.ascontiguousarray(np.rot90(image)), 75),
    "mirrored, JPEG": lambda image: again(np.ascontiguousarray(image[:, ::-1]), 75),
}


def by_features(run: str, data: str, out: str) -> None:
    """Print the share of planted copies that is found, and pairs of the set itself, at several ratios."""
    network = ssl_app.load(run, out)
    source = open_source(data, Columns())
    images: list[Image] = [one for _, one in source.each(lambda array: array) if not isinstance(one, Unreadable)]
    channels = network.pixels.channels
    images = [one[..., :1] if channels == 1 else one for one in images]

    def features(some: list[Image]) -> list[NDArray[np.float32]]:
        """Under each turn, (N, D)."""
        found = [network.preprocess(some[start : start + 256]) for start in range(0, len(some), 256)]
        with torch.no_grad():
            return [
                torch.cat([network.backbones[0](turned(batch, turn)) for batch in found]).float().numpy()
                for turn in range(TURNS)
            ]

    own = features(images)
    first = np.sort(np.unique(own[0].round(5), axis=0, return_index=True)[1])  # without exact copies
    images, own = [images[i] for i in first], [one[first] for one in own]
    count = len(images)
    print(f"{count} images without exact copies")
    print(f"{'ratio':<16}" + "".join(f"{ratio:>7}" for ratio in RATIOS))
    pairs = [len(near_copies(own, ratio).pairs) for ratio in RATIOS]
    print(f"{'pairs of its own':<16}" + "".join(f"{found:>7}" for found in pairs))
    which = np.random.default_rng(0).choice(count, min(PLANTED, count), replace=False)
    for name, change in COPIED.items():
        copies = features([change(images[i]) for i in which])
        joined = near_copies([np.concatenate(both) for both in zip(own, copies, strict=True)], max(RATIOS))
        planted = (joined.pairs[:, 1] >= count) & (joined.pairs[:, 0] == which[joined.pairs[:, 1] - count])
        shares = [100 * (planted & (joined.ratio < ratio)).sum() / len(which) for ratio in RATIOS]
        print(f"{name:<16}" + "".join(f"{share:>6.0f}%" for share in shares), flush=True)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--images", default="5000,20000,80000")
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--features", help="a pretraining, by its name in --out")
    reader.add_argument("--data", default="digits")
    reader.add_argument("--out", default="ssl-runs", type=Path)
    given = reader.parse_args()
    if given.features:
        by_features(given.features, given.data, given.out)
        return
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
