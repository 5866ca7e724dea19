"""Tiles: where they are cut, against a loop over pixels, and what is done to them."""

import numpy as np
import pytest
import torch

from ssl_app.errors import DataError, SettingsError
from ssl_app.models.backbones import build
from ssl_app.pretext.parts import tiles
from ssl_app.pretext.parts.tiles import Layout, lay_out


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("image", "grid", "tile", "jitter", "gap"),
    [(24, 2, 9, 2, 1), (32, 2, 12, 3, 1), (64, 3, 16, 4, 1), (96, 3, 24, 6, 2), (255, 3, 64, 16, 5)],
)
def test_cells_are_a_tile_its_room_and_a_gap(image: int, grid: int, tile: int, jitter: int, gap: int) -> None:
    found = lay_out(image, "auto", 0.06, 0.19)
    assert found == Layout(image, grid, tile, jitter, gap)
    assert found.cell == image // grid
    corners = found.corners()
    assert corners.shape == (grid**2, 2)
    assert (corners >= 0).all()
    assert int(corners.max()) + jitter + tile <= image
    before, after = int(corners.min()), image - int(corners.max()) - jitter - tile
    assert abs(before - after) <= 1  # in the middle


def test_tiles_under_8_px_are_refused() -> None:
    with pytest.raises(SettingsError) as error:
        lay_out(32, "3", 0.06, 0.19)
    assert str(error.value) == (
        "3x3 cells of an image of 32 px hold tiles of 7 px; expected at least 8; type image_size 40, or grid 2"
    )
    with pytest.raises(SettingsError) as error:
        lay_out(16, "auto", 0.06, 0.19)
    assert str(error.value) == (
        "2x2 cells of an image of 16 px hold tiles of 6 px; expected at least 8; type image_size 24"
    )
    with pytest.raises(SettingsError, match="hold tiles of 6 px; expected at least 8; type image_size 120"):
        lay_out(80, "3", 0.4, 0.4)  # of 112 px a tile is rounded down to 7
    assert lay_out(120, "3", 0.4, 0.4).tile >= 8
    assert lay_out(40, "3", 0.06, 0.19).tile >= 8
    assert lay_out(24, "auto", 0.06, 0.19).tile >= 8


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_a_tile_is_the_slice_that_its_offset_names(apart: bool, channels_last: bool) -> None:
    layout = lay_out(30, "3", 0.1, 0.1)
    images = torch.randn(4, 3, 30, 30, generator=random())
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    offsets = tiles.draw_offsets(layout, 4, random(1))
    if apart:
        offsets = torch.randint(layout.jitter + 1, (4, 9, 3, 2), generator=random(1))
    cut = tiles.cut(images, layout, offsets)
    assert cut.shape == (4, 9, 3, layout.tile, layout.tile)
    margin = (30 - 3 * layout.cell + layout.gap) // 2
    for image in range(4):
        for number in range(9):
            for channel in range(3):
                down, right = offsets[image, number, channel if apart else 0].tolist()
                top = margin + number // 3 * layout.cell + down
                left = margin + number % 3 * layout.cell + right
                expected = images[image, channel, top : top + layout.tile, left : left + layout.tile]
                assert torch.equal(cut[image, number, channel], expected)


def test_offsets_take_every_place_equally_often_the_last_one_too() -> None:
    layout = lay_out(32, "2", 0.06, 0.19)
    offsets = tiles.draw_offsets(layout, 2000, random())
    for axis in offsets.flatten(0, 2).unbind(1):
        counts = axis.bincount()
        assert len(counts) == layout.jitter + 1
        assert counts.float().div(len(axis)).sub(1 / len(counts)).abs().max() < 0.02
    assert torch.equal(offsets, tiles.draw_offsets(layout, 2000, random()))


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.2])
def test_no_two_tiles_share_a_pixel_and_none_is_nearer_than_the_gap(gap: float) -> None:
    layout = lay_out(60, "3", gap, 0.2)
    numbered = torch.arange(60.0 * 60).view(1, 1, 60, 60).expand(100, -1, -1, -1)  # float32 is exact to 2 ** 24
    cut = tiles.cut(numbered, layout, tiles.draw_offsets(layout, 100, random()))
    for image in cut:
        assert len(image.unique()) == image.numel()
    rows, columns = cut.long() // 60, cut.long() % 60
    between_rows = rows[:, 3:].amin((2, 3, 4)) - rows[:, :-3].amax((2, 3, 4)) - 1  # (B, 6) pixels
    between_columns = (columns.amin((2, 3, 4)).view(-1, 3, 3)[..., 1:]) - (
        columns.amax((2, 3, 4)).view(-1, 3, 3)[..., :-1] + 1
    )
    assert layout.gap == round(gap * 20)
    assert int(between_rows.min()) == int(between_columns.min()) == layout.gap  # it comes to that, and no nearer
    assert int(between_rows.max()) == layout.gap + 2 * layout.jitter


