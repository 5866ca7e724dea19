"""`ssl-app suggest`: what to label next, from one tiny pretraining; its table goes to `finetune --labels`."""

import base64
import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

FINETUNE = ("--strategy", "feature-extraction", "--steps", 2, "--batch-size", 8, "--json")


def read(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def data_of(page: str | Path) -> dict[str, Any]:
    """What the page knows."""
    text = Path(page).read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    content: dict[str, Any] = json.loads(found[0])
    return content


@pytest.fixture(scope="module")
def listed(trained) -> list[dict[str, Any]]:
    """Rows of a manifest of the pretraining's images: every fourth is test, three are one patient."""
    keys = sorted(str(path.relative_to(trained.data)) for path in trained.data.rglob("*.png"))
    return [
        {
            "path": key,
            "label": key.split("/")[0],
            "patient": i // 3,
            "split": "test" if i // 3 % 4 == 0 else "train",
        }
        for i, key in enumerate(keys)
    ]


@pytest.fixture
def manifest(trained, listed) -> Callable[..., Path]:
    """Write a manifest beside the images: manifest(rows)."""
    return lambda rows: write(trained.data / "list.csv", rows)


@pytest.fixture
def suggest(ssl, tiny, trained) -> Callable[..., Any]:
    """Type `ssl-app suggest ...`: the answer."""
    return lambda *words: ssl("suggest", *words, "--out", trained.out, "--json", *tiny)


@pytest.fixture
def refuse(ssl, tiny, trained) -> Callable[..., str]:
    """Type what must be refused: its one line, and no run is left."""

    def refused(*words: object) -> str:
        before = sorted(path.name for path in trained.out.iterdir())
        error: str = ssl("suggest", *words, "--out", trained.out, *tiny).error
        assert sorted({path.name for path in trained.out.iterdir()} - {"cache"}) == sorted({*before} - {"cache"})
        return error

    return refused


def test_nothing_is_labeled_yet(suggest, trained) -> None:
    answer = suggest("--labels", "none", "--count", 6)
    result = answer.result
    assert set(result) == {
        "verb", "run", "seconds", "settings", "n", "candidates", "labels_so_far", "stand_for", "groups",
        "test_left_out", "unreadable", "init", "suggested", "page", "sentence",
    }  # fmt: skip
    assert (result["n"], result["labels_so_far"]) == (6, 0)
    assert 6 <= result["stand_for"] <= result["candidates"]
    assert result["candidates"] + result["test_left_out"] == 72
    assert (result["init"], result["groups"], result["settings"]["run"]) == ("p", None, "p")
    table = read(result["suggested"])
    assert len(table) == len({row["path"] for row in table}) == 6
    assert [set(row) for row in table] == [{"path", "label", "stands_for"}] * 6
    assert {row["label"] for row in table} == {""}
    assert sum(int(row["stands_for"]) for row in table) == result["stand_for"]
    sentence = (
        f"6 of {result['candidates']} unlabeled training images suggested, which stand for {result['stand_for']} "
        f"of them (none labeled so far); {result['test_left_out']} test images left out. A chosen sample is no "
        f"random one: intervals over draws (sweep) do not hold for it, those over test images do; and classes may be "
        f"unequal in number."
    )
    assert result["sentence"] == sentence
    assert f"\n{sentence}\n" in answer.err
    assert "run: p, the newest finished pretraining in" in answer.err
    assert "note: no image of the test part has a label, and finetune needs some; a sweep by folds need" in answer.err
    assert (
        f"is filled in, type ssl-app sweep --evaluate-on folds --init p --labels {result['suggested']} " in answer.err
    )
    again = suggest("p", "--labels", "none", "--count", 6).result
    assert read(again["suggested"]) == table, "the same seed, the same images"


def test_the_table_filled_in_is_all_that_finetune_needs(suggest, ssl, tiny, trained, manifest, listed) -> None:
    """Labels so far are those of the test part and of three training images; the table keeps them."""
    known = {row["path"] for row in listed if row["split"] == "test"} | {listed[i]["path"] for i in (3, 27, 51)}
    some = [row | {"label": row["label"] if row["path"] in known else ""} for row in listed]
    data = manifest(some)
    answer = suggest("p", "--data", data, "--group", "patient", "--count", 9)
    result = answer.result
    assert (result["labels_so_far"], result["candidates"], result["test_left_out"]) == (3, 51, 18)
    assert "note: no image of the test part" not in answer.err
    table = read(result["suggested"])
    assert list(table[0]) == ["path", "label", "stands_for", "group"]
    suggested, earlier = table[:9], table[9:]
    assert not {row["label"] for row in suggested} - {""}
    assert {row["path"] for row in earlier} == known
    assert not {row["path"] for row in suggested} & known
    truth = {row["path"]: row["label"] for row in listed}
    assert all(row["label"] == truth[row["path"]] for row in earlier)
    assert {row["path"]: row["group"] for row in table} == {
        row["path"]: str(row["patient"]) for row in listed if row["path"] in {one["path"] for one in table}
    }
    assert all(int(row["stands_for"]) >= 1 for row in suggested)
    assert not any(row["stands_for"] for row in earlier)

    command = next(line for line in answer.err.splitlines() if line.startswith("once "))
    typed = command.split(" type ssl-app ")[1].split()
    assert typed[0] == "finetune"
    for row in suggested[:6]:  # three are left empty
        row["label"] = truth[row["path"]]
    write(Path(result["suggested"]), table)
    done = ssl(*typed, *FINETUNE, *tiny)
    assert done.result["labels_used"] == 9, "three before, and six of the nine"
    assert done.result["test"]["n"] == 18
    drawn = {row["path"]: row["label"] for row in read(Path(done.result["run"]) / "draw.csv")}
    assert all(drawn[row["path"]] == row["label"] for row in suggested[:6])

    next_time = suggest(
        "p", "--data", data, "--group", "patient", "--count", 5, "--labels", result["suggested"]
    ).result
    assert (next_time["labels_so_far"], next_time["candidates"]) == (9, 45)
    assert not {row["path"] for row in read(next_time["suggested"])[:5]} & set(drawn)


def test_a_table_that_nobody_has_filled_in_is_refused_by_finetune(suggest, ssl, tiny, trained) -> None:
    table = suggest("--labels", "none", "--count", 4).result["suggested"]
    error = ssl("finetune", "--init", "p", "--labels", table, "--out", trained.out, *FINETUNE[:-1], *tiny).error
    assert error == (f"{table} gives no label to these images; expected two classes or more; fill its column label")


def test_one_image_a_patient_and_none_of_the_test_part(suggest, manifest, listed) -> None:
    data = manifest([row | {"label": ""} for row in listed])
    answer = suggest("p", "--data", data, "--group", "patient", "--count", 18)
    table = read(answer.result["suggested"])
    assert sorted(int(row["group"]) for row in table) == [i for i in range(24) if i % 4], (
        "18 patients, one image each"
    )
    assert answer.result["groups"] == 18
    assert answer.result["sentence"].startswith("18 of 18 groups (patient) of 54 unlabeled training images suggested")
    more = read(suggest("p", "--data", data, "--group", "patient", "--count", 20).result["suggested"])
    assert len({row["group"] for row in more}) == 18, "two patients twice, when all have given one"


def test_copies_are_suggested_once(suggest, ssl, tiny, trained, tmp_path: Path) -> None:
    twice = tmp_path / "twice"
    shutil.copytree(trained.data, twice / "one", ignore=shutil.ignore_patterns("*.csv"))
    shutil.copytree(twice / "one", twice / "two" / "deeper")
    result = suggest("p", "--data", twice, "--labels", "none", "--count", 30).result
    pictures = [cv2.imread(str(twice / row["path"]), cv2.IMREAD_UNCHANGED) for row in read(result["suggested"])]
    assert len({picture.tobytes() for picture in pictures}) == 30
    assert 30 < result["candidates"] <= 72
    labels = write(tmp_path / "l.csv", [{"path": row["path"], "label": "x"} for row in read(result["suggested"])])
    left = suggest("p", "--data", twice, "--labels", labels, "--count", 5).result
    assert left["candidates"] == result["candidates"] - 30, "a copy of a labeled picture is labeled"


def test_the_page_shows_the_images_and_asks_no_network(suggest, ssl, tiny, trained, manifest, listed) -> None:
    odd = "class0/a\"<script>, ü'&amp;.png"
    (trained.data / odd).parent.mkdir(exist_ok=True)
    (trained.data / odd).write_bytes((trained.data / listed[4]["path"]).read_bytes())
    rows = [row | {"label": "" if row["split"] == "train" else row["label"]} for row in listed]
    rows[4]["path"] = odd
    result = suggest("p", "--data", manifest(rows), "--group", "patient", "--count", 54, "--thumb", 16).result
    (trained.data / odd).unlink()
    text = Path(result["page"]).read_text(encoding="utf-8")
    held = data_of(result["page"])
    with open(result["suggested"], newline="", encoding="utf-8") as file:
        assert [held["columns"], *held["suggested"], *held["labeled"]] == list(csv.reader(file))
    assert odd in [row[0] for row in held["suggested"]]
    assert held["group"] == "patient"
    shown = [
        cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_UNCHANGED) for one in held["pictures"]
    ]
    assert [picture.shape for picture in shown] == [(16, 16)] * 54
    first = held["suggested"][0][0]
    image = cv2.imread(str(trained.data / (listed[4]["path"] if first == odd else first)), cv2.IMREAD_UNCHANGED)
    assert np.corrcoef(image.ravel(), shown[0].ravel())[0, 1] > 0.97
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'; script-src 'sha256-")
    assert "{{" not in text.replace(json.dumps(held), "")
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) == {"data:,"}
    assert "http://" not in text
    assert "https://" not in text


