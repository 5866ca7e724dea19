"""Pictures inside a page, as data addresses: what a figure's file holds, and images as the network was given them."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssl_app.data.intensity import PixelScaling
from ssl_app.report import page
from ssl_app.report.markup import Markup, tag

SMALL = 96  # pixels of a side, below which a picture is kept without loss
FEW = 48  # pixels of a side, below which a smooth enlargement is a blur
LARGEST = 256  # side of an embedded image


def from_file(path: Path, words: str) -> Markup:
    """A PNG file of the run."""
    address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return tag("img", src=address, alt=words, class_="sheet")


def packed(cache: Path, data: Mapping[str, Any], rows: Sequence[int]) -> list[NDArray[np.uint8]] | None:
    """Images of a run's data, (P, P, 1 or 3) each, from the cache of decoded images; None where it is gone.

    Of other numbers of channels the first is shown.
    """
    file = cache / str(data["pack"]) / "images.npy"
    if not file.is_file():
        return None
    images = np.load(file, mmap_mode="r", allow_pickle=False)
    scaling = PixelScaling.from_json(data["scaling"])
    found = []
    for row in rows:
        shown = page.eight_bits(scaling.scale(np.asarray(images[row])))
        found.append(shown if shown.shape[-1] == 3 else shown[..., :1])
    return found


def picture(image: NDArray[np.uint8], words: str) -> Markup:
    """An image, (P, P, 1 or 3). The browser enlarges small ones, and those of few pixels pixel by pixel."""
    side = max(image.shape[:2])
    if side < SMALL:
        done, encoded = cv2.imencode(".png", image[..., ::-1])  # OpenCV: blue first
        assert done
        address = f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"
        return tag("img", src=address, alt=words, class_="picture small" if side < FEW else "picture")
    if side > LARGEST:
        image = cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA).reshape(LARGEST, LARGEST, -1)
    address = f"data:image/jpeg;base64,{base64.b64encode(page.jpeg(image)).decode()}"
    return tag("img", src=address, alt=words, class_="picture")
