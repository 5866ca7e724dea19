"""`doctor`, and what the trainings say of a set: everything at once, with what to type."""

import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssl_app.data.sources.base import Columns, open_source

rng = np.random.default_rng(0)


def picture(*shape: int, deep: bool = False) -> np.ndarray:
    return rng.integers(0, 60000 if deep else 255, shape or (12, 12), dtype=np.uint16 if deep else np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve troubles."""
    root = tmp_path_factory.mktemp("troubles") / "scans"
    for name in ("crack", "ok"):
        for number in range(6):
            save(root / name / f"{number}.png", picture())
    save(root / "crack" / "0_mask.png", picture())  # 1
    save(root / "ok" / "thumbs" / "0.png", picture(4, 4))  # 2
    save(root / "Crack " / "7.png", picture())  # 3
    with zipfile.ZipFile(root / "more.zip", "w") as archive:  # 4
        archive.writestr("a", "b")
    (root / "__MACOSX").mkdir()  # 5
    (root / "ok" / "phone.heic").write_bytes(b"x")  # 6
    (root / "ok" / "cut.png").write_bytes((root / "ok" / "1.png").read_bytes()[:-20])  # 7
    save(root / "ok" / "deep.png", picture(deep=True))  # 8
    for number in range(4):
        save(root / "ok" / f"color{number}.png", picture(12, 12, 3))  # 9
    save(root / "unknown" / "1.png", picture())  # 10
    save(root / "crack" / "wide.png", picture(12, 60))  # 11
    (root / "ok" / "IMG.bak").write_bytes((root / "ok" / "1.png").read_bytes())  # 12
    return root


TROUBLES = {
    "masks": "1 mask left out (crack/0_mask.png of crack/0.png); type --omit none to take it as images",
    "thumbnails": "1 thumbnail left out (ok/thumbs/0.png of ok/0.png)",
    "spellings": "1 class has several spellings: 'crack' and 'Crack '; type --one-spelling",
    "archives": "1 archive (more.zip) found, not opened; unpack it",
    "of the system": "1 other file passed over: 1 hidden or of the system",
    "formats": "1 HEIC file found, not read yet; convert it to PNG or TIFF",
    "unreadable": "1 of 21 images cannot be read, first ok/cut.png: ",
    "depths": "ok/deep.png is uint16 and Crack /7.png is uint8; expected one bit depth; type --intensity dtype",
    "color": "ok/color0.png has color and Crack /7.png has one channel (4 and 16 of 20 images); type --channels 3",
    "no label": "1 label is taken for a class, and may mean none: 'unknown' of 1 images; type --unlabeled 'unknown'",
    "cut": "1 image loses more than a fifth to the center square (crack/wide.png, 60 x 12 pixels, 80 %)",
    "misnamed": "1 file is a picture (ok/IMG.bak) by content and not by name; rename it",
}


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_training_says_all_that_is_wrong_in_one_block(
    troubled: Path, ssl: Callable, tiny: tuple[str, ...], tmp_path: Path, verb: str
) -> None:
    init = () if verb == "pretrain" else ("--init", "none")
    answer = ssl(verb, *init, "--data", troubled, "--out", tmp_path / "runs", *tiny)
    assert answer.error.startswith("3 mistakes: (1) 1 of 21 images cannot be read")
    lines = answer.err.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("note: "))
    block = lines[first:]
    assert len(block) <= 15
    for trouble, words in TROUBLES.items():
        assert words in "\n".join(block), trouble


def test_a_set_with_flags_for_all_of_it_is_trained_on(
    troubled: Path, ssl: Callable, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """The flags that the block names settle it; what is left is said in lines."""
    words = ("--max-unreadable", 1, "--intensity", "dtype", "--channels", 1, "--unlabeled", "unknown", "--fit", "pad")
    data = ("--data", troubled, "--one-spelling", "--method", "autoencoder", "--epochs", 1, "--batch-size", 8)
    answer = ssl("pretrain", *data, *words, "--out", tmp_path / "runs", "--name", "p", *tiny)
    assert answer.code == 0, answer.err
    assert "labels of the data: crack 8, ok 11; 1 without a label" in answer.err
    assert "more than a fifth" not in answer.err
    again = ssl("finetune", "--init", "p", "--fit", "stretch", "--out", tmp_path / "runs", *tiny)
    assert again.error.startswith("p was pretrained with the fit pad, not stretch; leave --fit out")


def test_a_center_square_that_cuts_much_away_is_reported(ssl: Callable, tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "d" / f"{number}.png", picture(12, 14))
    save(tmp_path / "d" / "wide.png", picture(12, 60))
    answer = ssl("doctor", tmp_path / "d")
    cut = "1 image loses more than a fifth to the center square (wide.png, 60 x 12 pixels, 80 %)"
    assert f"{cut}; type --fit pad to keep all, or --fit stretch" in answer.out
    assert "more than a fifth" not in ssl("doctor", tmp_path / "d", "--fit", "pad").out


def test_a_clean_folder_has_nothing_to_say(ssl: Callable, tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / "d" / f"{number}.png", picture())
    answer = ssl("doctor", tmp_path / "d")
    assert answer.code == 0
    assert "found: nothing" in answer.out
    assert answer.err == ""


def test_doctor_finds_all_of_it(troubled: Path, ssl: Callable) -> None:
    found = ssl("doctor", troubled, "--per-class", 8, "--json").result
    sentences = "\n".join(one["sentence"] for one in found["findings"])
    for trouble, words in TROUBLES.items():
        assert words in sentences, trouble
    assert {one["kind"] for one in found["findings"] if one["refused"]} == {"unreadable", "depths", "channels"}
    assert "3 of 4 classes have fewer than 8 labeled images: 'crack' 7" in sentences
    assert found["suggested"]["--fit pad"]
    assert found["depths"] == {"uint8": 19, "uint16": 1}


def test_copies_conflicts_and_the_split_are_found_and_cleaned(ssl: Callable, tmp_path: Path) -> None:
    rows = ["path,label,patient,split"]
    for number in range(12):
        save(tmp_path / f"{number}.png", cv2.resize(picture(6, 6), (40, 40), interpolation=cv2.INTER_CUBIC))
        rows.append(f"{number}.png,{'ab'[number % 2]},p{number // 2},{'test' if number > 8 else 'train'}")
    copied = cv2.imread(str(tmp_path / "0.png"), cv2.IMREAD_GRAYSCALE)
    save(tmp_path / "copy.png", copied)
    save(tmp_path / "conflict.tif", cv2.imread(str(tmp_path / "3.png"), cv2.IMREAD_GRAYSCALE))
    save(tmp_path / "near.jpg", copied)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows += ["copy.png,a,p0,test", "conflict.tif,a,p1,train", "near.jpg,a,p9,test", "cut.png,a,p2,train"]
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    clean, page = tmp_path / "clean.csv", tmp_path / "doctor.html"
    words = ("doctor", tmp_path / "all.csv", "--group", "patient", "--clean", clean, "--page", page, "--json")
    found = ssl(*words).result
    kinds = {one["kind"]: one for one in found["findings"]}
    assert kinds["copies"]["count"] == 2
    assert kinds["conflicting labels"]["sentence"].startswith(
        "1 group of exact copies have several labels (3.png is a and b)"
    )
    assert kinds["groups across the split"]["sentence"].startswith(
        "column split puts 2 of 5 test images beside a train image of the same patient"
    )
    assert kinds["copies across the split"]["count"] == 1
    assert found["near"][0][:2] == ["0.png", "near.jpg"]
    assert kinds["near copies"]["sentence"].startswith("2 images are near copies of others, in 1 pair ")
    lines = clean.read_text().splitlines()
    assert lines[0] == "path,label,group"
    assert "copy.png,a,p0" in lines  # of copies the one in test stays
    assert not any(line.startswith(("0.png", "conflict", "cut")) for line in lines)
    assert "3.png,,p1" in lines  # copies that contradict each other have no label
    source = open_source(str(clean), Columns())
    assert len(source.keys) == len(lines) - 1 == 13
    html = page.read_text()
    assert "<script src" not in html
    for words in ("Near copies", "Exact copies with several labels", "near.jpg", "data:image/"):
        assert words in html


def test_two_sets_are_held_against_each_other(ssl: Callable, tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "one" / f"{number}.png", picture(30, 30))
        save(tmp_path / "other" / f"{number}.png", picture(30, 30))
    shared = cv2.imread(str(tmp_path / "one" / "2.png"), cv2.IMREAD_GRAYSCALE)
    save(tmp_path / "other" / "again.bmp", shared)
    save(tmp_path / "other" / "darker.png", (shared * 0.7).astype(np.uint8))
    found = ssl("doctor", tmp_path / "one", "--against", tmp_path / "other", "--json").result
    assert found["against"]["copies"] == [["2.png", "again.bmp"]]
    other = ssl("doctor", tmp_path / "other", "--against", tmp_path / "one", "--json").result
    assert other["against"]["copies"] == [["again.bmp", "2.png"]]
    assert [pair[:2] for pair in other["against"]["near"]] == [["darker.png", "2.png"]]
    assert other["against"]["groups"] is None


def test_a_set_that_cannot_be_opened_says_all_its_reasons(ssl: Callable, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label,split\na.png,x,train\na.png,y,later\n")
    answer = ssl("doctor", tmp_path / "t.csv", "--group", "lot")
    assert answer.code == 0
    for words in ("has no column 'lot'", "lists a.png twice (rows 2 and 3)", "column split holds 'later' (1 row)"):
        assert words in answer.out


def test_nothing_is_written_under_another_ending(ssl: Callable, tmp_path: Path) -> None:
    save(tmp_path / "d" / "1.png", picture())
    for flag in ("--page", "--clean"):
        assert "type " + flag in ssl("doctor", tmp_path / "d", flag, tmp_path / "x.txt").error


@pytest.mark.parametrize("words", [("--omit", "none"), ("--omit", "*_mask.png"), ("--omit", "nothing*")])
def test_masks_are_kept_or_left_out_as_typed(ssl: Callable, tmp_path: Path, words: tuple[str, ...]) -> None:
    for name in ("x", "x_mask", "y", "y_mask"):
        save(tmp_path / "d" / f"{name}.png", picture())
    assert ssl("doctor", tmp_path / "d", *words, "--json").result["images"] == (4 if "none" in words else 2)


def test_a_class_in_two_forms_of_one_accent_is_one_spelling(ssl: Callable, tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        save(tmp_path / "d" / unicodedata.normalize(form, "café") / f"{form}.png", picture())
    save(tmp_path / "d" / "tea" / "1.png", picture())
    assert ssl("doctor", tmp_path / "d", "--one-spelling", "--json").result["classes"] == {
        unicodedata.normalize("NFC", "café"): 2, "tea": 1,
    }  # fmt: skip