def test_the_pictures_are_whole_and_no_longer_than_wanted() -> None:
    from ssl_app.data.intensity import PixelScaling
    from ssl_app.report.originals import picture
    from tests.toys import InMemory

    scaling = PixelScaling("range", 1000.0, 3000.0, (), ())
    wide = np.full((100, 400, 1), 2000, np.uint16)
    wide[:, 200:] = 3000
    shown = picture(InMemory([wide]), 0, scaling, 80)
    assert shown.shape == (20, 80, 1)
    assert (int(shown[10, 10, 0]), int(shown[10, 70, 0])) == (128, 255)
    assert picture(InMemory([np.zeros((9, 7, 3), np.uint8)]), 0, scaling, 80).shape == (9, 7, 3)
    assert picture(InMemory([np.zeros((9, 7, 5), np.float32)]), 0, scaling, 80).shape == (9, 7, 1)


def test_a_mistake_is_one_line(refuse, suggest, trained, manifest, listed, tmp_path: Path) -> None:
    assert refuse("p", "--count", 3) == (
        f"0 of {len(listed) - suggest('--labels', 'none', '--count', 1).result['test_left_out']} training images of "
        f"{trained.data} have no label (copies count once), 3 are requested; type --labels none to choose as if "
        f"nothing were labeled"
    )
    data = manifest([row | {"label": row["label"] if row["split"] == "test" else ""} for row in listed])
    assert refuse("p", "--data", data, "--count", 60) == (
        f"54 of 54 training images of {data} have no label (copies count once), 60 are requested; type --count 54"
    )
    strange = write(tmp_path / "strange.csv", [{"path": "gone.png", "label": "a"}])
    assert refuse("p", "--labels", strange) == (
        f"{strange} names none of 72 images: its first path is 'gone.png', theirs 'class0/000.png'; expected paths "
        f"as the data list them; write 'class0/000.png' there"
    )
    assert refuse("none") == "RUN none is random weights; expected a pretraining; type ssl-app pretrain"
    assert refuse("p", "--count", 0) == "--count is 0; expected at least 1"


def test_mistakes_are_shown_all_at_once(refuse, ssl, tiny, tmp_path: Path, trained) -> None:
    error = refuse("q", "--labels", tmp_path / "l.csv", "--data", tmp_path / "nowhere", "--name", "a/b")
    assert error.startswith(
        "4 mistakes: (1) 'a/b' cannot be a run's name; expected at most 100 letters, digits and -"
    )
    assert f"(2) no run 'q' in {trained.out}; known: " in error
    assert f"(3) the labels {tmp_path / 'l.csv'}: it is not a file; expected a .csv, .tsv or .parquet with " in error
    assert f"(4) {tmp_path / 'nowhere'} does not exist; " in error
    empty = ssl("suggest", "--out", tmp_path / "new", *tiny).error
    assert empty == f"no finished pretraining in {tmp_path / 'new'}; type ssl-app pretrain, or another --out"
