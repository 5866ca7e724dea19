"""Self-labeling from argv: pretrain, label, learn the labels, name them; and what is refused."""

import csv
import shlex
import signal
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from ssl_app.pretraining.labeler import labeling_methods
from tests import forked
from tests.toys import NARROW

WORDS = ["--epochs", 2, "--batch-size", 16, "--clusters", 4]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images) -> tuple[Path, Path]:
    """A set of 72 images, and the runs `s` of SeLa and `d` of DeepCluster on it."""
    folder = tmp_path_factory.mktemp("labels")
    data, out = images(folder / "scans"), folder / "runs"
    for name, method in (("s", ["sela", "--heads", 2]), ("d", ["deepcluster"])):
        words = ["pretrain", "--data", data, "--method", *method, *WORDS, "--name", name, "--out", out]
        answer = ssl(*words, *tiny)
        assert answer.code == 0, answer.err
        assert "note: 4 clusters for 57 images, 14.2 images each" in answer.err
    return data, out


@pytest.mark.parametrize(("name", "heads"), [("s", 2), ("d", 1)])
def test_labels_are_written_for_every_image_and_every_head(
    name: str, heads: int, place: tuple[Path, Path], ssl
) -> None:
    data, out = place
    answer = ssl("label", name, "--out", out, "--json", "--threads", 1)
    table = f"--labels {out / name / 'labels.csv'} --data {data} --out {out}"
    assert f"now type ssl-app clusters {name} --out {out}, or " in answer.err
    assert answer.err.endswith(f"ssl-app pretrain --method from-labels {table}\n")
    result = answer.result
    assert result["n"] == 72
    assert result["clusters"] == [4] * heads
    table = pd.read_csv(out / name / "labels.csv")
    assert list(table.columns) == [
        "path",
        *(f"{name}{end}" for end in ["", "_2"][:heads] for name in ("cluster", "confidence", "margin")),
    ]
    assert sorted(table["path"]) == sorted(str(path.relative_to(data)) for path in data.rglob("*.png"))
    assert table["cluster"].between(0, 3).all()
    assert (table["confidence"] >= table["margin"]).all()
    assert table["confidence"].between(0.25, 1).all()
    assert set(result["agreement"]) == {"n", "nmi", "ami", "purity", "largest_class", "as_by_chance"}
    assert result["agreement"]["largest_class"] == pytest.approx(1 / 3)
    assert "with the 72 labels there, first head: NMI" in answer.err
    again = ssl("label", name, "--out", out, "--data", data, "--output", out / f"{name}.parquet", "--threads", 1)
    assert again.code == 0, again.err
    pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet"), table, check_dtype=False)


def test_what_to_type_next_keeps_groups_and_paths_with_spaces(
    place: tuple[Path, Path], tmp_path: Path, ssl, tiny
) -> None:
    data, _ = place
    table, out = tmp_path / "all scans.csv", tmp_path / "o"
    table.write_text("\n".join(["path,patient", *(f"{path},{path.stem}" for path in sorted(data.rglob("*.png")))]))
    words = ["pretrain", "--data", table, "--group", "patient", "--method", "sela", "--heads", 1, "--clusters", 4]
    assert ssl(*words, "--epochs", 1, "--batch-size", 16, "--name", "g", "--out", out, *tiny).code == 0
    next_words = ssl("label", "g", "--out", out, "--threads", 1).err.split("or ssl-app ")[1]
    assert shlex.split(next_words)[-6:] == ["--data", str(table), "--group", "patient", "--out", str(out)]


def test_another_network_learns_the_labels_and_is_transferred(place: tuple[Path, Path], ssl, tiny) -> None:
    data, out = place
    assert ssl("label", "s", "--out", out, "--threads", 1).code == 0
    words = ["pretrain", "--method", "from-labels", "--labels", out / "s" / "labels.csv", "--data", data]
    answer = ssl(*words, "--backbone", "nin", "--epochs", 1, "--batch-size", 16, "--name", "t", "--out", out, *tiny)
    assert "note: 2 labelings of 57 of 57 images" in answer.err
    finetuned = ssl("finetune", "--init", "t", "--per-class", 2, "--steps", 2, "--out", out, *tiny, "--json")
    assert finetuned.result["test"]["n"] == 15
    assert finetuned.result["overlap"] is None
    apart = [*words, "--split-seed", 7, "--epochs", 1, "--batch-size", 16, "--name", "u", "--out", out, *tiny]
    assert ssl(*apart).code == 0
    finetuned = ssl("finetune", "--init", "u", "--per-class", 2, "--steps", 2, "--out", out, *tiny, "--json")
    assert "exact copies of pretraining images" in finetuned.result["overlap"], "the labels' own network learned them"


