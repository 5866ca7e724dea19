import warnings

import numpy as np
import pytest
from PIL import Image

from ssl_app.evaluation.comparison import Point
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.report import plots


def size(path):
    with Image.open(path) as image:
        return image.size


def test_a_contact_sheet_keeps_every_pixel(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)) / 255
    plots.augmentations(tmp_path / "sheet.png", images)
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB"))
    assert sheet.shape == (2 * 100 + 4, 3 * 100 + 4, 3)  # each of the 8 px 12 times as large, gaps of 4
    tile = sheet[4 + 100 : 4 + 100 + 96, 4 + 100 : 4 + 100 + 96]  # second row, second column: the fifth
    assert np.array_equal(tile[::12, ::12], np.round(images[4] * 255).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_are_shown_in_gray(tmp_path, channels):
    plots.augmentations(tmp_path / "sheet.png", np.ones((4, 64, 64, channels)) * 0.5)
    assert size(tmp_path / "sheet.png") == (2 * 132 + 4, 2 * 132 + 4)


def test_few_draws_long_names_and_many_classes_are_drawn_without_a_warning(tmp_path):
    long = "a strategy whose name does not end where one would expect it to end"
    one, two = Point([0.3], Interval(0.3, None, None, 1)), Point([0.4, 0.5], Interval(0.45, 0.3, 0.6, 2))
    series = {"scratch": {1: one, 2: two}, long: {2: Point([0.6, 0.6, 0.6], Interval(0.6, 0.6, 0.6, 3))}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.label_efficiency(tmp_path / "new" / "labels.png", series, "title", "balanced accuracy")
        saved = [LabelsSaved(2.0, 1.0, None, "at least", 8, None), LabelsSaved(None, None, None, None, 2, "no")]
        plots.labels_saved(tmp_path / "saved.png", saved, "title")
        plots.labels_saved(tmp_path / "none.png", saved[1:], "title")
        plots.confusion(tmp_path / "confusion.png", np.eye(30, dtype=int), [long] * 30)
        plots.history(tmp_path / "history.png", [{"epoch": 1, "train_loss": 1.0}, {"val_loss": 2.0}])
        plots.history(tmp_path / "one.png", [{"loss": 1.0}])
        plots.history(tmp_path / "guess.png", [{"accuracy": 0.5}], {"accuracy": 0.25})
    for name in ("new/labels.png", "saved.png", "none.png", "confusion.png", "history.png", "one.png", "guess.png"):
        assert min(size(tmp_path / name)) > 300
