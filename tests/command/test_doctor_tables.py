"""`doctor --labels` and `doctor --clean` of sets whose images lie in no files of their own."""

import csv
import errno
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_app.data.sources.base import Columns, open_source


def pictures(count: int = 12, channels: int = 1, dtype: str = "uint8") -> np.ndarray:
    """Images (N, 14, 14, C), of which the last is the first again."""
    made = np.random.default_rng(channels).integers(0, 250, (count, 14, 14, channels)).astype(dtype)
    made[-1] = made[0]
    return made


def folder(root: Path, count: int = 12) -> Path:
    root.mkdir()
    for number, image in enumerate(pictures(count)):
        cv2.imwrite(str(root / f"{number}.png"), image)
    return root


# labels in a table of their own


def table(path: Path, rows: list[tuple[str, str]], header: str = "path,label") -> Path:
    path.write_text(header + "\n" + "".join(f"{name},{label}\n" for name, label in rows))
    return path


def test_labels_of_a_table_are_looked_at_in_place_of_the_datas_own(ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "scans")
    rows = [(f"{n}.png", "crack" if n < 6 else "Crack " if n < 9 else "unknown") for n in range(12)]
    labels = table(tmp_path / "labels.csv", [*rows, ("gone.png", "crack")])
    result = ssl("doctor", data, "--labels", labels, "--per-class", 9, "--json").result
    said = " ".join(one["sentence"] for one in result["findings"])
    assert f"12 of 12 images have a label in column label of {labels}" in said
    assert f"1 of 13 rows of {labels} name no image, first 'gone.png'" in said
    assert "1 class has several spellings: 'crack' and 'Crack'" in said
    assert "1 label is taken for a class, and may mean none: 'unknown' of 3 images" in said
    assert "have several labels (0.png is crack and unknown)" in said
    assert "classes have fewer than 9 labeled images" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,age,sex\n0.png,a,b\n", "has the columns path, age, sex; expected path and label, or path and cluster"),
        ("path,label\nother/0.png,a\n", "names none of 12 images: its first path is 'other/0.png', theirs '0.png'"),
        ("", "cannot be read as a table"),
    ],
)
def test_labels_that_do_not_fit_are_a_finding(content: str, sentence: str, ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "scans")
    (tmp_path / "labels.csv").write_text(content)
    result = ssl("doctor", data, "--labels", tmp_path / "labels.csv", "--json").result
    assert [one["refused"] for one in result["findings"]] == [True, False]  # the table first; a copy among the images
    assert sentence in result["findings"][0]["sentence"]
    assert result["images"] == 12
    assert " cannot be opened" not in ssl("doctor", data, "--labels", tmp_path / "labels.csv").out


def test_clusters_are_labels_too(ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "scans")
    labels = table(tmp_path / "clusters.csv", [(f"{n}.png", str(n % 2)) for n in range(11)], "path,cluster")
    assert ssl("doctor", data, "--labels", labels, "--json").result["classes"] == {"0": 6, "1": 5}


# cleaned sets of images that lie in no files


def arrays(root: Path, channels: int, dtype: str) -> Path:
    np.savez(root / "set.npz", images=pictures(12, channels, dtype), labels=np.arange(12) % 2)
    return root / "set.npz"


def shards(root: Path) -> Path:
    with tarfile.open(root / "set.tar", "w") as tar:
        for number, image in enumerate(pictures()):
            for ending, content in (("png", cv2.imencode(".png", image)[1].tobytes()), ("cls", b"%d" % (number % 2))):
                entry = tarfile.TarInfo(f"{number:06d}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return root / "set.tar"


def parquet(root: Path) -> Path:
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in pictures(12, 3)]
    pq.write_table(pa.table({"image": encoded, "label": [str(n % 2) for n in range(12)]}), root / "set.parquet")
    return root / "set.parquet"


