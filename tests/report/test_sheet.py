"""Sheets of pictures, pixel by pixel."""

import numpy as np
from PIL import Image

from ssl_app.report.contrast import Contrast, tile_side
from ssl_app.report.grid import Grid, Tile
from ssl_app.report.sheet import GAP, MARGIN, Sheet, fitted, width_of, wrapped


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_an_image_is_enlarged_by_its_nearest_pixels(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)) / 255
    sheet = Sheet(60, 50)
    sheet.image(picture, left=10, top=4, side=32)
    found = opened(sheet.save(tmp_path / "new" / "sheet.png"))
    assert found.shape == (50, 60, 3)
    part = found[4:36, 10:42]
    assert np.array_equal(part, np.rint(picture * 255).astype(np.uint8).repeat(4, 0).repeat(4, 1))
    assert (found[:4] == 255).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_a_box_lies_inside_its_edges(tmp_path):
    sheet = Sheet(30, 30)
    sheet.box(5, 6, 15, 20, "#FF0000", width=2)
    red = (opened(sheet.save(tmp_path / "box.png")) == [255, 0, 0]).all(2)
    assert red[6:20, 5:15].sum() == red.sum() == 14 * 10 - 10 * 6
    assert red[6, 5]
    assert red[19, 14]


def test_words_stay_within_their_width(tmp_path):
    words = "a sentence of words that is too long for one line, and has $no$ formula_in it"
    assert all(width_of(line) <= 150 for line in wrapped(words, 150))
    assert " ".join(wrapped(words, 150)) == words
    short = fitted("rolled-in_scale_of_a_name_without_end", 80)
    assert width_of(short) <= 80
    assert short.startswith("roll")
    assert short.endswith("end")
    assert "…" in short
    assert fitted("short", 80) == "short"


def test_tiles_and_captions_do_not_overlap(tmp_path):
    dark = np.zeros((4, 4, 1))
    tiles = [[Tile(dark, "one", frame="#0072B2"), Tile(dark, "a very long caption indeed")], [None, Tile(dark)]]
    found = opened(
        Grid("Title", "About.", ["first", "second"], ["row", "another"]).sheet(tiles, 96).save(tmp_path / "g.png")
    )
    black = (found == 0).all(2)
    columns = np.flatnonzero(black.sum(0) >= 90)
    assert columns[-1] - columns[0] + 1 == 2 * 96 + GAP - 3, "less the frame of the first"
    assert found.shape[1] - columns[-1] - 1 >= MARGIN
    assert (found == [0, 114, 178]).all(2).sum() == 96**2 - 90**2, "no caption lies on the frame"


def test_gray_is_stretched_alike_and_color_is_left_alone():
    dark = np.linspace(0.02, 0.12, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)
    shown = Contrast.of(dark).shown(dark)
    assert shown[0].min() == 0
    assert shown[1].max() == 1
    assert shown[0].max() <= shown[1].min(), "the darker image stays the darker one"
    color = np.full((1, 8, 8, 3), 0.3, np.float32)
    assert np.allclose(Contrast.of(color).shown(color)[0], 0.3)
    assert Contrast.of(np.full((1, 8, 8, 1), 0.3, np.float32)).shown(color[..., :1])[0].shape == (8, 8, 1)


def test_small_images_are_enlarged_by_whole_factors_and_large_ones_averaged_down():
    assert [tile_side(side) for side in (8, 28, 32, 64, 96, 128, 224)] == [96, 112, 96, 128, 96, 128, 128]
    large = np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
    (small,) = Contrast.of(large).shown(large)
    assert np.allclose(small, large[0].reshape(128, 2, 128, 2, 3).mean((1, 3)), atol=1e-6)
