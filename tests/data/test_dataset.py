"""One call from what was typed to arrays."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from ssl_app.data.dataset import Dataset, changed, in_class_order, open_dataset
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.spec import PixelSpec
from ssl_app.data.summary import labeled_digest


def opened(data: str, cache: Path, max_unreadable: int = 0) -> Dataset:
    return open_dataset(open_source(data, Columns()), PixelSpec(8), cache, max_unreadable)


def test_images_that_cannot_be_read_are_left_out_everywhere(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), number * 20, np.uint8))
    (tmp_path / "1.png").write_bytes(b"broken")
    (tmp_path / "m.csv").write_text(
        "path,label,group,split\n0.png,10,p,train\n1.png,3,q,test\n2.png,,,test\n3.png,9,p,\n"
    )
    dataset = opened(str(tmp_path / "m.csv"), tmp_path / "cache", max_unreadable=1)
    assert dataset.keys == ("0.png", "2.png", "3.png")
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 40, 60]
    assert dataset.classes == ("9", "10")
    assert dataset.labels[dataset.labeled].tolist() == [1, 0]
    assert dataset.labeled.tolist() == [True, False, True]
    assert dataset.groups is not None
    assert (dataset.groups[0], dataset.groups[2]) == ("p", "p")
    assert dataset.grouped().tolist() == [True, False, True]
    assert dataset.splits == ("train", "test", None)
    assert [key for key, _ in dataset.unreadable] == ["1.png"]


def test_the_hash_is_of_pictures_labels_and_groups_and_not_of_names(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), number, np.uint8))
    hashes = []
    for text in ("0.png,a\n1.png,b\n", "0.png,a\n1.png,a\n", "0.png,a\n2.png,b\n", "./0.png,a\n1.png,b\n"):
        (tmp_path / "m.csv").write_text("path,label\n" + text)
        hashes.append(opened(str(tmp_path / "m.csv"), tmp_path / "cache").hash)
    assert len(set(hashes[:3])) == 3
    assert hashes[3] == hashes[0]


def test_a_set_has_changed_by_its_images_its_groups_or_its_split_and_not_by_its_labels(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), number, np.uint8))

    def state(*rows: str) -> dict[str, str]:
        (tmp_path / "m.csv").write_text("\n".join(["path,label,group,split", *rows]))
        return opened(str(tmp_path / "m.csv"), tmp_path / "cache").state

    before = state("0.png,a,p,", "1.png,b,p,", "2.png,b,q,")
    assert changed(before, before) is None
    assert changed(before, state("2.png,,q,train", "0.png,c,p,train", "1.png,,p,train")) is None  # order and labels
    assert changed(before, state("0.png,a,p,", "1.png,b,p,", "3.png,b,q,")) == "other images"
    assert changed(before, state("0.png,a,p,", "1.png,b,p,")) == "other images"
    assert changed(before, state("0.png,a,p,", "1.png,b,q,", "2.png,b,q,")) == "other groups"
    assert changed(before, state("0.png,a,p,", "1.png,b,p,", "2.png,b,q,test")) == "another given split"
    both = state("0.png,a,p,", "1.png,b,q,", "2.png,b,q,test")
    assert changed(before, both) == "other groups and another given split"


def test_digits_are_one_call(tmp_path: Path) -> None:
    dataset = opened("digits", tmp_path)
    assert dataset.images.shape == (1797, 8, 8, 1)
    assert dataset.classes == tuple("0123456789")
    assert not dataset.mirrors


def test_classes_sort_as_numbers_where_all_are() -> None:
    assert in_class_order({"10", "9", "-1"}) == ("-1", "9", "10")
    assert in_class_order({"10", "9", "x"}) == ("10", "9", "x")


def test_data_need_no_torch() -> None:
    code = (
        "import sys, ssl_app.data.dataset, ssl_app.data.splits, ssl_app.data.overlap, ssl_app.data.intensity;"
        "from ssl_app.data.sources.base import open_source, Columns; open_source('digits', Columns());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digest_of_a_draw_is_of_pictures_and_classes_in_any_order_and_with_any_names():
    drawn = SimpleNamespace(content=np.array([5, 9, 7]), labels=np.array([0, 1, 1]), classes=("b\udce9t\udce9", "正"))
    found = labeled_digest(drawn, np.array([0, 2]))
    assert found == labeled_digest(drawn, np.array([2, 0]))
    assert found != labeled_digest(SimpleNamespace(**{**vars(drawn), "classes": ("b", "正")}), np.array([0, 2]))
    assert found != labeled_digest(drawn, np.array([0, 1]))