@pytest.mark.parametrize(
    "make",
    [
        lambda root: arrays(root, 1, "uint8"),
        lambda root: arrays(root, 3, "uint16"),
        lambda root: arrays(root, 2, "uint8"),
        lambda root: arrays(root, 5, "float32"),
        shards,
        parquet,
    ],
    ids=["gray", "16 bits", "two bands", "five bands", "shards", "parquet"],
)
def test_a_cleaned_set_is_written_as_images(make: Callable[[Path], Path], ssl: Callable, tmp_path: Path) -> None:
    data, clean = make(tmp_path), tmp_path / "out" / "clean.csv"
    before = open_source(str(data), Columns())
    answer = ssl("doctor", data, "--clean", clean)
    assert answer.code == 0, answer.err
    assert f"{clean}: 11 images, written to {tmp_path / 'out' / 'clean'}, without 1 extra copies" in answer.out
    after = open_source(str(clean), Columns())
    assert len(after.keys) == 11
    for i in range(1, 11):
        assert np.array_equal(after.read(i), before.read(i))
        assert after.labels is not None
        assert before.labels is not None
        assert after.labels[i] == before.labels[i]
    error = ssl("doctor", data, "--clean", clean).error
    assert error.startswith(f"the images of {data} are to be written to {tmp_path / 'out' / 'clean'}, which holds")


