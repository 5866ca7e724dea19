"""What holds for a moment only is not kept in the cache: a file without rights, little memory, a damaged entry."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssl_app.data import images
from ssl_app.data.packing import Packed, pack
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "set" / f"{number}.png"), image)
    return tmp_path / "set"


def packed(folder: Path, most: int = 0) -> Packed:
    return pack(open_source(str(folder), Columns()), PixelSpec(8), folder.parent / "cache", max_unreadable=most)


def unreadable(error: BaseException, name: str = "1.png") -> Callable[..., bytes]:
    """In place of Path.read_bytes: this file raises."""
    whole = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == name:
            raise error
        return whole(path)

    return read


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOENT, errno.ETIMEDOUT]
)
def test_what_could_not_be_read_for_a_moment_is_tried_again(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unreadable(OSError(number, os.strerror(number))))
        with pytest.raises(DataError, match=r"1 of 3 images cannot be read, first 1\.png"):
            packed(folder)
        assert [key for key, _ in packed(folder, most=1).unreadable] == ["1.png"]
        assert len(packed(folder, most=1).images) == 2
    assert len(packed(folder).images) == 3
    assert packed(folder).unreadable == ()


def test_what_is_damaged_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert len(packed(folder, most=1).images) == 2
    monkeypatch.setattr(images, "decode_content", lambda *_: pytest.fail("decoded again"))
    assert len(packed(folder, most=1).images) == 2


def test_little_memory_is_no_damaged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode_png", decode)
        with pytest.raises(DataError, match=r"the memory does not suffice to read 0\.png; free some memory"):
            packed(folder, most=3)
    assert len(packed(folder).images) == 3


SHAPES = [b"[]", b"3", b"null", b"{", b"", b"{}", b"\xff\xfe", b'{"key": 3}', b'{"key": "x", "unreadable": [1]}']


@pytest.mark.parametrize("content", SHAPES)
def test_an_entry_of_a_wrong_shape_is_made_anew(content: bytes, folder: Path) -> None:
    packed(folder)
    for index in (folder.parent / "cache" / "index").iterdir():
        index.write_bytes(content)
    assert len(packed(folder).images) == 3
    for index in (folder.parent / "cache" / "index").iterdir():
        json.loads(index.read_bytes())


@pytest.mark.parametrize("name", ["images.npy", "content.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text"])
def test_a_damaged_pack_is_made_anew(name: str, content: bytes, folder: Path) -> None:
    before = np.array(packed(folder).images)
    (packed(folder).folder / name).write_bytes(content)
    assert np.array_equal(packed(folder).images, before)


def test_files_that_change_while_they_are_read_are_read_again(
    folder: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images.decode_content

    def decode(content: bytes, limit: object) -> np.ndarray:
        os.utime(folder / "0.png", (1, 1))  # another program writes it
        return whole(content, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "decode_content", decode)
    packed(folder)
    assert [line for line in messages if "have changed while they were read" in line]
    assert list((folder.parent / "cache" / "index").glob("*")) == []
