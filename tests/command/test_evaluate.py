"""`ssl-app evaluate`: what a frozen backbone is worth, layer by layer; on tiny sets and one tiny pretraining."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_app import checkpoints, runs
from ssl_app.evaluation import knn
from ssl_app.training import initialization

LAYERS = ["stem", "stage1", "stage2", "stage3", "stage4"]
SCORES = {"n", "accuracy", "balanced_accuracy", "macro_f1", "low", "high", "held_out"}


def saved(run: str) -> dict[str, Any]:
    """result.json of a run."""
    content: dict[str, Any] = json.loads((Path(run) / "result.json").read_text())
    return content


def make_faint(folder: Path, count: int = 120, side: int = 16) -> Path:
    """A manifest of noisy images whose class shows faintly; every fourth is test, three are one patient."""
    import cv2

    folder.mkdir()
    generator = np.random.default_rng(1)
    rows = []
    for number in range(count):
        label = int(generator.integers(3))
        image = generator.integers(0, 200, (side, side), dtype=np.uint8)
        image[:, label * 5 : label * 5 + 5] += 30
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
        mark = "test" if number // 3 % 4 == 0 else "train"
        rows.append({"path": f"{number:03d}.png", "label": f"c{label}", "patient": number // 3, "split": mark})
    return write(folder / "set.csv", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faint(tmp_path_factory.mktemp("evaluate") / "faint")


@pytest.fixture
def evaluate(ssl, tiny, trained) -> Callable[..., dict[str, Any]]:
    """Type an evaluation in the folder of the pretraining: its result, which result.json holds too."""

    def typed(*words: object) -> dict[str, Any]:
        layers = () if "--layers" in words else ("--layers", "pooled")
        beside = () if "--baseline" in words else ("--baseline", "none")
        typed = ("evaluate", *words, *layers, *beside, "--out", trained.out, *tiny, "--json")
        found: dict[str, Any] = ssl(*typed).result
        assert saved(found["run"]) == found
        return found

    return typed


@pytest.fixture
def refuse(ssl, tiny, trained) -> Callable[..., str]:
    """Type what must be refused: its one line, and nothing is left in --out."""

    def refused(*words: object) -> str:
        before = sorted(path.name for path in trained.out.iterdir())
        error: str = ssl("evaluate", *words, "--out", trained.out, *tiny).error
        assert sorted(path.name for path in trained.out.iterdir()) == before
        return error

    return refused


def scores(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Balanced accuracy of both measures, by layer."""
    return {
        layer: (one["knn"]["balanced_accuracy"], one["linear"]["balanced_accuracy"])
        for layer, one in result["probe"].items()
    }


def test_the_pooled_output_is_measured_on_the_data_of_the_pretraining(ssl, tiny, trained) -> None:
    answer = ssl("evaluate", "p", "--layers", "pooled", "--k", 200, "--out", trained.out, *tiny, "--json")
    result = answer.result
    assert result["verb"] == "evaluate"
    base = {"verb", "run", "seconds", "settings"}
    own = {"init", "probe", "random", "best", "last", "curves", "labels_used", "held_out", "overlap", "unreadable"}
    assert set(result) == base | own | {"pictures"}
    assert result["pictures"] == []
    assert (result["init"], result["labels_used"], result["overlap"]) == ("p", 57, None)
    assert list(result["probe"]) == ["pooled"]
    one = result["probe"]["pooled"]
    assert one["features"] == 64
    assert set(one["knn"]) == SCORES | {"k", "sigma"}
    assert set(one["linear"]) == SCORES | {"how"}
    assert (one["knn"]["k"], one["knn"]["sigma"]) == (57, 0.1), "200, of which there are 57"
    for kind in ("knn", "linear"):
        assert one[kind]["n"] == 15
        assert 0 <= one[kind]["low"] <= one[kind]["balanced_accuracy"] <= one[kind]["high"] <= 1
    for line in (
        f"data: {trained.data}, as in p (--data says otherwise)",
        "p with the labels of 57 training images",
        "balanced accuracy [95 % interval over test images] and accuracy, n = 15 test images\n",
    ):
        assert line in answer.err


