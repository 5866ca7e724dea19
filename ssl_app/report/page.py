"""Offline pages: one HTML file with its data in it, which runs its own script and asks no network."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PLACE = re.compile(r"\{\{(\w+)\}\}")  # of what a page is filled with: {{data}}
SHARED = re.compile(r"\{\{([\w.]+\.(?:html|css|js))\}\}\n")  # a file of this package that several pages have
QUALITY = 88  # of JPEG, in percent


def filled(template: str, held: dict[str, Any]) -> str:
    """A template of this package with what pages share, its data, and a policy that lets its own script run alone."""
    return assembled(template, {"data": as_data(held)})


def assembled(template: str, parts: Mapping[str, str]) -> str:
    """A template with what pages share, a policy that lets its own script run alone, and its parts.

    The parts are HTML or JSON already. What they hold is not looked at again.
    """
    page = SHARED.sub(lambda found: _text(found[1]), _text(template))
    every = {"policy": _policy(page), **parts}
    return PLACE.sub(lambda found: every[found[1]], page)


def as_data(held: Any) -> str:
    """JSON that stays JSON inside a <script>: no `<` can end it, and all is ASCII."""
    return json.dumps(held, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A picture as a JPEG file. (H, W, 1 or 3) RGB."""
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])  # OpenCV: blue first
    assert done
    return encoded.tobytes()


def eight_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels in [0, 1] as bytes; what is no number is black."""
    return np.rint(np.nan_to_num(values) * 255).astype(np.uint8)


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _policy(page: str) -> str:
    """Content-Security-Policy: the page's style and script by their hashes, pictures in or beside it, no network."""
    hashes = {}
    for kind in ("style", "script"):
        text = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert len(text) == 1, f"one <{kind}> without attributes, not {len(text)}"
        hashes[kind] = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        f"img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
