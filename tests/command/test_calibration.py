"""Probabilities that are as large as they are right, and labels that are left blank."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app import checkpoints
from ssl_app.evaluation.temperature import tempered
from ssl_app.transfer.trained import CLASSIFIER

QUICK = ("--steps", 2, "--batch-size", 8)


@pytest.fixture(scope="module")
def calibrated(ssl, tiny, trained) -> Any:
    """The answer of a finetune run `c` on frozen features, with 8 labels of each of 3 classes."""
    words = ["--strategy", "feature-extraction", "--per-class", 8, "--name", "c"]
    return ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny, "--json")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folds_of_the_draw_choose_a_temperature(calibrated, trained) -> None:
    found = calibrated.result["calibration"]
    assert found["n"] == 24
    assert found["temperature"] > 0
    assert (
        f"probabilities are calibrated: temperature {found['temperature']:.2f}, chosen by 5 folds of the 24 labels; "
        f"test calibration error {found['error']:.3f}, before {found['error_before']:.3f}\n"
    ) in calibrated.err
    _, meta = checkpoints.read(trained.out / "c" / CLASSIFIER)
    assert meta["temperature"] == found["temperature"]
    assert meta["abstention"] == calibrated.result["abstention"]
    assert not list((trained.out / "cache").glob("tmp*")), "features of the folds are gone"


def test_the_table_of_the_test_images_is_calibrated(calibrated, ssl, tiny, trained) -> None:
    words = ["--strategy", "feature-extraction", "--per-class", 8, "--calibrate", "none", "--name", "plain"]
    plain = ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny, "--json")
    assert plain.result["test"] == calibrated.result["test"], "no prediction changes"
    assert "probabilities are not calibrated (as set), test calibration error" in plain.err

    def numbers(run: str) -> np.ndarray:
        rows = rows_of(trained.out / run / "test.csv")
        return np.array([[float(row[f"p_class{k}"]) for k in range(3)] for row in rows])

    wanted = tempered(numbers("plain"), calibrated.result["calibration"]["temperature"])
    assert np.abs(numbers("c") - wanted).max() < 1e-4, "of six decimals"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("--strategy", "feature-extraction", "--per-class", 1),
            "3 labels cannot be folded, none can be held out",
        ),
        (
            ("--strategy", "full-fine-tuning", "--per-class", 2),
            "2 folds would train the network 2 times more; --calibrate folds does that",
        ),
    ],
)
def test_where_nothing_is_held_out_it_says_so(words: tuple[object, ...], reason: str, ssl, tiny, trained) -> None:
    answer = ssl("finetune", "--init", "p", *words, *QUICK, "--out", trained.out, *tiny, "--json")
    assert answer.result["calibration"]["temperature"] is None
    assert f"probabilities are not calibrated ({reason}), test calibration error" in answer.err


def test_folds_train_as_often_where_that_is_wanted(ssl, tiny, trained) -> None:
    words = ["--strategy", "full-fine-tuning", "--per-class", 2, "--calibrate", "folds", *QUICK]
    answer = ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny, "--json")
    assert answer.result["calibration"]["temperature"] > 0
    lines = [line for line in answer.err.splitlines() if line.startswith("calibration: ")]
    assert lines == [f"calibration: training {number} of 2, on 3 of 6 labels" for number in (1, 2)]


def test_labels_below_a_probability_are_left_blank(calibrated, ssl, trained) -> None:
    words = ["predict", "c", "--data", trained.data, "--out", trained.out, "--threads", 1]
    every = rows_of(Path(ssl(*words, "--json").result["predictions"]))
    surest = sorted(max(float(row[f"p_class{k}"]) for k in range(3)) for row in every)
    threshold = round(surest[len(surest) // 2], 2)  # about half of them
    answer = ssl(*words, "--abstain", threshold, "--json")
    rows, found = rows_of(Path(answer.result["predictions"])), answer.result["abstained"]
    blank = [row["label"] == "" for row in rows]
    assert blank == [max(float(row[f"p_class{k}"]) for k in range(3)) < threshold for row in rows]
    assert [row | {"label": ""} for row in rows] == [row | {"label": ""} for row in every]
    assert (found["blank"], found["share"]) == (sum(blank), sum(blank) / 72)
    assert f"{sum(blank)} of 72 labels left blank, of a probability below {threshold:g}\n" in answer.err
    kept = calibrated.result["abstention"][round(100 * threshold)]
    assert found["test"] == kept | {"blank": 1 - kept["kept"] / 15}
    assert f"on the 15 test images of the run: {100 * (1 - kept['kept'] / 15):.0f} % left blank, " in answer.err
    assert answer.result["calibrated"]


def test_a_threshold_that_was_not_measured_is_refused(calibrated, ssl, trained) -> None:
    words = ["predict", "c", "--data", trained.data, "--out", trained.out, "--abstain", 0.905]
    assert ssl(*words).error == "--abstain is 0.905; expected hundredths, such as 0.9 or 0.95"