def test_every_layer_is_one_line(ssl, tiny, trained, faint) -> None:
    words = ["evaluate", "p", "--data", faint, "--group", "patient", "--out", trained.out, *tiny]
    answer = ssl(*words, "--json")
    result = answer.result
    assert list(result["probe"]) == ["pooled", *LAYERS]
    assert [one["features"] for one in result["probe"].values()] == [64, 2048, 2048, 1024, 512, 256]
    lines = answer.err.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("layer")) + 1
    table = lines[start : start + 12]
    assert [line.split()[0] for line in table] == [
        word for layer in ["pooled", *LAYERS] for word in (layer, "random")
    ]
    number = r"(\d\.\d{3}) \[(\d\.\d{3}), (\d\.\d{3})\] +(\d\.\d{3})"
    rows = [row for layer in result["probe"] for row in (result["probe"][layer], result["random"][layer])]
    for line, one in zip(table, rows, strict=True):
        for found, kind in zip(re.findall(number, line), ("knn", "linear"), strict=True):
            wanted = [one[kind][key] for key in ("balanced_accuracy", "low", "high", "accuracy")]
            assert [float(text) for text in found] == pytest.approx(wanted, abs=5.1e-4)
    assert "[95 % interval over test groups (patient)]" in answer.err
    for kind, name in (("knn", "kNN"), ("linear", "linear probe")):
        held_out = {layer: one[kind]["held_out"] for layer, one in result["probe"].items()}
        best = result["best"][kind]
        assert held_out[best] == max(held_out.values())
        assert f"{best} by {name} ({held_out[best]:.3f}; pooled {held_out['pooled']:.3f})" in answer.err
    assert result["last"] == "pooled"
    assert f"best on {result['held_out']} held-out training images, not on test: " in answer.err
    assert 0.1 < result["held_out"] / result["labels_used"] <= 0.2


def test_retrieval_clusters_and_classes_stand_beside_chance_and_random_weights(evaluate, faint) -> None:
    words = ["--data", faint, "--group", "patient", "--baseline", "scratch", "--clusters", "3,12"]
    result = evaluate("p", *words)
    for one in (result["probe"]["pooled"], result["random"]["pooled"]):
        found = one["retrieval"]
        assert (found["n"], found["left_out"]) == (30, 0)
        assert 0 < found["map_low"] <= found["map"] <= found["map_high"] < 1
        assert {f"precision_{k}{limit}" for k in (1, 5, 10) for limit in ("", "_low", "_high")} <= set(found)
        assert found["map_by_chance"] > found["precision_by_chance"] > 0.2
        assert [row["k"] for row in one["clusters"]] == [3, 12]
        for row in one["clusters"]:
            assert (row["n"], row["train"]["n"]) == (30, 90)
            assert row["ami_low"] <= row["ami"] <= row["ami_high"] <= 1
            assert row["k_used"] <= row["k"]
            assert 0 < row["nmi_by_chance"] < 1
        few, many = one["clusters"]
        assert few["nmi_by_chance"] < many["nmi_by_chance"], "chance rises with K"
        assert [row["class"] for row in one["per_class"]] == ["c0", "c1", "c2"]
        assert sum(row["n"] for row in one["per_class"]) == 30
        recalls = [row["recall"] for row in one["per_class"]]
        assert np.mean(recalls) == pytest.approx(one["linear"]["balanced_accuracy"])
    assert result["random"]["pooled"] != result["probe"]["pooled"]