def test_labels_of_people_that_pretraining_has_learned_are_said(
    place: tuple[Path, Path], tmp_path: Path, ssl, tiny
) -> None:
    data, out = place
    table = tmp_path / "true.csv"
    paths = sorted(data.rglob("*.png"))
    table.write_text("\n".join(["path,label", *(f"{path.relative_to(data)},{path.parent.name}" for path in paths)]))
    more = ["--epochs", 1, "--batch-size", 16, "--out", out, *tiny]
    words = ["pretrain", "--method", "from-labels", "--labels", table, "--data", data]
    assert ssl(*words, "--name", "people", *more).code == 0
    assert ssl("pretrain", "--init", "people", "--data", data, "--name", "after", *more).code == 0
    for name in ("people", "after"):
        words = ["finetune", "--init", name, "--per-class", 2, "--steps", 2, "--out", out, *tiny, "--json"]
        assert ssl(*words).result["overlap"] == "pretraining has learned the labels of 57 images"
    words = ["sweep", "--init", "people", "--per-class", "1,2", "--steps", 2, "--draws", 2, "--strategy", "two-stage"]
    swept = ssl(*words, "--jobs", 1, "--evaluate-on", "test", "--out", out, *tiny, "--json")
    assert "Pretraining has learned the labels of 57 images, which scratch has not." in swept.result["verdict"]
    assert "remark: people: pretraining has learned the labels of 57 images" in swept.err


def test_names_of_clusters_are_labels_to_train_on(place: tuple[Path, Path], tmp_path: Path, ssl, tiny) -> None:
    data, out = place
    paths = sorted(str(path.relative_to(data)) for path in data.rglob("*.png"))
    with (tmp_path / "names.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "cluster", "label"])
        writer.writerows([path, 1, "dark, mostly" if i % 2 else 'say "bright"'] for i, path in enumerate(paths))
        writer.writerow(["gone.png", 1, "dark, mostly"])
    words = ["finetune", "--init", "s", "--labels", tmp_path / "names.csv", "--per-class", 2, "--steps", 2]
    answer = ssl(*words, "--out", out, *tiny, "--json")
    assert {row["class"] for row in answer.result["test"]["per_class"]} == {"dark, mostly", 'say "bright"'}
    assert "labels: 72 of 72 images, 2 classes, from column label of" in answer.err
    assert f"note: 1 of 73 rows of {tmp_path / 'names.csv'} name no image, the first is 'gone.png'" in answer.err


@pytest.mark.parametrize(("label", "given"), [("", "no label"), ("dark", "the label 'dark' alone")])
def test_a_table_of_fewer_than_two_classes_is_refused(
    label: str, given: str, place: tuple[Path, Path], tmp_path: Path, ssl, tiny
) -> None:
    data, out = place
    table = tmp_path / "one.csv"
    table.write_text(
        "\n".join(["path,label", *(f"{path.relative_to(data)},{label}" for path in data.rglob("*.png"))])
    )
    assert ssl("finetune", "--init", "s", "--labels", table, "--out", out, *tiny).error == (
        f"{table} gives {given} to these images; expected two classes or more; fill its column label"
    )


def test_what_makes_no_clusters_is_refused(place: tuple[Path, Path], trained, tmp_path: Path, ssl, tiny) -> None:
    data, out = place
    assert ssl("label", "p", "--out", trained.out).error == (
        f"run {trained.out / 'p'} was pretrained by rotnet, which makes no clusters; "
        f"expected {' or '.join(labeling_methods())}; type ssl-app pretrain --method sela"
    )
    words = ["pretrain", "--data", data, "--method", "sela", "--out", tmp_path]
    assert ssl(*words, "--clusters", 100).error == "57 images cannot fill 100 clusters; type --clusters 5"
    assert ssl(*words, "--memory", "lots").error == "the memory is 'lots'; expected a size such as 2G or 512M"
    assert "label is hardly more than an image's name; type --clusters 5 or fewer" in (
        ssl(*words, "--clusters", 10, "--epochs", 1, *tiny).err
    )
    output = tmp_path / "labels.txt"
    assert ssl("label", "s", "--out", out, "--output", output).error == (
        f"{output} is of no known kind; expected .csv or .parquet; type another --output"
    )


KILLED = f"""
import os, signal, sys
from ssl_app.models.backbones import small_resnet
small_resnet.WIDTHS = {NARROW}
from ssl_app.clustering import sinkhorn
from ssl_app.cli import main
original, calls = sinkhorn.labels, []
def labels(*about):
    calls.append(1)
    if len(calls) == 6:  # the second head of the third relabeling
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*about)
sinkhorn.labels = labels
main(sys.argv[1:])
"""


def test_a_kill_amid_a_relabeling_changes_nothing(place: tuple[Path, Path], ssl, tiny) -> None:
    data, out = place
    words = ["pretrain", "--data", data, "--method", "sela", "--heads", 2, *WORDS, "--relabels", 8, "--out", out]
    words = [str(word) for word in [*words, *tiny, "--save-every", 0]]
    killed = forked.start(KILLED, *words, "--name", "killed")
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    again = ssl("pretrain", "--resume", "killed", "--out", out)
    assert again.code == 0, again.err
    assert ssl(*words, "--name", "undisturbed").code == 0
    one, two = (load_file(out / name / "backbone.safetensors") for name in ("killed", "undisturbed"))
    assert one.keys() == two.keys()
    assert not [name for name in one if not one[name].equal(two[name])]
    assert int(one["done"]) > 6
