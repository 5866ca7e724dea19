"""Near copies of test images, in what pretraining saw and in the training part: reported, refused by --strict."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

SHORT = ("--per-class", 4, "--strategy", "feature-extraction", "--steps", 4)


def scene(seed: int, side: int = 48) -> np.ndarray:
    """A smooth picture of its own."""
    noise = np.random.default_rng(seed).normal(size=(9, 9)).astype(np.float32)
    large = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(large, None, 20, 200, cv2.NORM_MINMAX).astype(np.uint8)


def larger(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (70, 70), interpolation=cv2.INTER_CUBIC)


def darker(image: np.ndarray) -> np.ndarray:
    return (image * 0.8).astype(np.uint8)


@pytest.fixture(scope="module")
def pretrained(ssl: Callable, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures without labels, and a pretraining `p` of them."""
    root = tmp_path_factory.mktemp("near")
    (root / "scans").mkdir()
    for number in range(30):
        cv2.imwrite(str(root / "scans" / f"{number}.png"), scene(number))
    answer = ssl(
        "pretrain", "--data", root / "scans", "--method", "rotnet", "--epochs", 1, "--batch-size", 8,
        "--image-size", 16, "--test-fraction", 0.01, "--out", root / "runs", "--name", "p", *tiny,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return root


def labeled(root: Path, change: Callable[[np.ndarray], np.ndarray], ending: str, copies: int, train: int = 0) -> Path:
    """A manifest of forty pictures in two classes, half of them test.

    Of those in test so many are pictures of the pretraining changed a little, and others such ones of the train part.
    """
    root.mkdir()
    with (root / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        for number in range(40):
            image = scene(1000 + number)
            if 20 <= number < 20 + copies:
                image = change(scene(number - 20))
            elif number >= 40 - train:
                image = change(scene(1000 + number - 20))
            cv2.imwrite(str(root / f"{number}{ending}"), image)
            table.writerow([f"{number}{ending}", "ab"[number % 2], "test" if number >= 20 else "train"])
    return root / "list.csv"


@pytest.mark.parametrize(("change", "ending"), [(larger, ".png"), (darker, ".bmp"), (np.array, ".jpg")])
def test_near_copies_of_pretraining_images_are_reported_and_refused(
    change: Callable[[np.ndarray], np.ndarray], ending: str, pretrained: Path, ssl, tiny, tmp_path: Path
) -> None:
    data = labeled(tmp_path / "set", change, ending, copies=3)
    words = ("finetune", "--init", "p", "--data", data, *SHORT, "--out", pretrained / "runs", *tiny)
    result = ssl(*words, "--json").result
    assert result["overlap"] == "3 of 20 test images are near copies of pretraining images"
    error = ssl(*words, "--strict").error
    assert error.startswith(f"p: {result['overlap']}; type ssl-app pretrain --exclude {data}")


def test_without_near_copies_nothing_is_said(pretrained: Path, ssl, tiny, tmp_path: Path) -> None:
    data = labeled(tmp_path / "set", darker, ".png", copies=0)
    result = ssl(
        "finetune", "--init", "p", "--data", data, *SHORT, "--out", pretrained / "runs", *tiny, "--strict", "--json"
    ).result
    assert result["overlap"] is None


def test_what_is_excluded_is_excluded_with_its_near_copies(pretrained: Path, ssl, tiny, tmp_path: Path) -> None:
    data = labeled(tmp_path / "set", larger, ".png", copies=4)
    answer = ssl(
        "pretrain", "--data", pretrained / "scans", "--exclude", data, "--method", "rotnet", "--epochs", 1,
        "--batch-size", 8, "--image-size", 16, "--test-fraction", 0.01, "--out", tmp_path / "runs", *tiny,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "excluded: 4 of 29 images, by content, near copy or group of" in answer.err


def test_near_copies_of_the_training_part_are_a_warning(pretrained: Path, ssl, tiny, tmp_path: Path) -> None:
    data = labeled(tmp_path / "set", darker, ".png", copies=0, train=2)
    answer = ssl("finetune", "--init", "p", "--data", data, *SHORT, "--out", pretrained / "runs", *tiny, "--json")
    sentence = "2 of 20 test images have a near copy in train (38.png of 18.png)"
    assert f"warning: {sentence}" in answer.err
    assert answer.result["overlap"] == sentence


def test_near_copies_that_folds_may_part_are_a_warning_and_in_the_verdict(
    pretrained: Path, ssl, tiny, tmp_path: Path
) -> None:
    data = labeled(tmp_path / "set", darker, ".png", copies=0, train=2)
    words = ["sweep", "--init", "p", "--data", data, "--per-class", 2, "--draws", 2, "--steps", 2, "--jobs", 1]
    words += ["--strategy", "feature-extraction", "--split", "none", "--name", "folds", *tiny, "--json"]
    answer = ssl(*words, "--evaluate-on", "folds", "--out", pretrained / "runs")
    assert answer.code == 0, answer.err
    sentence = "4 of 40 images have a near copy that may be in another fold (18.png of 38.png)"
    assert f"warning: {sentence}" in answer.err
    assert f"({sentence})" in answer.result["verdict"]


def test_doctor_finds_mirrored_and_turned_copies_by_the_features_of_a_run(
    pretrained: Path, ssl: Callable, tmp_path: Path
) -> None:
    """What the hash does not find; what it finds, and exact copies, are not said again."""
    data = tmp_path / "set"
    data.mkdir()
    for number in range(40):
        cv2.imwrite(str(data / f"{number:02d}.png"), scene(number))
    for name, image in {
        "mirrored": scene(3)[:, ::-1], "turned": np.rot90(scene(4)), "darker": darker(scene(5)), "same": scene(6),
    }.items():  # fmt: skip
        cv2.imwrite(str(data / f"{name}.png"), np.ascontiguousarray(image))
    command = ("doctor", data, "--init", "p", "--out", pretrained / "runs", "--page", tmp_path / "page.html")
    answer = ssl(*command, "--json")
    assert answer.code == 0, answer.err
    pairs = {tuple(one["images"]): one["turned"] for one in answer.result["near_by_features"]}
    assert pairs == {("03.png", "mirrored.png"): True, ("04.png", "turned.png"): True}
    assert [pair[:2] for pair in answer.result["near"]] == [["05.png", "darker.png"]]
    said = [one["sentence"] for one in answer.result["findings"] if one["kind"] == "near copies by features"]
    assert said[0].startswith(
        "4 images may be near copies by the features of p, in 2 pairs (2 mirrored or turned): 0"
    )
    assert "Near copies by the features of p" in (tmp_path / "page.html").read_text()
    again = ssl(*command, "--json", "--page", tmp_path / "again.html")
    assert again.result["near_by_features"] == answer.result["near_by_features"]
    assert "features: " not in again.err  # they are kept


def test_doctor_says_why_features_tell_nothing_and_goes_on(pretrained: Path, ssl: Callable, tmp_path: Path) -> None:
    deep = (scene(3).astype(np.uint16) * 200)[..., None].repeat(3, 2)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "other.png"), deep[::-1])
    answer = ssl("doctor", tmp_path, "--init", "p", "--out", pretrained / "runs")
    assert answer.code == 0
    assert "warning: near copies by features of p are not looked for: " in answer.err
    assert "images    2, and 0" in answer.out
    assert ssl("doctor", tmp_path, "--init", "q", "--out", pretrained / "runs").error.startswith("no run 'q' in ")


def test_what_is_left_out_of_the_data_is_left_out_of_what_is_excluded(ssl, tiny, images, tmp_path: Path) -> None:
    """With --omit none a mask is an image like others, there as here."""
    data = images(tmp_path / "scans", per_class=6)
    held = tmp_path / "held"
    held.mkdir()
    for path in sorted(data.rglob("*.png"))[:4]:
        shutil.copy(path, held / f"{path.parent.name}-{path.name}")
        shutil.copy(path, path.with_stem(f"{path.stem}_mask"))
    for path in sorted(data.rglob("*_mask.png")):
        turned = cv2.rotate(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.ROTATE_90_CLOCKWISE)
        cv2.imwrite(str(path), turned)
        cv2.imwrite(str(held / f"{path.parent.name}-{path.name}"), turned)
    words = ["pretrain", "--data", data, "--exclude", held, "--method", "rotnet", "--epochs", 1, "--batch-size", 8]
    words += ["--out", tmp_path / "runs", *tiny]
    first = re.compile(r"excluded: (\d+) of ")
    every, without = (int(first.search(ssl(*words, *more).err)[1]) for more in (("--omit", "none"), ()))
    assert (every, without) == (6, 4), "two of the eight are test images"
