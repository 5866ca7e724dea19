"""PNM of more than eight bits (PGM and PPM, binary and plain): the values as they are written."""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.decoding.limits import Limit, Unreadable

HEADER = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d{1,10})" * 3 + rb"\s")
LONGEST = 4096  # bytes of a header with its comments
SAMPLES = {2: 1, 3: 3, 5: 1, 6: 3}
PLAIN = (2, 3)


class Header(NamedTuple):
    """Kind, sides, the largest value, and where the pixels begin."""

    kind: int
    width: int
    height: int
    top: int
    start: int


def deep_pnm(content: bytes) -> Header | None:
    """The header where it names a largest value above 255, else None: Pillow reads the others."""
    found = HEADER.match(content[:LONGEST])
    if found is None:
        return None
    kind, width, height, top = map(int, found.groups())
    header = Header(kind, width, height, top, found.end())
    return header if 255 < header.top < 65536 else None


def decode_deep_pnm(content: bytes, header: Header, limit: Limit) -> NDArray[Any]:
    """(H, W, 1 or 3) uint16. Raises Unreadable for a file that is cut, and for a value above the largest."""
    shape = (header.height, header.width, SAMPLES[header.kind])
    limit.admit(shape, 2)
    count = header.height * header.width * shape[2]
    body = memoryview(content)[header.start :]
    plain = header.kind in PLAIN
    if len(body) < count * 2 - plain:  # a plain value has a digit and a blank, but for the last
        raise Unreadable("the file is cut short")
    if plain:
        words = bytes(body).split(maxsplit=count)[:count]
        if len(words) < count or not all(word.isdigit() and len(word) < 6 for word in words):
            raise Unreadable("the file is damaged")
        array = np.array(words, dtype=np.uint32)
    else:
        array = np.frombuffer(body, ">u2", count)
    if array.max() > header.top:
        raise Unreadable("the file is damaged")
    return array.astype(np.uint16).reshape(shape)