def test_the_curves_of_deepcluster(ssl, tiny, trained, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "o", *tiny]
    words = ["--data", trained.data, "--batch-size", 16, "--epochs", 3, "--clusters", 6, "--name", "d"]
    assert ssl("pretrain", "--method", "deepcluster", *words, *out).code == 0
    answer = ssl("evaluate", "d", "--layers", "pooled", "--clusters", "2,6", *out, "--json")
    curves = answer.result["curves"]
    assert set(curves) == {"epoch", "nmi_labels", "ami_labels", "nmi_before", "ami_before"}
    assert curves["epoch"] == [1, 2, 3]
    assert curves["nmi_before"][0] is None, "nothing came before the first clusters"
    assert "clusters against labels: NMI in epoch 1 " in answer.err
    rows = answer.result["probe"]["pooled"]["clusters"]
    best = max(rows, key=lambda row: row["train"]["ami"])["k"]
    assert f"K by AMI on 57 training images, pooled features: {best}" in answer.err
    assert (Path(answer.result["run"]) / "clusters.png").is_file()


def test_images_of_the_querys_patient_are_not_found(evaluate, faint) -> None:
    import cv2

    rows = read(faint)
    for row in rows:  # three images of a patient are nearly one, and patients say nothing of each other
        random = np.random.default_rng([int(row["patient"]), 5])
        image = random.integers(0, 200, (16, 16), dtype=np.uint8)
        image[0, 0] = int(row["path"][:3]) % 250
        cv2.imwrite(str(faint.parent / f"same-{row['path']}"), image)
        row |= {"path": f"same-{row['path']}", "label": f"c{int(random.integers(3))}"}
    same = write(faint.with_name("same.csv"), rows)
    alone = evaluate("p", "--data", same)["probe"]["pooled"]["retrieval"]
    grouped = evaluate("p", "--data", same, "--group", "patient")["probe"]["pooled"]["retrieval"]
    assert alone["precision_1"] == 1
    assert grouped["precision_1"] < 0.7
    assert grouped["map"] < alone["map"]


def test_features_are_computed_once(ssl, tiny, trained, faint) -> None:
    words = ["evaluate", "p", "--data", faint, "--layers", "stage1", "--seed", 3, "--out", trained.out, *tiny]
    first, second = ssl(*words, "--json"), ssl(*words, "--json")
    assert first.err.count("features: ") >= 1
    assert "features: " not in second.err
    assert first.result["probe"] == second.result["probe"]
    assert first.result["random"] == second.result["random"]


