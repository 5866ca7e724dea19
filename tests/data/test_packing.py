"""Decoded once: what is cut, what is kept, what the cache finds again, and what is refused."""

import errno
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssl_app.data import packing
from ssl_app.data.packing import Packed, digest, pack
from ssl_app.data.reduction import content_hash, fitted, reduce, squared
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.spec import PixelSpec
from ssl_app.data.store import allocate
from ssl_app.errors import DataError, UserError

rng = np.random.default_rng(0)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def packed(data: Path, size: int = 8, channels: int | None = None, *, depth: str = "strict", most: int = 0) -> Packed:
    source = open_source(str(data), Columns())
    cache = data.parent / "cache"
    intensity = "dtype" if depth == "scaled" else "range"
    return pack(source, PixelSpec(size, channels, intensity), cache, max_unreadable=most)


def refusal(data: Path, channels: int | None = None, **options: int) -> str:
    with pytest.raises(DataError) as raised:
        packed(data, 8, channels, **options)
    return str(raised.value)


def failing(number: int) -> Callable[..., None]:
    """A call to the system that ends in an error of this number."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(("size", "side"), [(8, 9), (17, 20), (18, 18), (32, 32)])
def test_the_margin_is_kept_only_where_nothing_is_enlarged_for_it(tmp_path: Path, size: int, side: int) -> None:
    save(tmp_path / "d" / "1.png", noise(20, 30))
    assert packed(tmp_path / "d", size).images.shape == (1, side, side, 1)


def test_the_center_square_is_taken_and_shapes_keep_their_aspect() -> None:
    array = np.zeros((10, 30, 1), np.uint8)
    array[:, 10:20] = 200
    assert (squared(array, 5) == 200).all()
    assert (squared(array.swapaxes(0, 1), 20) == 200).all()


def test_enlarging_never_overshoots() -> None:
    array = np.zeros((4, 4, 5), np.float32)
    array[1:3] = 1
    small = squared(array, 16)
    assert small.shape == (16, 16, 5)
    assert small.min() >= 0
    assert small.max() <= 1


def test_all_depths_are_kept(tmp_path: Path) -> None:
    for kind in (np.uint8, np.uint16):
        array = noise(8, 8, dtype=kind)
        folder = tmp_path / np.dtype(kind).name
        save(folder / "1.png", array)
        images = packed(folder).images
        assert np.array_equal(images[0, ..., 0], array)
        assert isinstance(images, np.memmap)
        assert not images.flags.writeable


def test_gray_saved_as_rgb_is_one_channel_and_the_same_picture(tmp_path: Path) -> None:
    gray = noise(8, 8)
    save(tmp_path / "rgb" / "1.png", gray[..., None].repeat(3, 2))
    save(tmp_path / "gray" / "1.png", gray)
    one, other = packed(tmp_path / "rgb"), packed(tmp_path / "gray")
    assert one.images.shape[-1] == other.images.shape[-1] == 1
    assert one.content.tolist() == other.content.tolist()
    assert one.key == other.key


def test_the_first_color_makes_the_set_rgb_without_loss(tmp_path: Path) -> None:
    gray, color = noise(8, 8), noise(8, 8, 3)
    for number in range(3):
        save(tmp_path / "d" / f"{number}.png", gray[..., None].repeat(3, 2))
    save(tmp_path / "d" / "3.png", color)
    images = packed(tmp_path / "d").images
    assert images.shape == (4, 8, 8, 3)
    assert all(np.array_equal(images[i, ..., c], gray) for i in range(3) for c in range(3))
    assert np.array_equal(images[3], color[..., ::-1])


def test_one_channel_beside_color_is_refused_with_the_cure(tmp_path: Path) -> None:
    data = tmp_path / "d"
    save(data / "1.png", noise(8, 8))
    save(data / "2.png", noise(8, 8, 3))
    assert refusal(data) == (
        "2.png has color and 1.png has one channel; type channels 3 (gray is repeated), or channels 1 "
        "(color becomes gray)"
    )
    assert packed(data, channels=3).images.shape == (2, 8, 8, 3)
    assert packed(data, channels=1).images.shape == (2, 8, 8, 1)
    assert refusal(data, 5) == "1.png has 1 channels, 5 are requested (2 of 2 images); type channels 1"


def test_mixed_depth_is_refused_with_the_cure_and_scaled_fixes_it(tmp_path: Path) -> None:
    data, low, deep = tmp_path / "d", noise(8, 8), noise(8, 8, dtype=np.uint16)
    save(data / "1.png", low)
    save(data / "2.png", deep)
    assert refusal(data) == (
        "2.png is uint16 and 1.png is uint8; expected one bit depth; type intensity dtype to bring both to [0, 1]"
    )
    images = packed(data, depth="scaled").images
    assert images.dtype == np.float32
    assert np.allclose(images[0, ..., 0], low / 255)
    assert np.allclose(images[1, ..., 0], deep / 65535)


def test_one_depth_is_kept_under_scaled(tmp_path: Path) -> None:
    save(tmp_path / "d" / "1.png", noise(8, 8))
    assert packed(tmp_path / "d", depth="scaled").images.dtype == np.uint8


def test_unreadable_files_are_refused_counted_and_allowed(tmp_path: Path) -> None:
    data = tmp_path / "d"
    (data / "sub").mkdir(parents=True)
    (data / "0.png").write_bytes(b"no picture")
    save(data / "1.png", noise(8, 8))
    (data / "2.png").write_bytes(b"")
    save(data / "3.png", noise(8, 8))
    message = (
        "2 of 4 images cannot be read, first 0.png: not an image of a known format; fix or remove them, "
        "or type max_unreadable 2"
    )
    assert refusal(data) == message
    assert refusal(data) == message  # from the cache as well
    some = packed(data, most=2)
    assert some.rows.tolist() == [1, 3]
    assert some.unreadable == (("0.png", "not an image of a known format"), ("2.png", "the file is empty"))


def test_a_set_that_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    (data / "0.png").write_bytes(b"")
    assert refusal(data, most=9) == f"none of the 1 images in {data} can be read, first 0.png: the file is empty"


def test_what_a_later_verb_asks_for_is_found_however_it_was_asked_for_first(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for name in "ab":
        save(data / f"{name}.png", noise(20, 20, 3))
    first = packed(data, 8)  # channels and side by the images, as pretraining does
    source = open_source(str(data), Columns())

    def refused(reduced: object) -> None:
        raise AssertionError("decoded again")

    source.each = refused  # type: ignore[method-assign]
    for channels in (3, None):
        again = pack(source, PixelSpec(8, channels, pack_side=9), tmp_path / "cache")
        assert again.key == first.key


def test_the_cache_is_found_by_stamps_and_keyed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "d"
    array = noise(8, 8)
    save(data / "1.png", array)
    save(data / "2.png", noise(8, 8))
    first = packed(data)
    with monkeypatch.context() as patch:
        patch.setattr("ssl_app.data.packing.fill", lambda *_: pytest.fail("decoded again"))
        (data / "manifest.csv").write_text("path,label\n1.png,a\n2.png,b\n")
        source = open_source(str(data / "manifest.csv"), Columns())
        again = pack(source, PixelSpec(8), tmp_path / "cache")
        assert again.folder == first.folder
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("1.png", "2.png"):
        (copy / name).write_bytes((data / name).read_bytes())
    assert packed(copy).folder == first.folder
    save(data / "2.png", 255 - array)
    assert packed(data).key != first.key


def test_packs_at_the_same_time_all_succeed(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for number in range(20):
        save(data / f"{number:02d}.png", noise(30, 30))
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(packed(data).key)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert not list((tmp_path / "cache").glob(".packing*"))


def test_a_failed_pack_leaves_nothing_and_old_leftovers_go(tmp_path: Path) -> None:
    old, young = tmp_path / "cache" / ".packing.1-01d", tmp_path / "cache" / ".packing.2-f4e5"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"half")
    past = time.time() - 2 * 86_400
    for path in (old / "images.npy", old):
        os.utime(path, (past, past))
    save(tmp_path / "d" / "1.png", noise(8, 8))
    save(tmp_path / "d" / "2.png", noise(8, 8, 3))
    refusal(tmp_path / "d")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [young.name]


def test_a_pack_is_the_file_that_numpy_writes_of_the_images_that_could_be_read(tmp_path: Path) -> None:
    data, gray, color = tmp_path / "d", noise(8, 8), noise(8, 8, 3)
    data.mkdir()
    for number in (0, 2, 5, 6):
        (data / f"{number}.png").write_bytes(b"")
    save(data / "1.png", gray[..., None].repeat(3, 2))
    save(data / "3.png", color)
    save(data / "4.png", gray[..., None].repeat(3, 2))
    found = packed(data, most=4)
    expected = io.BytesIO()
    np.save(expected, np.stack([gray[..., None].repeat(3, 2), color[..., ::-1], gray[..., None].repeat(3, 2)]))
    assert (found.folder / "images.npy").read_bytes() == expected.getvalue()
    assert sorted(path.name for path in found.folder.iterdir()) == ["content.npy", "images.npy"]


@pytest.mark.parametrize("supported", [True, False])
def test_a_file_has_its_blocks_before_anything_is_written_to_it(
    supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, zeros = (700, 64, 64), tmp_path / "zeros.npy"
    np.save(zeros, np.zeros(shape, np.uint8))
    if not supported:
        monkeypatch.setattr("os.posix_fallocate", failing(errno.EOPNOTSUPP))
    array = allocate(tmp_path / "a.npy", np.uint8, shape)
    assert array.shape == shape
    assert (tmp_path / "a.npy").read_bytes() == zeros.read_bytes()
    for path in (zeros, tmp_path / "a.npy"):
        with path.open("rb") as file:
            os.fdatasync(file)
    assert (tmp_path / "a.npy").stat().st_blocks >= zeros.stat().st_blocks


@pytest.mark.parametrize("where", ["os.posix_fallocate", "os.fsync"])
def test_a_full_disk_costs_one_line_and_leaves_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        save(tmp_path / "d" / f"{number}.png", noise(8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(where, failing(errno.ENOSPC))
        assert refusal(tmp_path / "d") == (
            f"no space left in {tmp_path / 'cache'} for 3 images of 8 x 8 pixels; make room there"
        )
    assert list((tmp_path / "cache").iterdir()) == []
    assert packed(tmp_path / "d").images.shape == (3, 8, 8, 1)


def test_the_hash_knows_shape_type_and_every_pixel() -> None:
    array = noise(6, 4, 1)
    other = array.copy()
    other[5, 3, 0] ^= 1
    hashes = [
        content_hash(a) for a in (array, array.reshape(4, 6, 1), array.astype(np.uint16), other, np.zeros_like(array))
    ]
    assert len(set(hashes)) == 5
    assert reduce(array, 2).content == reduce(array, 4).content == hashes[0]


def test_a_picture_of_one_value_packs(tmp_path: Path) -> None:
    save(tmp_path / "d" / "1.png", np.full((1, 90), 7, np.uint8))
    assert (packed(tmp_path / "d").images == 7).all()


def test_progress_is_plain_lines_off_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_app.data.packing.SECONDS_BETWEEN_LINES", 0.0)
    save(tmp_path / "d" / "1.png", noise(8, 8))
    source = open_source(str(tmp_path / "d"), Columns())
    pack(source, PixelSpec(8), tmp_path / "cache", progress=True)
    assert capsys.readouterr().err == "packing: 1 of 1 images\n"


@pytest.mark.parametrize("channels", [5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_takes_any_number_of_channels(channels: int, dtype: type) -> None:
    image = np.arange(20 * 20 * channels).reshape(20, 20, channels).astype(dtype)
    small = squared(image, 10)
    assert small.shape == (10, 10, channels)
    assert small.dtype == dtype
    each = np.concatenate([squared(image[..., c : c + 1], 10) for c in range(channels)], axis=-1)
    assert np.array_equal(small, each)


def test_with_the_side_given_a_picture_does_not_depend_on_its_neighbors(tmp_path: Path) -> None:
    small, large = noise(16, 16), noise(40, 40)
    save(tmp_path / "mixed" / "1.png", small)
    save(tmp_path / "mixed" / "2.png", large)
    save(tmp_path / "large" / "2.png", large)

    def images(name: str, side: int | None) -> np.ndarray:
        source = open_source(str(tmp_path / name), Columns())
        return pack(source, PixelSpec(16, pack_side=side), tmp_path / "c").images

    alone = images("large", None)
    assert alone.shape[1] == 18
    assert images("mixed", None).shape[1] == 16  # by the first: nothing is enlarged for the margin
    assert np.array_equal(images("mixed", 18)[1], alone[0])
    assert np.array_equal(images("large", 18), alone)
    assert images("mixed", None).shape[1] == 16  # the cache tells them apart


def test_with_the_side_given_a_set_that_cannot_be_read_is_refused_alike(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    (data / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^none of the 1 images in .* can be read, first 0.png: the file is empty$"):
        pack(open_source(str(data), Columns()), PixelSpec(8, pack_side=9), tmp_path / "c", max_unreadable=9)


@pytest.mark.parametrize("gray", [(8, 8), (8, 8, 3)])
def test_a_few_images_in_color_become_gray_with_a_line(tmp_path: Path, gray: tuple[int, ...]) -> None:
    """Of one channel or of three equal ones: a handful in color does not decide for the set."""
    data = tmp_path / "d"
    for number in range(40):
        one = noise(8, 8)
        save(data / f"{number:02d}.png", one if len(gray) == 2 else np.stack([one] * 3, axis=2))
    save(data / "99.png", noise(8, 8, 3))
    found = packed(data)
    assert found.images.shape == (41, 8, 8, 1)
    sentence = "1 of 41 images has color (99.png), made gray as the others; type channels 3 to keep their color"
    assert [str(note) for note in found.notes] == [sentence]
    assert np.array_equal(found.images, packed(data, channels=1).images)
    wanted = packed(data, channels=3)
    assert wanted.images.shape == (41, 8, 8, 3)
    assert [str(note) for note in wanted.notes] == [
        "40 of 41 images are gray, and repeated: three channels are wanted"
    ]


@pytest.mark.parametrize(
    ("own", "wanted", "sentence"),
    [
        (3, 1, "5 of 5 images are in color, and made gray: one channel is wanted"),
        (1, 3, "5 of 5 images are gray, and repeated: three channels are wanted"),
        (1, 1, None),
        (3, 3, None),
    ],
)
def test_channels_that_a_network_wants_and_images_have_not_are_said(
    own: int, wanted: int, sentence: str | None, tmp_path: Path
) -> None:
    data = tmp_path / "d"
    for number in range(5):
        save(data / f"{number}.png", noise(8, 8, 3) if own == 3 else noise(8, 8))
    found = packed(data, channels=wanted)
    assert found.images.shape[-1] == wanted
    assert [str(note) for note in found.notes] == ([] if sentence is None else [sentence])


def test_a_few_gray_files_among_color_are_repeated_with_a_line(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for number in range(40):
        save(data / f"{number:02d}.png", noise(8, 8, 3))
    save(data / "99.png", noise(8, 8))
    found = packed(data)
    assert found.images.shape == (41, 8, 8, 3)
    assert [str(note) for note in found.notes] == [
        "40 of 41 images have color, the others are gray and repeated; type channels 1 to make all gray"
    ]


def test_all_that_does_not_go_together_is_refused_together(tmp_path: Path) -> None:
    data = tmp_path / "d"
    save(data / "1.png", noise(8, 8))
    save(data / "2.png", noise(8, 8).astype(np.uint16))
    save(data / "3.png", noise(8, 8, 3))
    (data / "4.png").write_bytes(b"")
    with pytest.raises(UserError) as raised:
        packed(data)
    sentence = raised.value.sentence(str)
    for words in ("3 mistakes", "4.png: the file is empty", "2.png is uint16", "3.png has color"):
        assert words in sentence


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (15, 46)])
def test_a_padded_image_is_whole_between_bars_of_its_mean(height: int, width: int) -> None:
    array = np.zeros((height, width, 2), np.float32)
    array[:, : width // 2, 0], array[..., 1] = 8, 5
    square = fitted(array, 20, "pad")
    assert square.shape == (20, 20, 2)
    assert square[..., 1] == pytest.approx(5)
    bar, inside = ((0, 0), (10, 0)) if height < width else ((10, 0), (10, 8))
    assert square[bar].tolist() == [4, 5]
    assert square[inside].tolist() == [8, 5]


def test_a_stretched_image_has_every_row_and_column() -> None:
    array = np.arange(16, dtype=np.uint8).reshape(2, 8, 1)
    assert np.array_equal(fitted(array, 2, "stretch")[..., 0], [[2, 6], [10, 14]])
    assert np.array_equal(fitted(array, 2, "crop")[..., 0], [[3, 4], [11, 12]])


def test_an_image_that_is_kept_whole_has_no_margin(tmp_path: Path) -> None:
    data = tmp_path / "d"
    save(data / "1.png", noise(40, 90))
    found = pack(open_source(str(data), Columns()), PixelSpec(16), tmp_path / "cache")
    cut = "1 image loses more than a fifth to the center square (1.png, 90 x 40 pixels, 56 %)"
    assert [str(note) for note in found.notes] == [f"{cut}; type fit pad to keep all, or fit stretch"]
    for fit in ("pad", "stretch"):
        found = pack(open_source(str(data), Columns()), PixelSpec(16, fit=fit), tmp_path / "cache")
        assert found.images.shape[1] == 16
        assert found.notes == ()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
def test_a_digest_of_a_stream_is_that_of_all_lines(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LINES", 4)
    lines = [f"line {i} \udc80" for i in range(count)]
    joined = "\n".join(lines).encode("utf-8", "surrogateescape")
    assert digest(iter(lines), b"more") == hashlib.blake2b(joined + b"more", digest_size=16).hexdigest()


def test_stamps_are_read_before_and_after_the_images(tmp_path: Path) -> None:
    save(tmp_path / "d" / "1.png", noise(8, 8))
    source = open_source(str(tmp_path / "d"), Columns())
    seen: list[str] = []
    stamps, each = list(source.stamps()), source.each
    source.stamps = lambda: (seen.append("stamp") or stamp for stamp in stamps)  # type: ignore[method-assign]
    source.each = lambda work: seen.append("image") or each(work)  # type: ignore[method-assign,assignment,func-returns-value]
    pack(source, PixelSpec(8), tmp_path / "cache")
    assert seen == ["stamp", "image", "stamp"]