def test_built_in_images_can_be_cleaned(ssl: Callable, tmp_path: Path) -> None:
    result = ssl("doctor", "digits", "--clean", tmp_path / "digits.csv", "--json").result
    with (tmp_path / "digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["images"]
    assert json.dumps(result)
    assert all((tmp_path / row["path"]).is_file() for row in rows[:20])


def test_a_full_disk_leaves_no_half_written_set(
    ssl: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, written = arrays(tmp_path, 1, "uint8"), []

    def write(path: Path, content: bytes) -> None:
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr("ssl_app.data.cleaning.write_bytes", write)
    error = ssl("doctor", data, "--clean", tmp_path / "clean.csv").error
    assert error.startswith("the disk is full (")
    assert not (tmp_path / "clean").exists()
    assert not (tmp_path / "clean.csv").exists()


ODD = ("a,b.png", 'q"uote.png', "new\nline.png", "=cmd.png", "@sum.png", "50%20.png", "what?.png", " blank .png",
       "-x.png", "\u202egnp.png", "e\u0301.png", "'single'.png")  # fmt: skip


def test_a_cleaned_manifest_takes_odd_names_as_they_are(ssl: Callable, tmp_path: Path) -> None:
    """Whatever a file or a class is called, `--clean` lists it, and the list reads the same image."""
    root, rng = tmp_path / "se t#1", np.random.default_rng(0)
    images = {}
    for number, name in enumerate(ODD):
        folder = root / ("=class\t1" if number % 2 else "'two'; rm")
        folder.mkdir(parents=True, exist_ok=True)
        images[name] = rng.integers(0, 255, (16, 16), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", images[name])[1].tobytes())
    for clean in (tmp_path / "elsewhere" / "clean.csv", root / "clean.csv"):
        answer = ssl("doctor", root, "--clean", clean)
        assert answer.code == 0, answer.err
        source = open_source(str(clean), Columns())
        assert len(source.keys) == len(ODD)
        assert set(source.labels or ()) == {"=class\t1", "'two'; rm"}
        for i, key in enumerate(source.keys):
            assert np.array_equal(source.read(i)[..., 0], images[key.rpartition("/")[2]])


def test_settings_are_suggested_with_each_other_and_labels_are_of_the_finetune(ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "scans")
    named = ["dent"] * 5 + ["crack"] * 3 + ["Crack"] * 3 + ["unknown"]
    labels = table(tmp_path / "labels.csv", [(f"{n}.png", label) for n, label in enumerate(named)])
    result = ssl("doctor", data, "--labels", labels, "--json").result
    assert "--per-class 4" in result["suggested"]  # of 5 and 6 images, not of the 1 that is unknown
    pretrain, finetune = result["next"].split(", then ")
    assert not {"--labels", "--unlabeled", "--one-spelling", "--per-class"} & set(pretrain.split())
    assert finetune == f"ssl-app finetune --labels {labels} --unlabeled unknown --one-spelling --per-class 4"


def test_the_column_of_labels_is_of_the_finetune_too(ssl: Callable, tmp_path: Path) -> None:
    data, labels = folder(tmp_path / "scans"), tmp_path / "labels.csv"
    rows = [f"{n}.png,{'ab'[n % 2]},{n}" for n in range(12)]
    labels.write_text("\n".join(["path,kind,age", *rows]))
    pretrain, finetune = (
        ssl("doctor", data, "--labels", labels, "--label", "kind", "--json").result["next"].split(", then ")
    )
    assert "--label" not in pretrain
    assert finetune.startswith(f"ssl-app finetune --labels {labels} --label kind ")


def test_too_few_images_are_said_as_the_pretraining_says_it(
    ssl: Callable, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    data = folder(tmp_path / "three", 3)
    result = ssl("doctor", data, "--json").result
    refused = [one["sentence"] for one in result["findings"] if one["refused"]]
    error = ssl("pretrain", "--data", data, "--method", "rotnet", "--out", tmp_path / "runs", *tiny).error
    assert refused == [error]
    assert " left to pretrain on, " in error
    assert result["next"] == ""
    assert "next:" not in ssl("doctor", data, "--page", tmp_path / "a.html").out


# classes that a split puts on one side


def scarce(root: Path, seed: int = 0) -> Path:
    """Thirty pictures in lots, one class of which is of one lot."""
    (root / "scans").mkdir(parents=True)
    rows = ["path,label,Los"]
    for number, image in enumerate(np.random.default_rng(seed).integers(0, 250, (30, 14, 14, 1)).astype("uint8")):
        cv2.imwrite(str(root / "scans" / f"{number}.png"), image)
        rows.append(f"scans/{number}.png,{'rare' if number < 3 else 'ab'[number % 2]},{number // 3}")
    (root / "list.csv").write_text("\n".join(rows))
    return root / "list.csv"


def test_a_class_on_one_side_is_said_before_anything_is_trained(
    ssl: Callable, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    data = scarce(tmp_path)
    cure = "part; type --unlabeled rare, or give it images of another Los"
    said = [one["sentence"] for one in ssl("doctor", data, "--group", "Los", "--json").result["findings"]]
    sentence = next(one for one in said if "class 'rare' has no " in one)
    assert sentence.endswith(cure)
    assert "its only Los falls into the " in sentence
    again = ssl("doctor", data, "--group", "Los", "--unlabeled", "rare", "--json").result
    assert not any("has no t" in one["sentence"] for one in again["findings"])
    words = ("pretrain", "--data", data, "--method", "rotnet", "--epochs", 1, "--batch-size", 8, "--image-size", 16)
    answer = ssl(*words, "--group", "Los", "--out", tmp_path / "runs", "--name", "p", *tiny)
    assert answer.code == 0, answer.err
    assert answer.err.count(f"warning: {sentence}") == 1
    found = ssl("finetune", "--init", "p", "--per-class", 2, "--steps", 2, "--out", tmp_path / "runs", *tiny)
    assert found.error == sentence


# formats


def test_transparency_that_is_dropped_is_said(ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "scans", 6)
    said = " ".join(one["sentence"] for one in ssl("doctor", data, "--json").result["findings"])
    assert "transparency" not in said
    for name in ("x.png", "y.webp"):
        cv2.imwrite(str(data / name), np.random.default_rng(3).integers(0, 250, (14, 14, 4)).astype("uint8"))
    found = ssl("doctor", data, "--json").result["findings"]
    assert [one["sentence"] for one in found if one["kind"] == "transparency"] == [
        "2 images have transparency (x.png the first): it is dropped, and pixels under it are seen in their color"
    ]


def test_formats_are_counted_by_files_whatever_is_in_their_names(ssl: Callable, tmp_path: Path) -> None:
    data = folder(tmp_path / "Lot #3", 6)
    (data / "0.png").rename(data / "Prüfung#12.png")
    cv2.imwritemulti(str(data / "stack#1.tif"), list(pictures(3)))
    np.savez(tmp_path / "a.npz", images=pictures(5))
    assert ssl("doctor", data, "--json").result["formats"] == {".png": 6, ".tif": 1}
    assert ssl("doctor", tmp_path / "a.npz", "--json").result["formats"] == {".npz": 1}
    assert ssl("doctor", "digits", "--json").result["formats"] == {}
