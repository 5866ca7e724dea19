"""Files of several images that need no extra: pages of TIFF, stacks of .npy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_app.data.images import Unreadable
from ssl_app.data.sources.base import Columns, Source, open_source
from ssl_app.errors import DataError

rng = np.random.default_rng(0)
DEEP = rng.integers(0, 4096, (4, 20, 30), dtype=np.uint16)
CHANNELS = rng.integers(0, 4096, (4, 3, 20, 30), dtype=np.uint16)
COLOR = rng.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)


def opened(data: Path, **columns: str) -> Source:
    return open_source(str(data), Columns(**columns))


def notes(source: Source) -> list[str]:
    return [str(note) for note in source.notes]


def images(source: Source) -> list[Any]:
    return [str(found) if isinstance(found, Unreadable) else found for _, found in source.each(lambda array: array)]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"metadata": None},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "bigtiff": True},
        {"compression": "deflate", "predictor": True},
        {"compression": "deflate", "tile": (16, 16)},
        {"rowsperstrip": 3},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"ome": True, "metadata": {"axes": "TYX"}},
    ],
    ids=str,
)
def test_each_page_is_an_image(tmp_path: Path, how: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="minisblack", **how)
    source = opened(tmp_path / "a.tif")
    assert source.keys == tuple(f"a.tif#{page}" for page in range(4))
    assert notes(source) == ["1 file holds 4 images, such as a.tif#0"]
    assert source.groups is None
    for found, page in zip(images(source), DEEP, strict=True):
        assert np.array_equal(found[..., 0], page)
    assert np.array_equal(source.read(2)[..., 0], DEEP[2])


def test_pages_that_imagej_gives_no_tags_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP, imagej=True, metadata={"axes": "TYX"})
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first = file.pages[0]
        tags = len(first.tags)
    at = int(first.offset) + 2 + 12 * tags
    content[at : at + 4] = bytes(4)  # no next page
    (tmp_path / "a.tif").write_bytes(content)
    found = images(opened(tmp_path / "a.tif"))
    assert len(found) == 4
    assert all(np.array_equal(one[..., 0], page) for one, page in zip(found, DEEP, strict=True))


@pytest.mark.parametrize(
    "how", [{"imagej": True, "metadata": {"axes": "ZCYX"}}, {"ome": True, "metadata": {"axes": "ZCYX"}}], ids=str
)
def test_an_axis_of_channels_is_that_of_the_bands(tmp_path: Path, how: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CHANNELS, **how)
    found = images(opened(tmp_path / "a.tif"))
    assert all(np.array_equal(one, np.moveaxis(other, 0, -1)) for one, other in zip(found, CHANNELS, strict=True))
    tifffile.imwrite(tmp_path / "b.ome.tif", CHANNELS.swapaxes(0, 1), metadata={"axes": "CZYX"})
    found = images(opened(tmp_path / "b.ome.tif"))
    assert all(np.array_equal(one, np.moveaxis(other, 0, -1)) for one, other in zip(found, CHANNELS, strict=True))


def test_channels_alone_are_one_picture(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, CHANNELS[0], imagej=True, metadata={"axes": "CYX"})
    source = opened(tmp_path)
    assert source.keys == ("a.tif", "b.tif")
    assert np.array_equal(source.read(0), np.moveaxis(CHANNELS[0], 0, -1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_pages_are_decoded_by_the_rules_of_pictures(tmp_path: Path, planar: Any) -> None:
    colors = COLOR if planar == "contig" else np.moveaxis(COLOR, -1, 1)
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb", planarconfig=planar)
    assert all(
        np.array_equal(one, other) for one, other in zip(images(opened(tmp_path / "a.tif")), COLOR, strict=True)
    )
    tifffile.imwrite(tmp_path / "b.tif", COLOR[..., 0], photometric="miniswhite", extratags=[(274, 3, 1, 3, False)])
    for one, other in zip(images(opened(tmp_path / "b.tif")), COLOR[..., 0], strict=True):
        assert np.array_equal(one[..., 0], 255 - other[::-1, ::-1])  # turned by half


def test_a_folder_mixes_pictures_and_stacks_whose_pages_are_not_split(tmp_path: Path) -> None:
    for name in ("x/a.tif", "x/b.tif", "y/c.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, DEEP[:2], photometric="minisblack")
    tifffile.imwrite(tmp_path / "y" / "single.tif", DEEP[0])
    Image.fromarray(DEEP[1]).save(tmp_path / "y" / "d.png")
    source = opened(tmp_path)
    assert source.keys == ("x/a.tif#0", "x/a.tif#1", "x/b.tif#0", "x/b.tif#1", "y/c.tiff#0", "y/c.tiff#1",
                           "y/d.png", "y/single.tif")  # fmt: skip
    assert source.labels == ("x",) * 4 + ("y",) * 4
    assert source.groups == ("x/a.tif",) * 2 + ("x/b.tif",) * 2 + ("y/c.tiff",) * 2 + (None, None)
    assert source.columns.group_origin == "files of several images"
    assert "3 files hold 6 images, such as x/a.tif#0" in notes(source)
    assert all(found.dtype == np.uint16 for found in images(source))
    assert opened(tmp_path, group="none").groups is None


def test_pages_of_several_sizes_and_thumbnails(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.full((10, 12), 1, np.uint8))
        file.write(np.full((20, 12), 2, np.uint8))
        file.write(np.full((4, 4), 3, np.uint8), subfiletype=1)
    assert [found.shape for found in images(opened(tmp_path / "a.tif"))] == [(10, 12, 1), (20, 12, 1)]


def test_a_damaged_stack_has_its_reasons(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="minisblack", compression="deflate", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[2].dataoffsets[0]
    content[start : start + 40] = bytes(40)
    (tmp_path / "a.tif").write_bytes(content)
    good, other, bad, last = images(opened(tmp_path / "a.tif"))
    assert isinstance(bad, str)
    assert all(np.array_equal(one[..., 0], DEEP[page]) for one, page in ((good, 0), (other, 1), (last, 3)))


def test_an_npy_is_a_stack_or_a_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEEP)
    source = opened(tmp_path / "a.npy")
    assert source.keys == tuple(f"a.npy#{number}" for number in range(4))
    assert source.groups is None
    assert all(np.array_equal(one[..., 0], other) for one, other in zip(images(source), DEEP, strict=True))
    np.save(tmp_path / "a.npy", COLOR)
    assert all(
        np.array_equal(one, other) for one, other in zip(images(opened(tmp_path / "a.npy")), COLOR, strict=True)
    )
    np.save(tmp_path / "a.npy", COLOR[0])
    assert (opened(tmp_path / "a.npy").keys, opened(tmp_path / "a.npy").read(0).shape) == (("a.npy",), (20, 30, 3))


def test_a_folder_of_npy_files_has_classes_and_groups(tmp_path: Path) -> None:
    for name, array in (("x/1", DEEP), ("x/2", DEEP[0]), ("y/3", DEEP[:2])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", array)
    source = opened(tmp_path)
    assert (len(source.keys), source.labels) == (7, ("x",) * 5 + ("y",) * 2)
    assert source.groups == ("x/1.npy",) * 4 + (None,) + ("y/3.npy",) * 2


def test_an_npy_that_is_none_has_its_reason(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "row.npy", np.zeros(4))
    np.save(tmp_path / "complex.npy", np.zeros((4, 4), complex))
    np.save(tmp_path / "good.npy", DEEP[0])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-100])
    source = opened(tmp_path)
    found = {key: one for key, one in zip(source.keys, images(source), strict=True) if isinstance(one, str)}
    assert found.pop("cut.npy")
    assert "Python objects" in found.pop("objects.npy")
    assert found == {
        "row.npy": "an array of shape (4,); expected an image (H, W, C), or a stack (N, H, W, C)",
        "complex.npy": "pixels of type complex128; expected integers or real numbers",
    }


def test_one_plain_picture_is_still_no_set(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP[0])
    with pytest.raises(DataError, match="is one image; expected a set of them"):
        opened(tmp_path / "a.tif")