def test_the_features_are_those_of_the_frozen_backbone(evaluate, trained, faint) -> None:
    import cv2

    result = evaluate("p", "--data", faint, "--layers", "stage3", "--k", 9)
    start = initialization.load_initialization("p", trained.out, None)
    backbone, _ = start.load(1, 16, 0)
    assert start.scaling is not None
    rows = read(faint)
    images = np.stack([cv2.imread(str(faint.parent / row["path"]), cv2.IMREAD_UNCHANGED)[..., None] for row in rows])
    normalized = (start.scaling.scale(images) - start.scaling.mean) / start.scaling.std
    with torch.no_grad():
        maps = backbone.eval()(torch.tensor(normalized, dtype=torch.float32).permute(0, 3, 1, 2), "stage3")
    features = maps.flatten(1).numpy()  # 32 x 4 x 4: within 4,096 numbers as it is
    labels = np.array([int(row["label"][1:]) for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    predicted = knn.votes(features[~test], labels[~test], features[test], 3, k=(9,))[9].argmax(1)
    assert result["probe"]["stage3"]["knn"]["accuracy"] == pytest.approx((predicted == labels[test]).mean(), abs=0.04)
    assert result["probe"]["stage3"]["features"] == features.shape[1]


def test_nothing_is_chosen_on_the_test_part(evaluate, faint) -> None:
    rows = read(faint)
    for row in rows:
        if row["split"] == "test":
            row["label"] = f"c{(int(row['label'][1:]) + 1) % 3}"
    turned = write(faint.with_name("turned.csv"), rows)
    words = ["--layers", "all", "--k", "1,5,25"]
    one, other = evaluate("p", "--data", faint, *words), evaluate("p", "--data", turned, *words)
    assert one["best"] == other["best"]
    for layer in one["probe"]:
        for kind, keys in (("knn", ("k", "held_out")), ("linear", ("how", "held_out"))):
            ours, theirs = one["probe"][layer][kind], other["probe"][layer][kind]
            assert [ours[key] for key in keys] == [theirs[key] for key in keys]
    assert scores(one) != scores(other), "the labels of the test part are others"
    assert {found["knn"]["k"] for found in one["probe"].values()} <= {1, 5, 25}


def test_random_weights_are_measured_by_seed(evaluate, trained, faint) -> None:
    words = ["--data", faint, "--layers", "stage2"]
    first = evaluate("none", *words)
    assert scores(first) == scores(evaluate("none", *words, "--backbone", "small-resnet"))
    assert scores(first) != scores(evaluate("none", *words, "--seed", 1))
    assert first["overlap"] is None
    assert evaluate("none", *words[:2], "--backbone", "nin", "--image-size", 32)["probe"]["pooled"]["features"] == 192


@pytest.mark.slow
def test_on_digits_the_last_layer_of_a_random_network_is_not_the_best(ssl, tiny, tmp_path: Path) -> None:
    answer = ssl("evaluate", "none", "--layers", "stage3", "--out", tmp_path, *tiny, "--json")
    result = answer.result
    assert result["labels_used"] == 1440, "more than are fitted in f64"
    for kind in ("knn", "linear"):
        pooled, third = (result["probe"][layer][kind] for layer in ("pooled", "stage3"))
        assert pooled["n"] == third["n"] == 357
        assert third["low"] > pooled["high"]
    assert result["best"] == {"knn": "stage3", "linear": "stage3"}
    assert "scratch with the labels of 1440 training images" in answer.err


def test_a_checkpoint_and_a_weights_file_are_measured_as_the_run(evaluate, trained, faint, tmp_path: Path) -> None:
    path = trained.out / "p" / "backbone.safetensors"
    by_run = evaluate("p", "--data", faint)
    assert scores(by_run) == scores(evaluate(path, "--data", faint))
    tensors, _ = checkpoints.read(path)
    body = {k.removeprefix("backbone.body."): t for k, t in tensors.items() if k.startswith("backbone.body.")}
    torch.save(body, tmp_path / "theirs.pth")
    theirs = evaluate(tmp_path / "theirs.pth", "--backbone", "small-resnet", "--data", faint)
    assert theirs["overlap"] == "what theirs was trained on is not known"


def test_test_images_that_were_seen_are_counted(evaluate) -> None:
    result = evaluate("p", "--split-seed", 1)
    assert result["overlap"] == "10 of 12 test images are exact copies of pretraining images"


def test_labels_of_one_image_a_class_choose_nothing(ssl, tiny, trained, faint) -> None:
    rows = read(faint)
    first = {row["label"]: row["path"] for row in reversed(rows) if row["split"] == "train"}
    kept = [row for row in rows if row["split"] == "test" or first[row["label"]] == row["path"]]
    few = write(faint.with_name("few.csv"), kept)
    answer = ssl("evaluate", "p", "--data", few, "--layers", "stage2", "--out", trained.out, *tiny, "--json")
    result = answer.result
    assert (result["labels_used"], result["held_out"]) == (3, 0)
    assert result["best"] == {"knn": None, "linear": None}
    assert result["probe"]["stage2"]["linear"]["how"] == "C = 30, by rule: nothing can be held out"
    assert "no best layer: nothing can be held out of so few training images" in answer.err


def test_an_evaluation_is_tracked(ssl, tiny, trained, tmp_path: Path) -> None:
    import sqlite3

    words = ["none", "--data", trained.data, "--layers", "stage4", "--out", tmp_path / "o"]
    assert ssl("evaluate", *words, *tiny[:4]).code == 0
    with sqlite3.connect(tmp_path / "o" / "mlflow.db") as store:
        kept = {row[0] for row in store.execute("select key from metrics")}
        status = [row[0] for row in store.execute("select status from runs")]
    store.close()
    assert {"pooled_knn_balanced_accuracy", "stage4_linear_accuracy", "stage4_retrieval_map"} <= kept
    assert "pooled_clusters_3_ami" in kept
    assert status == ["FINISHED"]


# What is refused


def test_a_run_without_labels(ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=12, classes=1)
    out = ["--out", tmp_path / "o", *tiny]
    words = ["--data", data, "--epochs", 1, "--batch-size", 16, "--name", "p"]
    assert ssl("pretrain", *words, *out).code == 0
    assert ssl("evaluate", "p", *out).error == (
        f"run p was trained on {data}, which has no labels; type --label COLUMN, or --labels FILE, or --data D"
    )
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["cache", "p"]


def test_what_was_learned_is_drawn(evaluate, ssl, tiny, trained) -> None:
    words = ("--per-class", 2, "--steps", 2, "--strategy", "feature-extraction", "--name", "head")
    assert ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny).code == 0
    result = evaluate("p", "--pictures", "--classifier", "head", "--layers", "stage2,stage3", "--name", "seen")
    folder = trained.out / "seen" / "pictures"
    assert {Path(file).parent for file in result["pictures"]} == {folder}
    names = {Path(file).stem for file in result["pictures"]}
    assert {"filters", "class-maps", "attention-maps", "nearest-neighbors", "feature-map"} <= names
    assert {"top-activations-stage2", "top-activations-stage3"} <= names
    assert {file.stem for file in folder.iterdir()} == names


def test_settings_of_pictures_alone_are_refused_without_them(refuse) -> None:
    for word in (("--tsne",), ("--classifier", "head")):
        assert refuse("p", *word) == "--tsne and --classifier are for pictures; type --pictures too"


def test_a_layer_that_is_not_there(refuse) -> None:
    assert refuse("p", "--layers", "stage9") == "small-resnet has no layer 'stage9'; did you mean 'stage4'?"
    assert refuse("p", "--layers", "all,stage2") == (
        "--layers names all beside others; type --layers all, or the others alone"
    )


def test_a_run_that_has_not_finished_or_is_none(refuse, ssl, tiny, trained, tmp_path: Path) -> None:
    runs.new_run(tmp_path / "o", "half", "pretrain", {})
    assert ssl("evaluate", "half", "--out", tmp_path / "o", *tiny).error == (
        f"run {tmp_path}/o/half has not finished; type ssl-app pretrain --resume half, or another RUN"
    )
    assert refuse("nosuch.pth") == "nosuch.pth is not a file; expected a run, a checkpoint or a weights file"
    assert refuse("P").startswith(f"no run 'P' in {trained.out}; known: ")
    assert ssl("evaluate").error == "ssl-app evaluate needs RUN; type ssl-app evaluate --help"


def test_more_clusters_than_images(refuse) -> None:
    assert refuse("p", "--clusters", "3,99") == (
        "--clusters is 99, and 57 training images are labeled; type --clusters 5 or fewer"
    )
    assert refuse("p", "--clusters", 1) == "--clusters is 1; expected at least 2"


def test_pixels_and_networks_other_than_those_of_the_weights(refuse) -> None:
    assert refuse("p", "--channels", 3) == (
        "p was pretrained on 1 channels, 3 are requested; leave --channels out, or type RUN none"
    )
    assert refuse("p", "--backbone", "nin").endswith("holds a small-resnet, a nin is requested; leave --backbone out")
    assert refuse("p", "--k", "5,0") == "--k is 0; expected at least 1"


def test_features_that_are_not_finite(refuse, trained, tmp_path: Path) -> None:
    tensors, _ = checkpoints.read(trained.out / "p" / "backbone.safetensors")
    body = {k.removeprefix("backbone.body."): t for k, t in tensors.items() if k.startswith("backbone.body.")}
    body["stage4.bn1.bias"] = torch.full_like(body["stage4.bn1.bias"], 3e38)
    torch.save(body, tmp_path / "wild.pth")
    assert refuse(tmp_path / "wild.pth", "--backbone", "small-resnet", "--data", trained.data) == (
        "layer pooled of wild gives numbers that are not finite; type --precision fp32, or evaluate other weights"
    )