def test_standardized_tiles_have_mean_0_and_deviation_1() -> None:
    cut = torch.randn(3, 4, 2, 9, 9, generator=random()) * 0.2 + torch.arange(4.0)[:, None, None, None]
    found = tiles.standardize(cut)
    assert found.mean((3, 4)).abs().max() < 1e-5
    torch.testing.assert_close(found.std((3, 4), correction=0), torch.ones(3, 4, 2))
    one = cut[1, 2, 0].numpy()
    torch.testing.assert_close(found[1, 2, 0], torch.from_numpy((one - one.mean()) / one.std()))


@pytest.mark.parametrize("value", [0.0, 0.1, -2.7, 12.3])
def test_a_tile_of_one_value_becomes_0(value: float) -> None:
    assert torch.equal(tiles.standardize(torch.full((1, 2, 1, 13, 13), value)), torch.zeros(1, 2, 1, 13, 13))


def test_all_tiles_are_one_batch_image_by_image_in_the_memory_format_of_the_images() -> None:
    cut = torch.randn(2, 4, 3, 8, 8, generator=random())
    plain, last = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(tiles.as_images(cut, 8, plain), cut.view(8, 3, 8, 8))
    assert tiles.as_images(cut, 8, plain).is_contiguous()
    assert tiles.as_images(cut, 8, last).is_contiguous(memory_format=torch.channels_last)
    assert tiles.as_images(cut, 12, last).is_contiguous(memory_format=torch.channels_last)
    assert tiles.as_images(cut, 12, plain).shape == (8, 3, 12, 12)
    torch.testing.assert_close(tiles.as_images(torch.ones(1, 4, 1, 8, 8), 20, plain), torch.ones(4, 1, 20, 20))


@pytest.mark.parametrize(
    ("name", "image", "side"), [("small-resnet", 32, 12), ("small-resnet", 64, 24), ("resnet18", 64, 48)]
)
def test_tiles_are_enlarged_until_the_trunk_has_more_than_one_pixel(name: str, image: int, side: int) -> None:
    backbone = build(name, 1, image)
    layout = lay_out(image, "auto", 0.06, 0.19)
    assert tiles.trunk_side(layout, backbone) == side
    with torch.no_grad():
        assert backbone.eval()(torch.zeros(1, 1, side, side), backbone.map_layer()).shape[-1] == 2
        if side > layout.tile:
            assert backbone(torch.zeros(1, 1, layout.tile, layout.tile), backbone.map_layer()).shape[-1] == 1


def test_tiles_are_enlarged_to_what_the_trunk_can_compute() -> None:
    backbone = build("alexnet", 1, 64)
    layout = lay_out(64, "auto", 0.06, 0.19)
    side = tiles.trunk_side(layout, backbone)
    assert side >= backbone.smallest_image > layout.tile
    assert tuple(map(str, tiles.remarks(layout, side))) == (
        f"tiles of 16 px are enlarged to {side} px for this backbone",
    )
    assert tuple(map(str, tiles.remarks(lay_out(32, "auto", 0.06, 0.19), 12))) == (
        "images of 32 px are cut into 2x2 tiles of 12 px, little to tell places by; where the files are "
        "larger, an image size of 64 or more leaves more",
    )


def test_a_sheet_lays_tiles_in_their_cells() -> None:
    cut = torch.randn(2, 4, 3, 5, 5, generator=random())
    sheet = tiles.sheet(cut, 8, 17)
    assert sheet.shape == (2, 3, 17, 17)
    for number in range(4):
        top, left = 8 * (number // 2) + 1, 8 * (number % 2) + 1
        assert torch.equal(sheet[:, :, top : top + 5, left : left + 5], cut[:, number])
    assert int((sheet != 0).sum()) == cut.numel()
    assert tiles.sheet(cut, 8, 12).shape == (2, 3, 12, 12)


def test_flat_images_are_refused_and_a_few_of_them_are_not() -> None:
    generator = np.random.default_rng(0)
    images = generator.random((20, 32, 32, 3), dtype=np.float32)
    tiles.refuse_flat(images, "auto", "jigsaw")
    images[2:, :, 16:] = 0.3
    images[2:, 16:] = 0.3  # the rest show something in one tile
    tiles.refuse_flat(images, "auto", "jigsaw")
    images[0] = 0.5
    with pytest.raises(DataError) as error:
        tiles.refuse_flat(images, "auto", "jigsaw")
    assert str(error.value) == (
        "jigsaw finds nothing to tell tiles by: 19 of 20 sampled images are of one color in all of their 2x2 tiles "
        "but one; expected something in every part; crop the images to what they show, or type method rotnet"
    )
